"""How cost grows: with jobs that wait, workers, payload, clients and the length of a job. Tables, and a picture.

    python -m benchmarks.growth [SERIES ...] [--most N] [--rounds N] [--json FILE] [--plot FILE.png]

    jobs        us a job, to submit so many at once and get all results       (10 to 100,000)
    workers     jobs/s of a closed loop with two jobs in flight a worker      (1 to 16)
    payload     ms of a job whose argument and result have so many bytes      (1 KB to 64 MB)
    clients     jobs/s with so many clients, each with one job after another  (1 to 64)
    duration    ms over the job's own, for a job that computes so many ms     (1 to 1,000)

Workers preload nothing, so that 16 of them fit into a small host. A figure is the median of the rounds, whose points
take turns; 10,000 jobs and more are measured once. `x` is a figure over the first of its series. 100,000 jobs take half
an hour, so they need `--jobs 100000`; `--most` leaves out the points above it in all series.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.daemon import SIZE, Daemon, closed_loop, pool, started
from pool import Client, Limits

POOL = "default"
SETTINGS = {
    "recycle": {"max_jobs": 1_000_000},
    "preload": {"modules": []},
    "limits": {"memory": "512m", "result": "80m"},
    "backlog": {"max_jobs": 200_000, "max_per_client": 200_000, "max_bytes_per_client": "4g"},
}
NOOP = "def main(x):\n    return x\n"
SPIN = (
    "import time\ndef main(ms):\n    end = time.process_time() + ms / 1000\n    while time.process_time() < end: pass\n"
)
LIMITS = Limits(wall_s=60)
#: So many jobs are measured once.
_ONCE = 10_000


def jobs(endpoint: str, count: int) -> float:
    """us a job."""
    with Client(endpoint, pool=POOL, timeout=600) as client:
        began = time.perf_counter()
        for _ in client.map(NOOP, ([n] for n in range(count)), entry="main", chunksize=1):
            pass
        return (time.perf_counter() - began) * 1e6 / count


def payload(endpoint: str, size: int) -> float:
    """ms."""
    content = bytes(size)
    with Client(endpoint, pool=POOL, timeout=120) as client:
        began = time.perf_counter()
        result = client.run(NOOP, entry="main", args=[content], limits=LIMITS)
        took_ms = (time.perf_counter() - began) * 1000
    if result.value != content:
        raise RuntimeError(f"a job ended {result.outcome}: {result.reason}")
    return took_ms


def duration(endpoint: str, ms: int) -> float:
    """ms over the job's own CPU time."""
    with Client(endpoint, pool=POOL, timeout=120) as client:
        began = time.perf_counter()
        result = client.run(SPIN, entry="main", args=[ms], limits=LIMITS)
        took_ms = (time.perf_counter() - began) * 1000
    if result.outcome != "ok":
        raise RuntimeError(f"a job ended {result.outcome}: {result.reason}")
    return took_ms - ms


@dataclass(frozen=True, slots=True)
class Series:
    """What grows, its points, and what is measured at each. `unit`: of the figure."""

    points: tuple[int, ...]
    unit: str
    measure: Callable[[str, int], float]
    own_daemon: bool = False  #: whether a point is the number of workers


SERIES = {
    "jobs": Series((10, 100, 1_000, 10_000, 100_000), "us a job", jobs),
    "workers": Series((1, 2, 4, 8, 16), "jobs/s", lambda endpoint, count: closed_loop(endpoint, 2 * count), True),
    "payload": Series((1_000, 16_000, 256_000, 4_000_000, 64_000_000), "ms", payload),
    "clients": Series((1, 4, 16, 64), "jobs/s", closed_loop),
    "duration": Series((1, 10, 100, 1_000), "ms over its own", duration),
}


def measured(series: Series, *, most: int, rounds: int) -> dict[int, float]:
    """The median at each point."""
    found: dict[int, list[float]] = {point: [] for point in series.points if point <= most}
    with ExitStack() as stack:
        shared = None if series.own_daemon else stack.enter_context(_daemon(SIZE))
        if shared is not None:
            series.measure(shared.endpoint, series.points[0])  # the first jobs of a worker are slower
        for number in range(rounds):
            for point, figures in found.items():
                if number == 0 or series.measure is not jobs or point < _ONCE:
                    figures.append(_at(series, point, shared))
    return {point: statistics.median(figures) for point, figures in found.items()}


def _at(series: Series, point: int, shared: Daemon | None) -> float:
    if shared is not None:
        return series.measure(shared.endpoint, point)
    with _daemon(point) as daemon:
        return series.measure(daemon.endpoint, point)


def _daemon(workers: int) -> AbstractContextManager[Daemon]:
    return started({POOL: pool(workers, **SETTINGS)})


def table(name: str, figures: Mapping[int, float]) -> str:
    first = next(iter(figures.values()))
    lines = [f"| {name} | {SERIES[name].unit} | x |", "|---:|---:|---:|"]
    lines += [f"| {point:,} | {figure:.1f} | {figure / first:.2f} |" for point, figure in figures.items()]
    return "\n".join(lines)


def plot(found: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """One picture a series, side by side; both axes are logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(found), 3.5), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        axes.plot(list(points), list(points.values()), marker="o")
        axes.set(xscale="log", yscale="log", xlabel=name, ylabel=SERIES[name].unit, title=name)
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", nargs="*", default=list(SERIES), metavar="SERIES", help=", ".join(SERIES))
    parser.add_argument("--most", type=int, default=64_000_000, help="leave out the points above it")
    parser.add_argument("--jobs", type=int, default=10_000, help="the most of the series jobs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also write a picture there")
    options = parser.parse_args(arguments)
    if unknown := set(options.series) - SERIES.keys():
        parser.error(f"no such series: {', '.join(sorted(unknown))}; there are {', '.join(SERIES)}")
    found = {}
    for name in options.series:
        most = min(options.most, options.jobs) if name == "jobs" else options.most
        found[name] = measured(SERIES[name], most=most, rounds=options.rounds)
        print(table(name, found[name]), flush=True)
        print()
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()

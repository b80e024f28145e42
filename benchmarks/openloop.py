"""Latency under load that does not wait for the pool: jobs are sent when they are planned, at 30 to 90 % of capacity.

    python -m benchmarks.openloop [--seconds S] [--loads 30 50 70 90] [--engine oci] [--json FILE]

A latency is from the planned time, not from the time of sending, so jobs that queue in the client count too. The pool
has two workers with numpy and pandas, `max_jobs: 50`, and room for two more: recycling is in the figures. Capacity is
measured first, by a closed loop. Arrivals are by Poisson, or in bursts of BURST jobs whose begins are by Poisson. HDR
histograms, 3 digits.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hdrh.histogram import HdrHistogram

from benchmarks.daemon import SIZE, pool, started
from pool import AsyncClient

POOL = "open"
POOLS = {POOL: pool(size={"min": SIZE, "max": 4}, recycle={"max_jobs": 50})}
CODE = "def main(x):\n    return x\n"
LOADS = (30, 50, 70, 90)  #: per cent of capacity
BURST = 8
ARRIVALS = {"poisson": 1, "bursts": BURST}  #: jobs at once
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_LONGEST_US = 600_000_000


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one load and kind of arrivals; times in ms."""

    load: int
    arrivals: str
    jobs: int
    percentiles: dict[str, float]
    longest: float

    @property
    def spread(self) -> float:
        """p99 / p50."""
        return self.percentiles["99.0"] / self.percentiles["50.0"]


def planned(rate: float, seconds: float, *, at_once: int, rng: random.Random) -> Iterator[float]:
    """Times from the begin, in seconds; `rate` jobs a second in the mean."""
    at = rng.expovariate(rate / at_once)
    while at < seconds:
        yield from [at] * at_once
        at += rng.expovariate(rate / at_once)


async def send(client: AsyncClient, times: Sequence[float]) -> HdrHistogram:
    """One job at each of these times, whatever became of those before it. Latencies in us."""
    histogram, begin = HdrHistogram(1, _LONGEST_US, 3), time.monotonic()

    async def once(at: float) -> None:
        result = await client.run(CODE, entry="main", args=[1], pool=POOL)
        if result.value != 1:
            raise RuntimeError(f"a job ended {result.outcome}: {result.reason}")
        histogram.record_value(max(1, round((time.monotonic() - begin - at) * 1e6)))

    async with asyncio.TaskGroup() as jobs:
        for at in times:
            await asyncio.sleep(max(0.0, begin + at - time.monotonic()))
            jobs.create_task(once(at))
    return histogram


async def capacity(client: AsyncClient, seconds: float) -> float:
    """Jobs a second of a closed loop with two jobs in flight for each worker."""
    end, done = time.monotonic() + seconds, 0

    async def loop() -> None:
        nonlocal done
        while time.monotonic() < end:
            await client.run(CODE, entry="main", args=[1], pool=POOL)
            done += 1

    began = time.monotonic()
    await asyncio.gather(*[loop() for _ in range(2 * SIZE)])
    return done / (time.monotonic() - began)


def figures(load: int, arrivals: str, histogram: HdrHistogram) -> Figures:
    found = {str(each): histogram.get_value_at_percentile(each) / 1000 for each in PERCENTILES}
    return Figures(load, arrivals, histogram.get_total_count(), found, histogram.get_max_value() / 1000)


async def measure(endpoint: str, loads: Sequence[int], seconds: float) -> tuple[float, list[Figures]]:
    """Capacity in jobs a second, and the figures of each load and kind of arrivals."""
    rng, found = random.Random(1), []
    async with AsyncClient(endpoint, timeout=300) as client:
        await capacity(client, min(2.0, seconds))  # the first jobs of a worker are slower
        most = await capacity(client, seconds)
        for load in loads:
            for arrivals, at_once in ARRIVALS.items():
                times = list(planned(most * load / 100, seconds, at_once=at_once, rng=rng))
                found.append(figures(load, arrivals, await send(client, times or [0.0])))
    return most, found


def table(most: float, found: Sequence[Figures]) -> str:
    head = ["load", "arrivals", "jobs", *(f"p{each:g} ms" for each in PERCENTILES), "longest ms", "p99 / p50"]
    lines = [f"Capacity: {most:.0f} jobs/s (closed loop).", "", f"| {' | '.join(head)} |", "|---|---|" + "---:|" * 7]
    for each in found:
        cells = [f"{value:.1f}" for value in (*each.percentiles.values(), each.longest, each.spread)]
        lines.append(f"| {each.load} % | {each.arrivals} | {each.jobs} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(found: Sequence[Figures], path: Path) -> None:
    """Latency by load, a picture for each kind of arrivals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, arrivals in zip(figure.subplots(1, len(ARRIVALS)), ARRIVALS, strict=True):
        rows = [each for each in found if each.arrivals == arrivals]
        for percentile in map(str, PERCENTILES):
            latencies = [each.percentiles[percentile] for each in rows]
            axes.plot([each.load for each in rows], latencies, marker="o", label=f"p{percentile}")
        axes.set(yscale="log", xlabel="% of capacity", ylabel="ms from the planned time", title=arrivals)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of capacity, and of each load")
    parser.add_argument("--loads", type=int, nargs="+", default=LOADS, help="per cent of capacity")
    parser.add_argument("--engine", choices=("docker", "oci"), default="docker", help="what starts the workers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also write a picture there")
    options = parser.parse_args(arguments)
    with started(POOLS, engine=options.engine) as daemon:
        most, found = asyncio.run(measure(daemon.endpoint, options.loads, options.seconds))
    print(table(most, found))
    if options.plot:
        plot(found, options.plot)
    if options.json:
        rows = [asdict(each) | {"spread": each.spread} for each in found]
        options.json.write_text(json.dumps({"capacity": most, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What a worker for each job costs by engine, in one run: `max_jobs: 1` without preloaded modules, docker against oci.

    python -m benchmarks.engines [--rounds N] [--seconds S]

    raw    the engine alone creates, starts and removes the locked-down container, 1 to 8 at once; nobody waits for the
           program in it. The best of them is the engine's own rate.
    pool   jobs a second of a daemon with `max_jobs: 1`, as many clients as workers, each with one job after the other:
           every job pays the start of a container and of its runner, the self-tests, and the removal

The engines take turns, so that a busy host is unfair to none; figures are medians of the rounds. Needs root and runc.
"""

import argparse
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.daemon import closed_loop
from pool.engines.base import Engine, WorkerSpec
from pool.engines.docker import DockerEngine
from pool.engines.oci import OciEngine
from pool.images import DEFAULT_TAG, build
from tests.support.daemons import IMAGE_DIR, DaemonProcess

ENGINES = ("docker", "oci")
AT_ONCE = (1, 2, 4, 8)
WORKERS = 4
OWNER = "benchmark-engines"
_numbers = itertools.count(1)


def _spec() -> WorkerSpec:
    """The runner as its program; it has no link and ends by itself if it is not removed before."""
    return WorkerSpec(
        worker_id=f"w{next(_numbers)}", pool="raw", owner=OWNER, instance="raw", image=DEFAULT_TAG, runtime=None,
        uid=70001, command=("--help",), mounts=(), memory_bytes=256 << 20, cpus=1.0, processes=64, tmp_bytes=16 << 20,
        tmp_inodes=500, nofile=256,
    )  # fmt: skip


def raw_rate(engine: Engine, at_once: int, seconds: float) -> float:
    """Containers a second that are created, started and removed."""
    end = time.monotonic() + seconds

    def cycle(_: int) -> int:
        done = 0
        while time.monotonic() < end:
            engine.launch(_spec()).kill()
            done += 1
        return done

    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as threads:
        total = sum(threads.map(cycle, range(at_once)))
    return total / (time.monotonic() - began)


def _raw(engines: dict[str, Engine], name: str, *, at_once: int, seconds: float) -> float:
    return raw_rate(engines[name], at_once, seconds)


@contextlib.contextmanager
def _engines() -> Iterator[dict[str, Engine]]:
    with tempfile.TemporaryDirectory(prefix="pool-oci-") as directory:
        engines: dict[str, Engine] = {"docker": DockerEngine(), "oci": OciEngine(Path(directory), IMAGE_DIR)}
        for engine in engines.values():
            engine.facts()
            engine.image(DEFAULT_TAG)
        try:
            yield engines
        finally:
            for engine in engines.values():
                for found in engine.find(owner=OWNER):
                    found.container.kill()
                engine.close()


@contextlib.contextmanager
def _daemons() -> Iterator[dict[str, DaemonProcess]]:
    template: dict[str, object] = {
        "size": {"min": WORKERS, "max": 2 * WORKERS},
        "recycle": {"max_jobs": 1},
        "preload": {"modules": []},
    }
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(_daemon(template, name)) for name in ENGINES}


def _daemon(template: dict[str, object], name: str) -> DaemonProcess:
    return DaemonProcess({"default": template}, engine=name, start_concurrency=WORKERS)


def _in_turns(rounds: int, measure: Callable[[str], float]) -> dict[str, float]:
    figures: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(rounds):
        for name in ENGINES:
            figures[name].append(measure(name))
    return {name: statistics.median(found) for name, found in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    options = parser.parse_args()
    build(DEFAULT_TAG, progress=lambda line: print(line, file=sys.stderr))
    print("| what | docker | oci | oci / docker |\n|---|---|---|---|")
    best = dict.fromkeys(ENGINES, 0.0)
    with _engines() as engines:
        for at_once in AT_ONCE:
            seconds = options.seconds / 2
            found = _in_turns(options.rounds, partial(_raw, engines, at_once=at_once, seconds=seconds))
            best = {name: max(best[name], rate) for name, rate in found.items()}
            _show(f"raw, {at_once} at once: containers/s", found)
    with _daemons() as daemons:
        pools = _in_turns(options.rounds, lambda name: closed_loop(daemons[name].endpoint, WORKERS, options.seconds))
    _show("pool, max_jobs: 1: jobs/s", pools)
    _show("pool / best raw", {name: pools[name] / best[name] for name in ENGINES})


def _show(what: str, found: dict[str, float]) -> None:
    print(f"| {what} | {found['docker']:.2f} | {found['oci']:.2f} | {found['oci'] / found['docker']:.2f} |", flush=True)


if __name__ == "__main__":
    main()

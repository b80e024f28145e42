"""`./dev soak --jobs 50000`: many jobs through one daemon, and what grew meanwhile.

Prints memory (PSS), descriptors and threads of the daemon and the size of its state directory at intervals, and the slope of each over the second half of the
jobs, by least squares. It fails if one of them grows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

import psutil

from tests.chaos.campaign import TEMPLATE
from tests.support.daemons import DaemonProcess

SAMPLES = 40
#: What may come per 1,000 jobs: noise of the allocator and of the sampling, not a leak.
MOST = {"memory_kib": 24.0, "descriptors": 0.2, "threads": 0.2, "state_kib": 16.0}
CODE = "def main(n):\n    print(n)\n    return [n, 'x' * 200]"


class Sample(NamedTuple):
    jobs: int
    memory_kib: float
    descriptors: int
    threads: int
    state_kib: float


def take(daemon: DaemonProcess, jobs: int) -> Sample:
    process = psutil.Process(daemon.process.pid)
    size = sum(path.stat().st_size for path in daemon.state_dir.rglob("*") if path.is_file())
    memory = process.memory_full_info().pss
    return Sample(jobs, memory / 1024, process.num_fds(), process.num_threads(), size / 1024)


def run(daemon: DaemonProcess, jobs: int) -> Iterator[Sample]:
    every = max(1, jobs // SAMPLES)
    with daemon.client() as client:
        for done, result in enumerate(client.map(CODE, ([n] for n in range(jobs)), entry="main"), 1):
            if result.value != [done - 1, "x" * 200]:
                raise AssertionError(f"job {done} ended {result.outcome}: {result.reason}")
            if done % every == 0:
                yield take(daemon, done)


def slopes(samples: Sequence[Sample]) -> dict[str, float]:
    """Growth for each 1,000 jobs, by field, over the second half of the samples."""
    half = samples[len(samples) // 2 :]
    jobs = [each.jobs / 1000 for each in half]
    return {name: linear_regression(jobs, [getattr(each, name) for each in half]).slope for name in MOST}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000, help="how many (%(default)s)")
    parser.add_argument("--durability", default="crash", choices=("crash", "power", "none"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak.", dir="/tmp") as home:
        settings = {"durability": options.durability, "log_level": "info", "result_ttl_s": 20}
        with DaemonProcess({"default": TEMPLATE}, engine="docker", home=Path(home), **settings) as daemon:
            began, samples = time.monotonic(), []
            for sample in run(daemon, options.jobs):
                samples.append(sample)
                print(f"{time.monotonic() - began:7.0f} s  {_row(sample)}", flush=True)
    found = slopes(samples)
    print("growth for each 1,000 jobs in the second half, and the most that may be:")
    for name, slope in found.items():
        print(f"    {name:12} {slope:+8.3f}  ({MOST[name]})")
    return any(slope > MOST[name] for name, slope in found.items())


def _row(sample: Sample) -> str:
    return (
        f"{sample.jobs:7} jobs  {sample.memory_kib / 1024:7.1f} MiB  {sample.descriptors:4} descriptors  "
        f"{sample.threads:3} threads  {sample.state_kib / 1024:7.1f} MiB of state"
    )


if __name__ == "__main__":
    sys.exit(main())

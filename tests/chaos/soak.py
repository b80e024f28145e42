"""`./dev soak --jobs 50000`: many jobs through one daemon, and what grew meanwhile.

Between two parts of the jobs the daemon is brought to rest: no result is kept any more, each worker is idle, and memory that
is free in the process has been given back. Only then its memory, descriptors, threads and the size of its state directory
say something about growth, and not about how fast the jobs came: what is kept for jobs depends on their rate, and the rate on
what else the host does.

Prints the samples, and the growth of each over the second half of the jobs: the slope of Theil and Sen, the median of the
slopes between all pairs of samples, with its interval of 95 %. It fails if an interval does not end below its bound: then
there is growth, or there were too few jobs to show that there is none.
"""

import argparse
import math
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import NormalDist, median
from typing import NamedTuple

import psutil

from pool.client import Client
from tests.support.daemons import DaemonProcess

SAMPLES = 80
#: What may come per 1,000 jobs: 24 KiB are 25 bytes of a job, less than its id.
MOST = {"memory_kib": 24.0, "descriptors": 0.2, "threads": 0.2, "state_kib": 16.0}
CONFIDENCE = 0.95
#: A worker is replaced after 250 jobs, so one leaves with every sample or two.
TEMPLATE = {
    "engine": "docker",
    "size": {"min": 2, "max": 2},
    "recycle": {"max_jobs": 250},
    "preload": {"modules": ["numpy"]},
    "limits": {"wall_s": 60, "cpu_s": 60, "memory": "256m"},
}
CODE = "def main(n):\n    print(n)\n    return [n, 'x' * 200]"
REST_S = 600


class Sample(NamedTuple):
    jobs: int
    memory_kib: float  #: anonymous: pages that other processes share would be counted by how many these are
    descriptors: int
    threads: int
    state_kib: float


class Trend(NamedTuple):
    """Growth for each 1,000 jobs, and the ends of its interval."""

    slope: float
    low: float
    high: float


def rest(daemon: DaemonProcess) -> None:
    """Wait until nothing is left of the jobs but what stays."""

    def still() -> bool:
        return daemon.call("jobs")["total"] == 0 and len(daemon.workers(state="idle")) == TEMPLATE["size"]["min"]

    daemon.until(still, REST_S)
    daemon.process.send_signal(signal.SIGUSR2)
    daemon.status()  # which is answered after the signal


def take(daemon: DaemonProcess, jobs: int) -> Sample:
    process = psutil.Process(daemon.process.pid)
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    memory = next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    size = sum(path.stat().st_size for path in daemon.state_dir.rglob("*") if path.is_file())
    return Sample(jobs, memory, process.num_fds(), process.num_threads(), size / 1024)


def run(daemon: DaemonProcess, jobs: int) -> Iterator[Sample]:
    every = max(1, jobs // SAMPLES)
    with daemon.client() as client:
        for done in range(0, jobs, every):
            _pass(client, range(done, min(done + every, jobs)))
            rest(daemon)
            yield take(daemon, min(done + every, jobs))


def _pass(client: Client, numbers: range) -> None:
    for number, result in zip(numbers, client.map(CODE, ([n] for n in numbers), entry="main"), strict=True):
        if result.value != [number, "x" * 200]:
            raise AssertionError(f"job {number} ended {result.outcome}: {result.reason}")


# ---- growth ----


def trends(samples: Sequence[Sample]) -> dict[str, Trend]:
    """Of each field over the second half of the samples: by then every bounded history and window is full."""
    half = samples[len(samples) // 2 :]
    return {name: trend([(each.jobs / 1000, getattr(each, name)) for each in half]) for name in MOST}


def trend(points: Sequence[tuple[float, float]]) -> Trend:
    """The slope of Theil and Sen, which single outliers do not move. Of two points at least, by rising first number."""
    slopes = sorted((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2))
    count = len(points)
    # Of Kendall's rank correlation of what does not grow; how far off the middle of the slopes the ends are.
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    away = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * deviation / 2
    middle, last = (len(slopes) - 1) / 2, len(slopes) - 1
    low, high = max(0, math.floor(middle - away)), min(last, math.ceil(middle + away))
    return Trend(median(slopes), slopes[low], slopes[high])


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000, help="how many (%(default)s)")
    parser.add_argument("--durability", default="crash", choices=("crash", "power", "none"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak.", dir="/tmp") as home:
        settings = {"durability": options.durability, "log_level": "info", "result_ttl_s": 1}
        with DaemonProcess({"default": TEMPLATE}, engine="trimming", home=Path(home), **settings) as daemon:
            began, samples = time.monotonic(), []
            for sample in run(daemon, options.jobs):
                samples.append(sample)
                print(f"{time.monotonic() - began:7.0f} s  {_row(sample)}", flush=True)
    found = trends(samples)
    print(f"growth for each 1,000 jobs in the second half, its interval of {CONFIDENCE:.0%}, and the most that may be:")
    for name, each in found.items():
        print(f"    {name:12} {each.slope:+8.3f}  ({each.low:+.3f} to {each.high:+.3f})  {MOST[name]:g}")
    return any(each.high > MOST[name] for name, each in found.items())


def _row(sample: Sample) -> str:
    return (
        f"{sample.jobs:7} jobs  {sample.memory_kib / 1024:7.2f} MiB  {sample.descriptors:4} descriptors  "
        f"{sample.threads:3} threads  {sample.state_kib / 1024:7.1f} MiB of state"
    )


if __name__ == "__main__":
    sys.exit(main())

"""The cost of one job in the core: the calls of project functions for each of its events, and the median time.

python -m benchmarks.core
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from pool.core import events as ev
from pool.core.machine import PoolState
from pool.core.policy import PoolPolicy
from pool.model import Outcome

_CORE = str(Path(ev.__file__).parent)
_WORKERS, _JOBS = 4, 5000


def _pool() -> PoolState:
    policy = PoolPolicy(min_workers=_WORKERS, spare=0, max_jobs=1_000_000, max_age_s=1e6, start_concurrency=_WORKERS)
    pool = PoolState("p", policy)
    pool.handle(ev.Tick(), 0.0)
    for worker_id in list(pool.workers):
        pool.handle(ev.WorkerReady(worker_id=worker_id), 0.1)
    return pool


def _job(pool: PoolState, number: int) -> Iterator[ev.Event]:
    job_id = f"1000/{number}"
    yield ev.JobSubmitted(job_id=job_id, client="1000", wall_s=60.0, code="digest", cause="client 1000")
    worker_id = pool.jobs[job_id].worker_id
    assert worker_id is not None
    yield ev.JobStarted(worker_id=worker_id, cause="link")
    yield ev.JobEnded(worker_id=worker_id, outcome=Outcome.OK, cause="link")
    yield ev.WorkerFreed(worker_id=worker_id, cause="link")


def _calls(pool: PoolState) -> dict[str, int]:
    counts: dict[str, int] = {}

    for event in _job(pool, -1):
        files: list[str] = []

        def note(frame: FrameType, what: str, _: object, files: list[str] = files) -> None:
            if what == "call" and frame.f_code.co_filename.startswith(_CORE):
                files.append(frame.f_code.co_filename)

        sys.setprofile(note)
        pool.handle(event, 1.0)
        sys.setprofile(None)
        counts[type(event).__name__] = len(files)
    return counts


def main() -> None:
    """Print a line for each event of a job that finds an idle worker."""
    pool, spent = _pool(), defaultdict[str, list[int]](list)
    calls = _calls(pool)
    for number in range(_JOBS):
        for event in _job(pool, number):
            begin = time.perf_counter_ns()
            pool.handle(event, 1.0 + number / 1000)
            spent[type(event).__name__].append(time.perf_counter_ns() - begin)
    for name, count in calls.items():
        print(f"{name:14} {count:3} calls {statistics.median(spent[name]) / 1000:6.1f} us")


if __name__ == "__main__":
    main()

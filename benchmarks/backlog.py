"""What a waiting job costs in the core, by how many wait, and what share of the workers three unequal clients get.

python -m benchmarks.backlog
"""

import heapq
import itertools
import statistics
import time
from dataclasses import dataclass

from pool.core.backlog import Backlog
from pool.core.events import CancelRequested, JobSubmitted, Tick
from pool.core.machine import PoolState
from pool.core.policy import PoolPolicy

_LENGTHS = (10, 1_000, 100_000)
_MEASURED = 2_000
_WORKERS, _SECONDS = 4, 2_000.0


def _cost(length: int) -> tuple[float, float]:
    """Median microseconds of a submission and of a cancel while so many jobs wait."""
    pool = PoolState("p", PoolPolicy(min_workers=0, max_workers=1, backlog_max=10**6, backlog_per_client=10**6))
    pool.handle(Tick(), 0.0)
    spent: dict[type, list[int]] = {JobSubmitted: [], CancelRequested: []}

    def handle(event: JobSubmitted | CancelRequested) -> None:
        begin = time.perf_counter_ns()
        pool.handle(event, 1.0)
        spent[type(event)].append(time.perf_counter_ns() - begin)

    for number in range(length):
        pool.handle(JobSubmitted(job_id=f"j{number}", client=str(number % 3), loop=str(number % 7), wall_s=1.0), 1.0)
    for number in range(_MEASURED):
        handle(JobSubmitted(job_id=f"k{number}", client=str(number % 3), loop=str(number % 7), wall_s=1.0))
        handle(CancelRequested(job_id=f"k{number}"))
    submitted, cancelled = (statistics.median(each) / 1000 for each in spent.values())
    return submitted, cancelled


@dataclass
class _Client:
    name: str
    job_s: float
    ahead: int  #: jobs that it keeps waiting or running
    weight: float = 1.0
    open: int = 0
    had_s: float = 0.0


def _share(clients: list[_Client]) -> None:
    """Simulate a pool in which each client submits the next job when one has ended."""
    queue = Backlog(max_jobs=10**6, max_per_client=10**6, weights={each.name: each.weight for each in clients})
    numbers, jobs = itertools.count(), dict[str, _Client]()
    running: list[tuple[float, int, _Client, float]] = []
    now = 0.0
    while now < _SECONDS:
        for each in clients:
            while each.open < each.ahead:
                job_id = str(next(numbers))
                jobs[job_id] = each
                each.open += 1
                queue.push(job_id, each.name)
        while len(running) < _WORKERS and (name := next(queue.clients(), None)) is not None:
            each = jobs.pop(queue.pop(name))
            heapq.heappush(running, (now + each.job_s, next(numbers), each, queue.turns.begin(name, "")))
        now, _, each, charged_s = heapq.heappop(running)
        each.open -= 1
        each.had_s += each.job_s
        queue.turns.end(each.name, "", charged_s=charged_s, took_s=each.job_s)


def main() -> None:
    for length in _LENGTHS:
        submitted, cancelled = _cost(length)
        print(f"{length:7} waiting   submit {submitted:5.1f} us   cancel {cancelled:5.1f} us")
    clients = [_Client("ann", 10.0, 500), _Client("bob", 0.1, 20), _Client("cid", 1.0, 10_000, weight=2.0)]
    _share(clients)
    had, due = sum(each.had_s for each in clients), sum(each.weight for each in clients)
    for each in clients:
        jobs = f"{each.ahead} jobs of {each.job_s:g} s ahead"
        print(f"{each.name} {jobs:26} share {each.had_s / had:6.1%}   due {each.weight / due:6.1%}")


if __name__ == "__main__":
    main()

"""Runs the cases in the pool: once by threads that each wait for their job, once in batches.

What is kept of a result is what is compared and what is counted, so that a whole run fits into memory.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np  # noqa: F401 - whole, before two threads at once meet an array
import pandas as pd  # noqa: F401

from pool.client import Client
from pool.model import JobResult
from tests.corpus.case import Case
from tests.corpus.seen import Seen, of_result

THREADS = 2
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a case in the pool."""

    seen: Seen
    start: str
    truncated: tuple[str, ...]
    around_ms: float  #: the total without the code's own time
    own_ms: float  #: the same without the wait for a free worker


@dataclass(slots=True)
class Round:
    """One pass over all cases."""

    name: str
    answers: list[Answer] = field(default_factory=list)  #: in the order of the cases
    seconds: float = 0.0
    given: Counter[str] = field(default_factory=Counter)  #: how many results each job id has had

    @property
    def rate(self) -> float:
        return len(self.answers) / self.seconds


def by_threads(client: Client, cases: Sequence[Case], ended: Callable[[], None]) -> Round:
    """Each thread runs a job, waits for its end and takes the next: the figures of a loop that evaluates programs."""
    done = Round("run, one job at a time in each of two threads")
    started = time.monotonic()
    with ThreadPoolExecutor(THREADS) as threads:

        def one(case: Case) -> Answer:
            result = client.run(case.code, job_id=f"one.{case.name}", **case.options())
            done.given[result.job_id] += 1
            ended()
            return _answer(result)

        done.answers = list(threads.map(one, cases))
    done.seconds = time.monotonic() - started
    return done


def by_batches(client: Client, cases: Sequence[Case], ended: Callable[[], None]) -> Round:
    """Both workers always have a next job waiting."""
    done = Round("submit_many, 200 jobs at a time")
    started = time.monotonic()
    for at in range(0, len(cases), _BATCH):
        some = cases[at : at + _BATCH]
        found: dict[str, Answer] = {}
        for result in _results(client, some):
            done.given[result.job_id] += 1
            found[result.job_id] = _answer(result)
            ended()
        done.answers += [found[f"two.{case.name}"] for case in some]
    done.seconds = time.monotonic() - started
    return done


def _results(client: Client, cases: Sequence[Case]) -> Iterator[JobResult]:
    jobs = [{"code": case.code, "job_id": f"two.{case.name}", **case.options()} for case in cases]
    return client.results(client.submit_many(jobs))


def _answer(result: JobResult) -> Answer:
    timings = result.timings
    return Answer(
        of_result(result),
        result.start.value if result.start else "none",
        result.truncated,
        timings.total_ms - timings.run_ms,
        timings.overhead_ms,
    )

"""Candidates in, scores out: each is one job, several are on their way at a time, and the answers keep their order.

The figures come from the grader (`JobResult.grade`), never from the candidate. Anything but the numbers asked for makes
the candidate worthless and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from examples.strategies import Genome
from pool.model import JobResult

#: Runs one source text as a job and returns its result.
Run = Callable[[str], JobResult]


@dataclass(frozen=True, slots=True)
class Candidate:
    name: str
    genome: Genome
    source: str
    flaw: str | None  #: what is wrong with the source on purpose; the loop never looks at it, the summary does


@dataclass(frozen=True, slots=True)
class Metrics:
    sharpe: float
    cagr: float
    max_drawdown: float
    trades: int


@dataclass(frozen=True, slots=True)
class Score:
    in_sample: Metrics
    out_of_sample: Metrics


@dataclass(frozen=True, slots=True)
class Evaluation:
    candidate: Candidate
    result: JobResult
    client_ms: float  #: the wall clock around the call
    score: Score | None  #: None unless the job ended ok with numbers that make sense
    ended_s: float  #: by the clock of time.perf_counter()


def read_score(value: object) -> Score | None:
    """The score in the grade of a job, or None if it holds anything else."""
    if not isinstance(value, Mapping):
        return None
    before, after = _read_metrics(value.get("in_sample")), _read_metrics(value.get("out_of_sample"))
    return Score(before, after) if before and after else None


def _read_metrics(value: object) -> Metrics | None:
    if not isinstance(value, Mapping):
        return None
    sharpe, cagr, drawdown = (_finite(value.get(name)) for name in ("sharpe", "cagr", "max_drawdown"))
    trades = value.get("trades")
    if sharpe is None or cagr is None or drawdown is None or not isinstance(trades, int):
        return None
    return Metrics(sharpe, cagr, drawdown, trades)


def _finite(value: object) -> float | None:
    return value if isinstance(value, float) and math.isfinite(value) else None


class Evaluator:
    """Keeps `parallel` jobs on their way. Close it; jobs that have not been sent by then are dropped.

    After an error, such as Ctrl-C, those on their way are not waited for: they end when the client is closed.
    """

    def __init__(self, run: Run, parallel: int) -> None:
        self._run = run
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="evaluate")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._threads.shutdown(wait=kind is None, cancel_futures=True)

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Evaluation]:
        return list(self._threads.map(self._evaluate, candidates))

    def _evaluate(self, candidate: Candidate) -> Evaluation:
        started_s = time.perf_counter()
        result = self._run(candidate.source)
        ended_s = time.perf_counter()
        return Evaluation(candidate, result, (ended_s - started_s) * 1000, read_score(result.grade), ended_s)

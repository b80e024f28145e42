"""SandboxExecutor: what a loop calls in place of running code itself. Each call has a result; none raises for a pool.

    execute                  one program with its inputs, and a grader if there is one
    execute_strategy_safe    a trading strategy: positions from the strategy, metrics from a grader that it cannot reach

A pool that is busy, draining, or whose daemon is being restarted is waited for, up to `wait_s`. Then the result says
why the code did not run: it is never run outside the sandbox. A program runs once. It is run again only where it is
known not to have run, or if the caller says that it is `idempotent`.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

from pool.client import checks, strategy
from pool.client.client import Client
from pool.client.job import Code
from pool.errors import BusyError, ConfigError, DaemonUnreachableError, JobRefusedError, PoolError, UnknownJobError
from pool.model import JobResult, Limits, Outcome, Timings

#: Pauses between attempts to reach a pool: a restart takes about a second.
PAUSE_S, PAUSE_MOST_S = 0.2, 2.0
#: How often an idempotent program is run before its loss is reported.
MAX_RUNS = 3
DEFAULT_MARKET: Final = strategy.Market()
_LINE = re.compile(r'File "<job>", line (\d+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """What came of one call. `error` is for the author of the code: what is wrong, where, and what to do."""

    success: bool  #: it ended ok and, if it was to be graded, has a grade
    value: object = None
    metrics: Mapping[str, float] = field(default_factory=dict)  #: the grade, where it is a mapping of names to numbers
    error: str = ""
    outcome: Outcome | None = None  #: None: it did not run
    route: Literal["pool", "none"] = "pool"  #: none: it did not run
    reasons: tuple[str, ...] = ()  #: what the pool was waited for, and why it did not run or ran again
    timings: Timings = field(default_factory=Timings)
    job: JobResult | None = None


class SandboxExecutor:
    """Runs programs in the pool, for a loop that must go on. May be used from several threads and after a fork.

    Nothing is connected before the first call. `limits` hold for every call that names no timeout of its own; `wait_s`:
    seconds that a call waits for a pool that cannot take its program. `client`: use this one and leave it open.
    """

    def __init__(
        self,
        endpoint: str | os.PathLike[str] | None = None,
        *,
        pool: str | None = None,
        limits: Limits | None = None,
        wait_s: float = 60.0,
        client: Client | None = None,
    ) -> None:
        if client is not None and endpoint is not None:
            raise ConfigError("endpoint: the client has one already; give either the endpoint or the client")
        self._wait_s: Final = checks.seconds("wait_s", wait_s)
        self._client: Final = client or Client(endpoint)
        self._owns_client: Final = client is None
        self._pool = pool
        self._limits = limits or Limits()

    def execute(
        self,
        code: Code,
        inputs: Mapping[str, object] | Sequence[object] = (),
        *,
        entry: str | None = "main",
        timeout: float | None = None,
        idempotent: bool = False,
        **options: Any,
    ) -> ExecutionResult:
        """Run `entry` of the code with the inputs: a mapping by name, a list or tuple in order.

        `code` is source text, whose entry may be None for a script without inputs, or a callable. `timeout`: seconds
        that it may run. Other options as for `Client.run`, such as `grade` and `grade_args`.
        """
        job: dict[str, Any] = {"pool": self._pool, "limits": self._limits_for(timeout), **options}
        if isinstance(code, str):
            job["entry"] = entry
        if inputs:
            job["kwargs" if isinstance(inputs, Mapping) else "args"] = inputs
        return _Call(self._client, code, job, wait_s=self._wait_s, idempotent=idempotent).run()

    def execute_strategy_safe(
        self, code: str, data: Any, *, timeout: float | None = 10.0, market: strategy.Market = DEFAULT_MARKET
    ) -> ExecutionResult:
        """Run the strategy on the prices, and have what it returned graded. Its contract: docs/strategies.md.

        `data`: a pandas Series of closing prices, or a DataFrame with a column `close`, by date. `timeout`: seconds for
        each of its two runs. The value is the positions, the metrics are `sharpe`, `total_return`, `cagr`,
        `max_drawdown`, `volatility` and `trades`.
        """
        if problem := strategy.problem_of(data):
            return ExecutionResult(success=False, error=problem, route="none", reasons=("the data cannot be used",))
        run = strategy.StrategyRun(data, market)
        first = self.execute(
            strategy.with_prefixes(code), run.prefix_inputs(), entry=strategy.PREFIXES, timeout=timeout, idempotent=True
        )
        if not first.success:
            return replace(first, error=strategy.in_words(first.error), value=None)
        graded = self.execute(
            code, [data], entry=strategy.ENTRY, timeout=timeout, idempotent=True, **run.grading(first.value)
        )
        return _judged(graded)

    def close(self) -> None:
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _limits_for(self, timeout: float | None) -> Limits:
        return self._limits if timeout is None else replace(self._limits, wall_s=checks.seconds("timeout", timeout))


class _Call:
    """One program on its way to one result."""

    def __init__(self, client: Client, code: Code, job: Mapping[str, Any], *, wait_s: float, idempotent: bool) -> None:
        self._client = client
        self._code = code
        self._job = job
        self._deadline = time.monotonic() + wait_s
        self._idempotent = idempotent
        self._reasons: list[str] = []
        self._runs = 0
        self._pause_s = PAUSE_S
        self._job_id = ""
        self._ask: Callable[[], JobResult]

    def run(self) -> ExecutionResult:
        self._begin()
        while (end := self._attempt()) is None:
            pass
        return end

    def _attempt(self) -> ExecutionResult | None:
        """None: it is to be tried again."""
        try:
            result = self._ask()
        except (BusyError, DaemonUnreachableError) as error:
            return self._wait(error)
        except UnknownJobError as error:  # it may have been sent to a daemon that is gone
            if not self._may_run_again():
                return self._failed(f"whether it ran is unknown: {error.message}", error)
            self._begin()
            return None
        except PoolError as error:
            return self._failed(error.message, error)
        if result.outcome is not Outcome.LOST or not self._may_run_again():
            return _result(result, tuple(self._reasons))
        self._note(f"it was lost and is run again: {result.reason}")
        self._begin()
        return None

    def _begin(self) -> None:
        """A new job. Until it is known to be lost, it is one job under one id, however often it is sent."""
        self._runs += 1
        job_id = uuid.uuid4().hex
        left_s = max(0.1, self._deadline - time.monotonic())
        options = {"queue_timeout": left_s, **self._job, "job_id": job_id}
        self._job_id = job_id
        self._ask = lambda: self._client.run(self._code, **options)

    def _wait(self, error: BusyError | DaemonUnreachableError) -> ExecutionResult | None:
        if isinstance(error, DaemonUnreachableError) and _was_sent(error):
            job_id = self._job_id
            self._ask = lambda: self._client.result(job_id)
        self._note(error.message)
        wait_s = _retry_after_s(error) or self._pause_s
        if time.monotonic() + wait_s > self._deadline:
            return self._failed(error.message, error)
        time.sleep(wait_s)
        self._pause_s = min(2 * self._pause_s, PAUSE_MOST_S)
        return None

    def _may_run_again(self) -> bool:
        return self._idempotent and self._runs < MAX_RUNS and time.monotonic() < self._deadline

    def _note(self, reason: str) -> None:
        if not self._reasons or self._reasons[-1] != reason:
            self._reasons.append(reason)

    def _failed(self, error: str, cause: PoolError) -> ExecutionResult:
        self._note(cause.message)
        outcome = Outcome.REJECTED if isinstance(cause, JobRefusedError) else None
        return ExecutionResult(success=False, error=error, outcome=outcome, route="none", reasons=tuple(self._reasons))


def _retry_after_s(error: PoolError) -> float:
    named = error.fields.get("retry_after_s")
    return min(float(named), PAUSE_MOST_S) if isinstance(named, int | float) else 0.0


def _was_sent(error: DaemonUnreachableError) -> bool:
    """Whether the job may have reached a daemon: not if there was none to connect to."""
    return "timeout_s" in error.fields or "job_id" in error.fields


# ---- results ----


def _result(job: JobResult, reasons: tuple[str, ...]) -> ExecutionResult:
    ran = job.ok or job.worker is not None or job.outcome is Outcome.REJECTED
    error = _error_of(job)
    return ExecutionResult(
        success=job.ok and not error,
        value=job.value,
        metrics=_metrics_of(job.grade),
        error=error,
        outcome=job.outcome,
        route="pool" if ran else "none",
        reasons=reasons if ran or not job.reason else (*reasons, job.reason),
        timings=job.timings,
        job=job,
    )


def _metrics_of(grade: object) -> dict[str, float]:
    if not isinstance(grade, dict):
        return {}
    return {name: value for name, value in grade.items() if isinstance(name, str) and type(value) in {int, float}}


def _error_of(job: JobResult) -> str:
    """Empty if it ended ok and has the grade that was asked for."""
    if job.ok:
        return f"it was not graded: {job.grade_error.type}: {job.grade_error.message}" if job.grade_error else ""
    if job.findings:
        return "; ".join(map(str, job.findings))
    if job.outcome is Outcome.ERROR and job.error is not None:
        lines = _LINE.findall(job.error.traceback)
        return f"{job.error.type}: {job.error.message}" + (f" (line {lines[-1]})" if lines else "")
    return job.reason or f"it ended {job.outcome}"


def _judged(graded: ExecutionResult) -> ExecutionResult:
    """With what the grader says of the positions."""
    grade = graded.job.grade if graded.job is not None else None
    problem = grade.get("problem") if isinstance(grade, dict) else None
    if isinstance(problem, str):
        return replace(graded, success=False, error=problem, metrics={})
    return graded

"""SandboxExecutor: what a loop calls in place of running code itself. Each call has a result; none raises for a pool.

    execute                  one program with its inputs, and a grader if there is one
    execute_strategy_safe    a trading strategy: positions from the strategy, metrics from a grader that it cannot reach

A pool that is busy, draining, or whose daemon is being restarted is waited for, up to `wait_s`. Then the program runs
in the local engine, if the caller has chosen that (`fallback="local"`), or the result says why it did not run: it is
never run outside a sandbox. A program runs once. It is run again only where it is known not to have run, or if the
caller says that it is `idempotent`. routing.py decides.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Final, Self

from pool.client import checks, routing, strategy
from pool.client.client import Client
from pool.client.endpoint import was_not_accepted
from pool.client.fallback import LocalFallback, chosen, is_enabled
from pool.client.options import Code
from pool.client.routing import Fallback, Route, RouteCounter, SandboxStats
from pool.errors import BusyError, ConfigError, DaemonUnreachableError, JobRefusedError, PoolError, UnknownJobError
from pool.model import JobResult, Limits, Outcome, Timings

#: Pauses between attempts to reach a pool: a restart takes about a second.
PAUSE_S, PAUSE_MOST_S = 0.2, 2.0
#: How often an idempotent program is run before its loss is reported.
MAX_RUNS = 3
DEFAULT_MARKET: Final = strategy.Market()
_DISABLED = "the pool was not asked: the sandbox is disabled (SANDBOX_ENABLED=false, or enabled=False)"
_FELL_BACK = "it ran in the local engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """What came of one call. `error` is for the author of the code: what is wrong, where, and what to do."""

    success: bool  #: it ended ok and, if it was to be graded, has a grade
    value: object = None
    metrics: Mapping[str, float] = field(default_factory=dict)  #: the grade, where it is a mapping of names to numbers
    error: str = ""
    outcome: Outcome | None = None  #: None: it did not run
    route: Route = "pool"  #: fallback: it ran in the local engine; none: it did not run
    reasons: tuple[str, ...] = ()  #: what the pool was waited for, and why it did not run there, or ran again
    timings: Timings = field(default_factory=Timings)
    job: JobResult | None = None


class SandboxExecutor:
    """Runs programs in the pool, for a loop that must go on. May be used from several threads and after a fork.

    Nothing is connected before the first call. `limits` hold for every call that names no timeout of its own; `wait_s`:
    seconds that a call waits for a pool that cannot take its program; with a fallback, calls do not wait while the pool
    is known to be down. `client`: use this one and leave it open.

    `fallback`: what becomes of a program that the pool cannot take: "local" runs it in the local engine, a locked-down
    process of this host (docs/local.md); "refuse" does not run it; None: as the variable SANDBOX_FALLBACK says, else
    "refuse". `enabled`: False does not ask the pool at all; None: as SANDBOX_ENABLED says, else True. `fallback_alert`:
    the share of programs in the fallback above which a warning is logged.
    """

    def __init__(  # noqa: PLR0913 - settings, each with a default
        self,
        endpoint: str | os.PathLike[str] | None = None,
        *,
        pool: str | None = None,
        limits: Limits | None = None,
        wait_s: float = 60.0,
        client: Client | None = None,
        fallback: Fallback | None = None,
        enabled: bool | None = None,
        fallback_alert: float = 0.1,
    ) -> None:
        if client is not None and endpoint is not None:
            raise ConfigError("endpoint: the client has one already; give either the endpoint or the client")
        self._wait_s: Final = checks.seconds("wait_s", wait_s)
        self._client: Final = client or Client(endpoint)
        self._owns_client: Final = client is None
        self._pool = pool
        self._limits = limits or Limits()
        self._local: Final = LocalFallback() if chosen(fallback) == "local" else None
        self._enabled: Final = is_enabled(given=enabled)
        self._counter: Final = RouteCounter(checks.seconds("fallback_alert", fallback_alert))
        self._down = False  # whether the last program found no pool at all

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
        asked: dict[str, Any] = {"pool": self._pool, "limits": self._limits_for(timeout), **options}
        if isinstance(code, str):
            asked["entry"] = entry
        if not isinstance(inputs, tuple) or inputs:  # a frame has no truth value
            asked["kwargs" if isinstance(inputs, Mapping) else "args"] = inputs
        end, cause = self._execute(code, asked, idempotent=idempotent)
        self._counter.add(end.route, cause)
        return end

    def execute_strategy_safe(
        self, code: str, data: Any, *, timeout: float | None = 10.0, market: strategy.Market = DEFAULT_MARKET
    ) -> ExecutionResult:
        """Run the strategy on the prices, and have what it returned graded. Its contract: docs/strategies.md.

        `data`: a pandas Series of closing prices, or a DataFrame with a column `close`, by date. `timeout`: seconds for
        each of its two runs. The value is the positions, the metrics are `sharpe`, `total_return`, `cagr`,
        `max_drawdown`, `volatility` and `trades`.
        """
        if not isinstance(code, str):
            return self.execute(code)  # which says what is wrong with it
        if problem := strategy.problem_of(data):
            return ExecutionResult(success=False, error=problem, route="none", reasons=("the data cannot be used",))
        run = strategy.StrategyRun(data, market)
        first = self.execute(
            strategy.with_prefixes(code), run.prefix_inputs(), entry=strategy.PREFIXES, timeout=timeout, idempotent=True
        )
        if not first.success:
            return replace(first, error=run.in_words(first.error, code, ran=first.outcome is Outcome.ERROR), value=None)
        graded = self.execute(
            code, [data], entry=strategy.ENTRY, timeout=timeout, idempotent=True, **run.grading(first.value)
        )
        return _judged(graded)

    def stats(self) -> SandboxStats:
        """How many programs ran in the pool, in the fallback and not at all, since this executor was made."""
        return self._counter.stats()

    def close(self) -> None:
        if self._owns_client:
            self._client.close()
        if self._local is not None:
            self._local.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _execute(self, code: Code, asked: Mapping[str, Any], *, idempotent: bool) -> tuple[ExecutionResult, str]:
        """The result, and for a fallback its cause in one word."""
        if not self._enabled:
            return self._elsewhere(code, asked, (_DISABLED,)), "disabled"
        wait_s = 0.0 if self._local is not None and self._down else self._wait_s
        call = _Call(self._client, code, asked, wait_s=wait_s, idempotent=idempotent)
        end, by = call.run(), call.ended_by
        self._down = by is not None and routing.is_down(by)
        if self._local is None or by is None or not routing.falls_back(by, sent=call.sent, idempotent=idempotent):
            return end, ""
        why, cause = ((), by.code) if isinstance(by, PoolError) else ((by.reason,), str(by.outcome))
        return self._elsewhere(code, asked, tuple(dict.fromkeys([*end.reasons, *why]))), cause

    def _elsewhere(self, code: Code, asked: Mapping[str, Any], reasons: tuple[str, ...]) -> ExecutionResult:
        """Run it in the local engine. Nothing is run if that is not chosen, or if this host cannot lock a job down."""
        if self._local is None:
            return ExecutionResult(success=False, error=f"it did not run: {reasons[-1]}", route="none", reasons=reasons)
        try:
            end = _result(replace(self._local.run(code, asked), fallback=True), reasons)
        except PoolError as error:
            outcome = Outcome.REJECTED if isinstance(error, JobRefusedError) else None
            told = (*reasons, f"no fallback: {error.message}")
            return ExecutionResult(success=False, error=error.message, outcome=outcome, route="none", reasons=told)
        return replace(end, route="fallback", reasons=(*reasons, _FELL_BACK))

    def _limits_for(self, timeout: float | None) -> Limits:
        return self._limits if timeout is None else replace(self._limits, wall_s=checks.seconds("timeout", timeout))


class _Call:
    """One call of `execute`: the attempts until there is a result."""

    def __init__(self, client: Client, code: Code, job: Mapping[str, Any], *, wait_s: float, idempotent: bool) -> None:
        self._client = client
        self._code = code
        self._job = job
        self._deadline = time.monotonic() + wait_s
        self._idempotent = idempotent
        self._reasons: list[str] = []
        self._runs = 0
        self.sent = False  #: whether a daemon that has not refused it may have received it
        self.ended_by: PoolError | JobResult | None = None  #: set by `run`
        self._pause_s = PAUSE_S
        self._job_id = ""
        self._unanswered: DaemonUnreachableError | None = None  # the error of a Submit that may have been received
        self._ask: Callable[[], JobResult]

    def run(self) -> ExecutionResult:
        self._begin()
        while (end := self._attempt()) is None:
            pass
        return end

    def _attempt(self) -> ExecutionResult | None:
        """The result of one attempt; None: try again."""
        try:
            result = self._ask()
        except (BusyError, DaemonUnreachableError) as error:
            return self._wait(error)
        except UnknownJobError as error:  # a daemon that has ended since may have received it
            if not self._was_not_accepted(error) and not self._may_run_again():
                return self._failed(f"whether it ran is unknown: {error.message}", error)
            self._begin()
            return None
        except PoolError as error:
            return self._failed(error.message, error)
        if result.outcome is not Outcome.LOST or not self._may_run_again():
            self.ended_by = result
            return _result(result, tuple(self._reasons))
        self._note(f"it was lost and is run again: {result.reason}")
        self._begin()
        return None

    def _begin(self) -> None:
        """Begin a new job. Until it is known to be lost, it keeps its id, however often it is sent."""
        self._runs += 1
        job_id = uuid.uuid4().hex
        left_s = max(0.1, self._deadline - time.monotonic())
        options = {"queue_timeout": left_s, **self._job, "job_id": job_id}
        self._job_id = job_id
        self._ask = lambda: self._client.run(self._code, **options)

    def _wait(self, error: BusyError | DaemonUnreachableError) -> ExecutionResult | None:
        if isinstance(error, DaemonUnreachableError) and _was_sent(error):
            self.sent = True
            self._unanswered = error if "sent_at" in error.fields else self._unanswered
            job_id = self._job_id
            self._ask = lambda: self._client.result(job_id)
        self._note(error.message)
        wait_s = _retry_after_s(error) or self._pause_s
        if time.monotonic() + wait_s > self._deadline:
            return self._failed(error.message, error)
        time.sleep(wait_s)
        self._pause_s = min(2 * self._pause_s, PAUSE_MOST_S)
        return None

    def _was_not_accepted(self, error: UnknownJobError) -> bool:
        """Whether it has certainly not run, so that it may run in time."""
        if self._unanswered is None or time.monotonic() >= self._deadline:
            return False
        return was_not_accepted(error, sent_at=self._unanswered.fields.get("sent_at"))

    def _may_run_again(self) -> bool:
        return self._idempotent and self._runs < MAX_RUNS and time.monotonic() < self._deadline

    def _note(self, reason: str) -> None:
        if not self._reasons or self._reasons[-1] != reason:
            self._reasons.append(reason)

    def _failed(self, error: str, cause: PoolError) -> ExecutionResult:
        self._note(cause.message)
        self.ended_by = cause
        outcome = Outcome.REJECTED if isinstance(cause, JobRefusedError) else None
        return ExecutionResult(success=False, error=error, outcome=outcome, route="none", reasons=tuple(self._reasons))


def _retry_after_s(error: PoolError) -> float:
    named = error.fields.get("retry_after_s")
    return min(float(named), PAUSE_MOST_S) if isinstance(named, int | float) else 0.0


def _was_sent(error: DaemonUnreachableError) -> bool:
    """Whether a daemon may have received the job. Not if there was none to connect to."""
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
    """Plain numbers, also of those of NumPy."""
    found: dict[str, float] = {}
    for name, value in grade.items() if isinstance(grade, dict) else ():
        if isinstance(name, str) and isinstance(value, Real) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # of a Fraction
                found[name] = int(value) if isinstance(value, Integral) else float(value)
    return found


def _error_of(job: JobResult) -> str:
    """The error in words; empty if it ended ok and has the requested grade."""
    if job.ok:
        return f"it was not graded: {job.grade_error.type}: {job.grade_error.message}" if job.grade_error else ""
    return job.explanation


def _judged(graded: ExecutionResult) -> ExecutionResult:
    """The result with the grader's metrics, or its objection to the positions."""
    grade = graded.job.grade if graded.job is not None else None
    problem = grade.get("problem") if isinstance(grade, dict) else None
    if isinstance(problem, str):
        return replace(graded, success=False, error=problem, metrics={})
    return graded

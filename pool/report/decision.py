"""From samples to figures, and from figures to the decision. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pool.report.arms import ColdContainer, InProcess, Sample, WarmPool
from pool.report.checks import Check
from pool.report.measure import Case, Parallel

#: The rule: enable the sandbox by default if all checks pass and the overhead is below this share of the backtest,
MAX_OVERHEAD = 1.0
#: judged by the shortest backtest of a second or more.
JUDGED_FROM_S = 1.0
#: The overhead that the project promises for a backtest of a second.
PROMISED_OVERHEAD, PROMISED_FALLBACK = 0.01, 0.0
#: Lengths of backtests that the report projects the overhead to, in seconds.
PROJECTED_S = (3.0, 4.0, 5.0)
ARMS = (InProcess.name, ColdContainer.name, WarmPool.name)


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was measured. `settings`: names and values of settings on which the figures depend."""

    checks: Sequence[Check]
    cases: Sequence[Case]
    parallel: Sequence[Parallel]
    settings: dict[str, str]


@dataclass(frozen=True, slots=True)
class Figures:
    """One arm at one length, medians in seconds. `share`: of the overhead in the run time, by pairs."""

    runs: int
    ok: int
    run_s: float
    wall_s: float
    overhead_s: float
    overhead_p95_s: float
    share: float


@dataclass(frozen=True, slots=True)
class Decision:
    enable: bool
    passed: int
    checks: int
    judged_s: float | None  #: the length of backtest that it was judged by; None: none was long enough
    overhead: float | None
    success: float  #: share of the pool's runs that ended ok with the value that the other arms have
    fallback: float  #: share of the pool's runs that it did not take
    keeps_promise: bool


def figures(samples: Sequence[Sample]) -> Figures | None:
    """None if no run ended ok."""
    good = [each for each in samples if each.sharpe is not None]
    if not good:
        return None
    overheads = sorted(each.overhead_s for each in good)
    return Figures(
        runs=len(samples),
        ok=len(good),
        run_s=statistics.median(each.run_s for each in good),
        wall_s=statistics.median(each.wall_s for each in good),
        overhead_s=statistics.median(overheads),
        overhead_p95_s=overheads[max(0, -(-95 * len(overheads) // 100) - 1)],
        share=statistics.median(each.overhead_s / each.run_s for each in good),
    )


def decide(results: Results) -> Decision:
    pool = [sample for case in results.cases for sample in case.samples.get(WarmPool.name, ())]
    long = sorted((case for case in results.cases if case.seconds >= JUDGED_FROM_S), key=lambda case: case.seconds)
    judged = figures(long[0].samples.get(WarmPool.name, ())) if long else None
    passed = sum(each.passed for each in results.checks)
    functional = passed == len(results.checks) > 0
    overhead = judged.share if judged else None
    fallback = _share([each.route != "pool" for each in pool])
    return Decision(
        enable=functional and overhead is not None and overhead < MAX_OVERHEAD,
        passed=passed,
        checks=len(results.checks),
        judged_s=long[0].seconds if judged else None,
        overhead=overhead,
        success=_share([_agrees(sample, case) for case in results.cases for sample in case.samples[WarmPool.name]]),
        fallback=fallback,
        keeps_promise=overhead is not None and overhead <= PROMISED_OVERHEAD and fallback <= PROMISED_FALLBACK,
    )


def _agrees(sample: Sample, case: Case) -> bool:
    values = {each.sharpe for name in ARMS for each in case.samples.get(name, ()) if each.sharpe is not None}
    return sample.sharpe is not None and max(values) - min(values) < 1e-4


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else 0.0


def projected(results: Results, arm: str, seconds: float) -> float | None:
    """The overhead of a backtest of that length, as a share of it, from the median overhead of the longest measured."""
    measured = [found for case in results.cases if (found := figures(case.samples.get(arm, ()))) is not None]
    longest = max(measured, key=lambda found: found.run_s, default=None)
    return None if longest is None else longest.overhead_s / seconds

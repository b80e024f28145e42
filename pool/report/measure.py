"""Runs the arms in turns, so that all have the same machine load, and k backtests at a time through the pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pool.report.arms import Arm, InProcess, Sample

#: Runs before the counted ones, for imports, caches and the first worker.
WARM_UP = 2
#: Backtests of so many seconds run before those side by side: meanwhile the pool starts the workers that they call for.
#: A start takes a core for about a second, as long as many short backtests.
START_S = 3.0
#: Sweeps of the run that measures how long a sweep takes here.
_CALIBRATION_SWEEPS = 50


@dataclass(frozen=True, slots=True)
class Case:
    """Backtests of one length: the samples of each arm, by its name, in order."""

    seconds: float  #: what was asked for
    sweeps: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parallel:
    """`jobs` backtests with `at_once` of them in flight. `work_s`: the sum of their times by their own clocks."""

    seconds: float
    jobs: int
    at_once: int
    wall_s: float
    work_s: float
    failed: int = 0


def sweeps_for(seconds: Sequence[float], arm: InProcess) -> dict[float, int]:
    """The number of sweeps that take about so long in this process now."""
    for _ in range(WARM_UP):
        arm.run(_CALIBRATION_SWEEPS)
    a_sweep_s = min(arm.run(_CALIBRATION_SWEEPS).run_s for _ in range(3)) / _CALIBRATION_SWEEPS
    return {each: max(1, round(each / a_sweep_s)) for each in seconds}


def compare(
    arms: Sequence[Arm], sweeps: dict[float, int], *, iterations: int, progress: Callable[[str], object]
) -> list[Case]:
    cases = []
    for seconds, count in sweeps.items():
        case = Case(seconds, count, {arm.name: [] for arm in arms})
        for arm in arms:
            arm.run(count)
        for number in range(iterations):
            progress(f"backtests of {seconds * 1000:g} ms: {number + 1} of {iterations}")
            for arm in arms:
                case.samples[arm.name].append(arm.run(count))
        cases.append(case)
    return cases


def side_by_side(
    arm: Arm, sweeps: dict[float, int], *, widths: Sequence[int], jobs: int, progress: Callable[[str], object]
) -> list[Parallel]:
    """The same number of backtests with each number in flight."""
    found = []
    for seconds, count in sweeps.items():
        for width in widths:
            progress(f"backtests of {seconds * 1000:g} ms, {width} at a time")
            with ThreadPoolExecutor(width) as threads:
                list(threads.map(arm.run, [round(count / seconds * START_S)] * width))
                began_s = time.perf_counter()
                samples = list(threads.map(arm.run, [count] * jobs))
                wall_s = time.perf_counter() - began_s
            failed = sum(each.sharpe is None for each in samples)
            found.append(Parallel(seconds, jobs, width, wall_s, sum(each.run_s for each in samples), failed))
    return found

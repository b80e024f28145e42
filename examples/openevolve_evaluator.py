"""An evaluator for OpenEvolve: `openevolve-run.py initial_program.py examples/openevolve_evaluator.py`.

`evaluate(program_path)` returns metrics, and as artifacts what the next prompt should know: the error with its line,
and what the program printed. With `cascade_evaluation: true` a candidate that fails on ten points is not tried on two
thousand. A pool that cannot run it raises, so OpenEvolve tries again (`max_retries`) and scores nobody with 0 for it.
"""

from __future__ import annotations

from pathlib import Path

from pool import SandboxExecutor

try:
    from examples.evolution_task import FAILED, score
except ModuleNotFoundError:  # run by its path, where only the directory of this file is searched
    from evolution_task import FAILED, score  # type: ignore[import-not-found, no-redef]

try:
    from openevolve.evaluation_result import EvaluationResult  # type: ignore[import-not-found]
except ImportError:  # to try it without OpenEvolve
    from dataclasses import dataclass, field

    @dataclass
    class EvaluationResult:  # type: ignore[no-redef]
        metrics: dict[str, float]
        artifacts: dict[str, str | bytes] = field(default_factory=dict)


_sandbox = SandboxExecutor()  # one for all: it connects at the first evaluation


def evaluate_stage1(program_path: str) -> EvaluationResult:
    return _evaluate(program_path, points=10, timeout_s=1.0)


def evaluate_stage2(program_path: str) -> EvaluationResult:
    return _evaluate(program_path, points=2000, timeout_s=5.0)


evaluate = evaluate_stage2


def _evaluate(program_path: str, *, points: int, timeout_s: float) -> EvaluationResult:
    result = score(_sandbox, Path(program_path), points=points, timeout_s=timeout_s)
    if result.success:
        return EvaluationResult(metrics={**result.metrics, "run_ms": result.timings.run_ms})
    printed = result.job.stdout[-2000:] if result.job is not None else ""
    return EvaluationResult(metrics=dict(FAILED), artifacts={"error": result.error, "stdout": printed})

"""A task for program evolution, scored in the pool: what examples/openevolve_evaluator.py and shinka_evaluate.py share.

A candidate is a file with `approximate(points)`, which returns the sine of each point without importing anything. It
runs in the sandbox, with a limit that really ends it. The score comes from a grader in another process, which alone has
the expected values.
"""

from __future__ import annotations

import math
from pathlib import Path

from pool import ExecutionResult, SandboxExecutor

GRADER = """
import math

def grade(found, expected):
    if not isinstance(found, list) or len(found) != len(expected):
        raise ValueError("return a list with one number for each point")
    if not all(isinstance(each, float) and math.isfinite(each) for each in found):
        raise ValueError("a value is no finite float")
    worst = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    return {"combined_score": 1 / (1 + worst), "max_error": worst}
"""
FAILED = {"combined_score": 0.0}


class NoPoolError(Exception):
    """The pool could not run the candidate. That is no fault of the candidate, so it must not get a score."""


def score(sandbox: SandboxExecutor, program: Path, *, points: int, timeout_s: float) -> ExecutionResult:
    """Run the candidate on so many points. Raises NoPoolError."""
    source = program.read_text(encoding="utf-8", errors="replace")
    inputs = [math.tau * (n / points - 0.5) for n in range(points)]
    result = sandbox.execute(
        source,
        [inputs],
        entry="approximate",
        timeout=timeout_s,
        grade=GRADER,
        grade_args=[[math.sin(each) for each in inputs]],
        idempotent=True,
    )
    if result.outcome is None:
        raise NoPoolError(result.error)
    return result

"""An evaluator for ShinkaEvolve: `python examples/shinka_evaluate.py --program_path FILE --results_dir DIRECTORY`.

It writes metrics.json (`combined_score`, `public`, `private`, `text_feedback`) and correct.json, as run_shinka_eval
does, and never imports the program itself. Exit status 0 also for a program that fails; 1 when the pool could not run
it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pool import ExecutionResult, SandboxExecutor

try:
    from examples.evolution_task import FAILED, NoPoolError, score
except ModuleNotFoundError:  # run by its path, where only the directory of this file is searched
    from evolution_task import FAILED, NoPoolError, score  # type: ignore[import-not-found, no-redef]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Score a program in the pool.")
    parser.add_argument("--program_path", type=Path, required=True)
    parser.add_argument("--results_dir", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        with SandboxExecutor() as sandbox:
            result = score(sandbox, options.program_path, points=2000, timeout_s=5.0)
    except NoPoolError as error:
        print(f"the pool could not run the program: {error}", file=sys.stderr)
        return 1
    save(result, options.results_dir)
    return 0


def save(result: ExecutionResult, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    scored = result.metrics if result.success else FAILED
    metrics = {
        "combined_score": scored["combined_score"],
        "public": dict(scored),
        "private": {},
        "text_feedback": result.error,
        "execution_time_mean": result.timings.run_ms / 1000,
    }
    (directory / "metrics.json").write_text(json.dumps(metrics, indent=4), encoding="utf-8")
    correct = {"correct": result.success, "error": result.error or None}
    (directory / "correct.json").write_text(json.dumps(correct, indent=4), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

"""The main job: a loop that writes trading strategies, runs each in the pool, reads the score, and goes on.

    Search.propose ──▶ source texts ──▶ SandboxExecutor ──▶ positions ──▶ grader ──▶ metrics ──▶ Search.learn ──▶ again

Nobody reads the code before it runs, and some of it is broken or never ends; that costs the loop nothing but a
candidate. The metrics are computed in another process than the candidate's. A daemon that is restarted is waited for.
Results depend on the seed only. Ctrl-C cancels what is under way, and the summary tells of what had ended. Exit status:
0 when at least one strategy was evaluated, 1 when none was or the pool failed; an interrupted loop ends by the signal.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from examples import summary
from examples.backtest import GRADER
from examples.comparison import Comparison, compare
from examples.evaluation import Evaluation, Evaluator, Run
from examples.prices import DEFAULT_OUTPUT
from examples.search import Search
from pool import Client, JobResult, Outcome, SandboxExecutor
from pool.errors import PoolError

SPLIT = 0.7  #: share of the days that are searched on; the rest is held out
WALL_S = 2.0  #: a candidate that takes longer is given up
PARALLEL_HELP = "jobs on their way at a time; beyond the workers that are ready, jobs queue (%(default)s)"
QUEUE_TIMEOUT_S = 60.0  #: the first jobs may have to wait for the first worker


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Search for trading strategies by running generated code in the pool.")
    parser.add_argument("--iterations", type=_count, default=20, help="generations (%(default)s)")
    parser.add_argument("--population", type=_count, default=12, help="candidates in each (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same results (%(default)s)")
    parser.add_argument("--parallel", type=_count, default=2, help=PARALLEL_HELP)
    parser.add_argument("--pool", default="default", help="the pool to use (%(default)s)")
    parser.add_argument("--image", default="pool-worker:latest", help="image for the comparison (%(default)s)")
    parser.add_argument(
        "--prices",
        type=Path,
        default=Path(os.environ.get("POOL_DEMO_PRICES", DEFAULT_OUTPUT)),
        help="the file the daemon was given as POOL_DEMO_PRICES, for the comparison (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError(f"{number} is not between 1 and 100000")
    return number


class StalledError(Exception):
    """The pool accepts jobs and runs none."""


class Loop:
    """Runs the search and keeps its results, also when it is interrupted."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._search = Search(seed=options.seed, population=options.population)
        self.evaluations: list[Evaluation] = []
        self.comparison: Comparison | None = None
        self.elapsed_s = 0.0

    @property
    def best(self) -> Evaluation | None:
        return self._search.best

    @property
    def evaluated_ok(self) -> bool:
        return any(each.score is not None for each in self.evaluations)

    def go(self, run: Run) -> None:
        with Evaluator(run, self._options.parallel) as evaluator:
            for iteration in range(1, self._options.iterations + 1):
                self._iterate(iteration, evaluator)
        if self.best is not None:
            self._say("timing the best strategy in-process, in the pool and by docker run ...")
            file = self._options.prices if self._options.prices.exists() else None
            source = self.best.candidate.source
            self.comparison = compare(source, SPLIT, run, prices_file=file, image=self._options.image)

    def report(self) -> None:
        arguments = (self.evaluations, self.best, self.comparison)
        if self._options.json:
            print(json.dumps(summary.summarise(*arguments, elapsed_s=self.elapsed_s), indent=2))
        elif self.evaluations:
            print("\n" + summary.text(*arguments, elapsed_s=self.elapsed_s))

    def _iterate(self, iteration: int, evaluator: Evaluator) -> None:
        started_s = time.perf_counter()
        evaluations = evaluator.evaluate(self._search.propose())
        took_s = time.perf_counter() - started_s
        self.elapsed_s += took_s
        self.evaluations += evaluations
        self._search.learn(evaluations)
        self._say(self._line(iteration, evaluations, took_s))
        if all(each.result.worker is None for each in evaluations):
            why = evaluations[-1].result.reason
            raise StalledError(f"no worker ran any of the last jobs ({why}); pool-admin status shows its state")

    def _line(self, iteration: int, evaluations: Sequence[Evaluation], took_s: float) -> str:
        counts = "  ".join(f"{name} {count}" for name, count in summary.outcomes(evaluations).items())
        best = self.best
        sharpe = "     -" if best is None or best.score is None else f"{best.score.in_sample.sharpe:6.3f}"
        return f"iteration {iteration:3d}   best Sharpe {sharpe}   {len(evaluations) / took_s:7.1f} jobs/s   {counts}"

    def _say(self, line: str) -> None:
        """With --json stdout holds the summary and nothing else."""
        print(line, file=sys.stderr if self._options.json else sys.stdout, flush=True)


def run_in_pool(client: Client, pool: str) -> Run:
    """Raises PoolError if there is no pool to begin with."""
    client.run("result = None", pool=pool, queue_timeout=QUEUE_TIMEOUT_S)
    sandbox = SandboxExecutor(client=client, pool=pool, wait_s=QUEUE_TIMEOUT_S)

    def run(source: str) -> JobResult:
        ended = sandbox.execute(source, timeout=WALL_S, grade=GRADER, grade_args=[SPLIT], idempotent=True)
        return ended.job or JobResult(job_id="none", outcome=Outcome.LOST, reason=ended.error)

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    loop = Loop(options)
    failed = False
    try:
        with Client() as client:  # its end cancels what is under way
            loop.go(run_in_pool(client, options.pool))
    except KeyboardInterrupt:
        print("interrupted; this is what came of it so far", file=sys.stderr)
        loop.report()
        raise
    except (PoolError, StalledError) as error:
        print(f"the pool failed: {error}", file=sys.stderr)
        failed = True
    loop.report()
    return int(failed or not loop.evaluated_ok)


if __name__ == "__main__":
    sys.exit(main())

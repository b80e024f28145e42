"""The demo's loop while its daemon is killed and started again: what became of each candidate, and how long gaps were.

    python -m benchmarks.restarts [--iterations 200] [--population 16] [--kills 0 2] [--parallel 2]

The daemon gets SIGKILL when a third, and two thirds, of the candidates have ended, and is started again at once. A gap
is the time from a kill to the first candidate that ends after it. The same search without kills has to find the same
best strategy: results depend on the seed only. Each number of `--kills` is a run; 0 measures the loop alone.
"""

import argparse
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.daemon import Daemon, Pool, pool, started
from examples import autonomous_loop, prices, summary
from examples.backtest import GRADER
from examples.evaluation import Evaluation, Evaluator
from examples.search import Search
from pool import Client, ExecutionResult, JobResult, Outcome, SandboxExecutor


def _pool(market: Path) -> Pool:
    return pool(
        recycle={"max_jobs": 100},
        preload={"modules": ["numpy", "pandas"], "datasets": {"prices": str(market)}},
        limits={"wall_s": 10, "cpu_s": 20, "memory": "512m"},
    )


#: The limit of a candidate. More than the demo's, so that no sound one runs into it on a busy machine.
WALL_S = 4.0
WAIT_S = 300.0


def restart(daemon: Daemon) -> float:
    """SIGKILL, and a new daemon. When it was."""
    killed_at = time.monotonic()
    daemon.kill()
    daemon.start()
    return killed_at


@dataclass
class Record:
    """What came of the loop."""

    ended: list[tuple[float, ExecutionResult]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    killed_at: list[float] = field(default_factory=list)
    took_s: float = 0.0
    best: str = ""

    def gap_s(self, killed_at: float) -> float:
        return min((at for at, _ in self.ended if at > killed_at), default=killed_at) - killed_at


def loop(daemon: Daemon, options: argparse.Namespace, *, kills: int) -> Record:
    record, lock = Record(), threading.Lock()
    total = options.iterations * options.population
    search = Search(seed=options.seed, population=options.population)
    due = [total * (number + 1) // (kills + 1) for number in range(kills)]
    with Client(daemon.endpoint) as client:
        sandbox = SandboxExecutor(client=client, wait_s=WAIT_S, enabled=True, fallback="refuse")

        def run(source: str) -> JobResult:
            found = sandbox.execute(
                source, timeout=WALL_S, grade=GRADER, grade_args=[autonomous_loop.SPLIT], idempotent=True
            )
            with lock:
                record.ended.append((time.monotonic(), found))
                if due and len(record.ended) >= due[0]:
                    due.pop(0)
                    record.killed_at.append(restart(daemon))
            return found.job or JobResult(job_id="none", outcome=Outcome.LOST, reason=found.error)

        began_s = time.monotonic()
        with Evaluator(run, options.parallel) as evaluator:
            for _ in range(options.iterations):
                evaluations = evaluator.evaluate(search.propose())
                record.evaluations += evaluations
                search.learn(evaluations)
        record.took_s = time.monotonic() - began_s
    best = search.best
    record.best = f"{best.candidate.name} {best.score.in_sample.sharpe:.6f}" if best and best.score else "none"
    return record


def described(record: Record, total: int) -> Iterator[str]:
    results = [found for _, found in record.ended]
    names = {each.candidate.name for each in record.evaluations}
    parts = summary.timings(record.evaluations)
    timed = [each for each in record.evaluations if each.result.outcome in summary.TIMED]
    run_s = sum(each.result.timings.run_ms + each.result.timings.grade_ms for each in timed) / 1000
    overhead_ms = [each.client_ms - _not_overhead_ms(each) for each in timed]
    yield f"candidates {len(record.evaluations)} of {total}, {len(names)} of them different"
    yield f"wall {record.took_s:.1f} s, {len(results) / record.took_s:.1f} jobs/s"
    yield f"outcomes {dict(Counter(str(each.outcome) for each in results))}"
    yield f"routes {dict(Counter(each.route for each in results))}; fallback {_share(results):.1%}"
    yield f"run again after a loss {sum('run again' in ' '.join(each.reasons) for each in results)}"
    yield f"overhead {sum(overhead_ms) / 1000 / run_s:.1%} of the run time of candidates and graders"
    yield f"  a job: median {statistics.median(overhead_ms):.1f} ms, p95 {parts['overhead']['p95']:.1f} ms"
    yield f"best {record.best}"
    for number, killed_at in enumerate(record.killed_at, start=1):
        yield f"kill {number}: the next candidate ended {record.gap_s(killed_at):.2f} s later"


def _not_overhead_ms(each: Evaluation) -> float:
    timings = each.result.timings
    return timings.queue_ms + timings.run_ms + timings.grade_ms


def _share(results: Sequence[ExecutionResult]) -> float:
    return sum(each.route != "pool" for each in results) / len(results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("iterations", 200), ("population", 16), ("seed", 7), ("parallel", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kills", type=int, nargs="+", default=(0, 2), help="runs with so many kills (0 2)")
    parser.add_argument("--prices", type=Path, default=prices.DEFAULT_OUTPUT, help="as examples/prices.py writes them")
    options = parser.parse_args()
    if not options.prices.is_file():
        parser.error(f"--prices: there is no {options.prices}; `python -m examples.prices` writes it")
    total, bests = options.iterations * options.population, set()
    for kills in options.kills:
        with started({"default": _pool(options.prices.resolve())}) as daemon:
            record = loop(daemon, options, kills=kills)
        print(f"\n{kills} kills", *described(record, total), sep="\n  ", flush=True)
        bests.add(record.best)
    if len(options.kills) > 1:
        print(f"\nthe same best strategy each time: {len(bests) == 1}")
    return 0 if len(bests) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())

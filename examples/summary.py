"""What the loop did, as plain values (`--json`) and as text for people.

The overhead of a job is what the loop paid beyond the code itself and the wait for a free worker:

    client wall = queue + run + grade + overhead          overhead = dispatch + collect + client leg

queue, dispatch, run, collect and grade come from the daemon's clock; the client leg is the rest of the wall clock of
the call, with the two hops between loop and daemon in it. Jobs that were killed at their limit are counted and not
timed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise

from examples.backtest import describe
from examples.comparison import Comparison
from examples.evaluation import Evaluation, Metrics
from pool.model import Outcome, StartKind, Timings

TIMED = (Outcome.OK, Outcome.ERROR)
#: Longer than a candidate may run. For so long no job ends only if there is no daemon, or no worker.
GAP_S = 2.5

_PARTS: dict[str, Callable[[Evaluation], float]] = {
    "overhead": lambda each: each.client_ms - _not_overhead_ms(each.result.timings),
    "dispatch": lambda each: each.result.timings.dispatch_ms,
    "collect": lambda each: each.result.timings.collect_ms,
    "client leg": lambda each: each.client_ms - each.result.timings.total_ms - each.result.timings.grade_ms,
    "queue": lambda each: each.result.timings.queue_ms,
    "run": lambda each: each.result.timings.run_ms,
    "grade": lambda each: each.result.timings.grade_ms,
}


def _not_overhead_ms(timings: Timings) -> float:
    return timings.queue_ms + timings.run_ms + timings.grade_ms


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def hit_rate(evaluations: Sequence[Evaluation]) -> float | None:
    """Which share of the jobs that reached a worker waited for no container to start."""
    starts = [each.result.start for each in evaluations if each.result.start is not None]
    return sum(start is not StartKind.COLD for start in starts) / len(starts) if starts else None


def outcomes(evaluations: Sequence[Evaluation]) -> dict[str, int]:
    return dict(Counter(str(each.result.outcome) for each in evaluations).most_common())


def errors(evaluations: Sequence[Evaluation]) -> dict[str, int]:
    return dict(Counter(each.result.error.type for each in evaluations if each.result.error is not None).most_common())


def gaps(evaluations: Sequence[Evaluation]) -> list[dict[str, float]]:
    """When no job ended for `GAP_S` or longer, as when the daemon is restarted: after how many, and for how long."""
    ends = sorted(each.ended_s for each in evaluations)
    waits = [(number, after - before) for number, (before, after) in enumerate(pairwise(ends), 1)]
    return [{"after_jobs": number, "seconds": round(wait, 1)} for number, wait in waits if wait >= GAP_S]


def timings(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    timed = [each for each in evaluations if each.result.outcome in TIMED]
    if not timed:
        return {}
    columns = {name: [part(each) for each in timed] for name, part in _PARTS.items()}
    return {
        name: {"p50": round(percentile(values, 0.50), 3), "p95": round(percentile(values, 0.95), 3)}
        for name, values in columns.items()
    }


def summarise(
    evaluations: Sequence[Evaluation], best: Evaluation | None, comparison: Comparison | None, *, elapsed_s: float
) -> dict[str, object]:
    """Everything, as JSON can carry it."""
    return {
        "jobs": len(evaluations),
        "elapsed_s": round(elapsed_s, 3),
        "outcomes": outcomes(evaluations),
        "errors": errors(evaluations),
        "flawed_on_purpose": sum(each.candidate.flaw is not None for each in evaluations),
        "hit_rate": hit_rate(evaluations),
        "gaps": gaps(evaluations),
        "workers": len({each.result.worker for each in evaluations if each.result.worker}),
        "timings_ms": timings(evaluations),
        "best": _best(best),
        "comparison": _comparison(comparison),
    }


def _best(best: Evaluation | None) -> dict[str, object] | None:
    if best is None or best.score is None:
        return None
    candidate = best.candidate
    return {
        "candidate": candidate.name,
        "strategy": describe(candidate.genome),
        "source": candidate.source,
        **asdict(best.score),
    }


def _comparison(comparison: Comparison | None) -> dict[str, object] | None:
    if comparison is None:
        return None
    return {
        "median_ms": {each.way: round(each.median_ms, 3) for each in comparison.measured},
        "runs": {each.way: each.runs for each in comparison.measured},
        "times_cheaper_than_docker_run": comparison.times_cheaper,
        "same_metrics": comparison.agree,
        "left_out": list(comparison.left_out),
    }


def text(
    evaluations: Sequence[Evaluation], best: Evaluation | None, comparison: Comparison | None, *, elapsed_s: float
) -> str:
    """The same for people."""
    lines = _about_jobs(evaluations, elapsed_s)
    if best is not None and best.score is not None:
        lines += ["", f"Best strategy, candidate {best.candidate.name}: {describe(best.candidate.genome)}"]
        lines += ["", *(f"    {line}".rstrip() for line in best.candidate.source.splitlines()), ""]
        lines += [
            _metrics_line("searched on", best.score.in_sample),
            _metrics_line("held out", best.score.out_of_sample),
        ]
    if comparison is not None:
        lines += ["", *_about_comparison(comparison)]
    return "\n".join(lines)


def _about_jobs(evaluations: Sequence[Evaluation], elapsed_s: float) -> list[str]:
    counts = ", ".join(f"{count} {name}" for name, count in outcomes(evaluations).items())
    kinds = ", ".join(f"{count} {name}" for name, count in errors(evaluations).items())
    flawed = sum(each.candidate.flaw is not None for each in evaluations)
    lines = [
        f"{len(evaluations)} jobs in {elapsed_s:.1f} s: {counts}",
        f"{flawed} candidates were flawed on purpose; errors: {kinds or 'none'}",
    ]
    rate = hit_rate(evaluations)
    if rate is not None:
        lines.append(f"hit rate {rate:.0%} (jobs that waited for no container to start)")
    lines += [f"no job ended for {gap['seconds']:.1f} s, after {gap['after_jobs']} jobs" for gap in gaps(evaluations)]
    parts = timings(evaluations)
    if parts:
        lines += ["", f"{'per job, ms':<14}{'p50':>9}{'p95':>9}"]
        lines += [f"{name:<14}{figure['p50']:>9.2f}{figure['p95']:>9.2f}" for name, figure in parts.items()]
        lines += ["overhead = dispatch + collect + client leg: what a job cost beyond its own run and the queue"]
    return lines


def _metrics_line(label: str, metrics: Metrics) -> str:
    return (
        f"{label:<12} Sharpe {metrics.sharpe:5.2f}   CAGR {metrics.cagr:6.1%}   "
        f"max drawdown {metrics.max_drawdown:5.1%}   trades {metrics.trades}"
    )


def _about_comparison(comparison: Comparison) -> list[str]:
    lines = ["The same strategy, one at a time, measured just now:"]
    lines += [f"{each.way:<12}{each.median_ms:>10.2f} ms   (median of {each.runs})" for each in comparison.measured]
    if comparison.times_cheaper is not None:
        lines.append(f"One docker run costs as much as {comparison.times_cheaper:.0f} jobs in the pool.")
    if not comparison.agree:
        lines.append("The ways do NOT agree on the metrics.")
    return lines + list(comparison.left_out)

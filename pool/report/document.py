"""The report as Markdown. Pure functions of the measurements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pool.report import decision as rule
from pool.report.decision import ARMS, Decision, Figures, Results, figures, projected
from pool.report.measure import Parallel


def markdown(results: Results, decision: Decision, *, plots: Sequence[str], no_plots: str = "") -> str:
    """`plots`: names of the files beside the report; `no_plots`: why there are none."""
    lines = ["# The sandbox: what it costs, and whether to enable it", "", *_decision(decision), ""]
    lines += [*_checks(results), "", *_overhead(results), "", *_projection(results)]
    if results.parallel:
        lines += ["", *_parallel(results.parallel)]
    lines += ["", "## Plots", "", *(f"![{name}]({name})" for name in plots)] if plots else ["", no_plots]
    lines += ["", "## How it was measured", "", *_settings(results)]
    return "\n".join(lines).rstrip() + "\n"


def summary(decision: Decision) -> str:
    """The decision in one line."""
    verb = "enable" if decision.enable else "do NOT enable"
    return f"{verb} the sandbox by default: {decision.passed} of {decision.checks} checks passed, {_cost(decision)}"


def _cost(decision: Decision) -> str:
    if decision.overhead is None or decision.judged_s is None:
        return f"no backtest of {rule.JUDGED_FROM_S:g} s or more was measured"
    return f"overhead {percent(decision.overhead)} of a backtest of {decision.judged_s:g} s"


def _decision(decision: Decision) -> Iterator[str]:
    yield f"**Decision: {summary(decision)}.**"
    yield ""
    yield "The rule: enable it if all checks pass and the overhead is below the bound."
    yield ""
    yield "| input | measured | bound | |"
    yield "|---|---:|---:|---|"
    functional = decision.passed == decision.checks > 0
    yield f"| checks passed | {decision.passed} of {decision.checks} | all | {_met(functional)} |"
    cost = "-" if decision.overhead is None else percent(decision.overhead)
    within = decision.overhead is not None and decision.overhead < rule.MAX_OVERHEAD
    length = "-" if decision.judged_s is None else f"{decision.judged_s:g} s"
    yield f"| overhead of a backtest of {length} | {cost} | below {percent(rule.MAX_OVERHEAD)} | {_met(within)} |"
    promise = f"at most {percent(rule.PROMISED_OVERHEAD)}, fallback {percent(rule.PROMISED_FALLBACK)}"
    yield f"| the same, against the project's promise | {cost} | {promise} | {_met(decision.keeps_promise)} |"
    yield f"| runs in the pool that ended ok, with the value of the other arms | {percent(decision.success)} | | |"
    yield f"| runs that the pool did not take: the fallback of a loop would | {percent(decision.fallback)} | | |"


def _met(met: object) -> str:
    return "met" if met else "NOT met"


def _checks(results: Results) -> Iterator[str]:
    yield from ("## Checks", "", "| the sandbox ... | |", "|---|---|")
    for check in results.checks:
        yield f"| {check.what} | {'passed' if check.passed else f'FAILED: {cell(check.seen)}'} |"


def _overhead(results: Results) -> Iterator[str]:
    yield from ("## Overhead", "")
    yield "Medians. The overhead is the caller's wall clock less the time that the backtest took by its own clock."
    yield ""
    yield "| backtest | way | ok | run | wall | overhead | p95 | of the run |"
    yield "|---:|---|---:|---:|---:|---:|---:|---:|"
    for case in results.cases:
        for name in ARMS:
            if name in case.samples:
                found = figures(case.samples[name])
                runs = len(case.samples[name])
                yield f"| {ms(case.seconds)} | {name} | {_row(found, runs)} |"


def _row(found: Figures | None, runs: int) -> str:
    if found is None:
        return f"0 of {runs} | | | | | "
    times = [ms(each) for each in (found.run_s, found.wall_s, found.overhead_s, found.overhead_p95_s)]
    return " | ".join([f"{found.ok} of {runs}", *times, percent(found.share)])


def _projection(results: Results) -> Iterator[str]:
    lengths = rule.PROJECTED_S
    yield from ("## Projection", "", "The median overhead of the longest backtest measured, as a share of others.", "")
    yield f"| way | {' | '.join(f'{each:g} s' for each in lengths)} |"
    yield f"|---|{'---:|' * len(lengths)}"
    for name in ARMS:
        shares = [projected(results, name, each) for each in lengths]
        if None not in shares:
            yield f"| {name} | {' | '.join(percent(each) for each in shares if each is not None)} |"


def _parallel(found: Sequence[Parallel]) -> Iterator[str]:
    yield from ("## Side by side", "", "The same backtests through the pool, with so many in flight.", "")
    yield "| backtest | jobs | in flight | wall | times faster than one at a time | work at once | failed |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for each in found:
        alone = next(other for other in found if other.seconds == each.seconds)
        faster, busy = alone.wall_s / each.wall_s, each.work_s / each.wall_s
        yield (
            f"| {ms(each.seconds)} | {each.jobs} | {each.at_once} | {ms(each.wall_s)} | {faster:.2f} | {busy:.2f} "
            f"| {each.failed} |"
        )
    yield ""
    yield "Work at once: the time that the backtests took by their own clocks, all together, for each second of wall."


def _settings(results: Results) -> Iterator[str]:
    yield from (f"- {name}: {cell(value)}" for name, value in results.settings.items())
    yield "- Each iteration runs every way once, in turns, so that all of them see the same machine."


def ms(seconds: float) -> str:
    """The time in milliseconds, or in seconds from 1 s on."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def percent(share: float) -> str:
    return f"{share * 100:.2g} %" if share < 0.1 else f"{share * 100:,.0f} %"


def cell(text: str) -> str:
    """Text of a job or a library, escaped for one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")[:300]

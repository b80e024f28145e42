"""`pool-admin report`: the figures, the rule, the document, and the command with a daemon of plain processes."""

import json
import re

import pytest

from pool import testing
from pool.cli import report as cli
from pool.client.sandbox import ExecutionResult
from pool.errors import PoolError
from pool.report import document, plots
from pool.report.arms import ColdContainer, InProcess, Sample, WarmPool
from pool.report.checks import Check
from pool.report.decision import Results, decide, figures, projected
from pool.report.measure import Case, Parallel, sweeps_for
from tests.support.process import python
from tools import promises

PASSED = [Check("a value comes back", passed=True)]


def samples(overhead_s, *, run_s=1.0, count=20, route="", sharpe=1.0):
    return [Sample(run_s + overhead_s, run_s, sharpe, route) for _ in range(count)]


def results(*, pool_s=0.005, seconds=1.0, checks=PASSED, route="pool", sharpe=1.0):
    case = Case(
        seconds,
        1000,
        {
            InProcess.name: samples(0.001, run_s=seconds),
            ColdContainer.name: samples(0.5, run_s=seconds),
            WarmPool.name: samples(pool_s, run_s=seconds, route=route, sharpe=sharpe),
        },
    )
    parallel = [Parallel(0.02, 16, 1, 0.4, 0.32), Parallel(0.02, 16, 2, 0.2, 0.32)]
    return Results(checks, [case], parallel, {"machine": "a | b\nc"})


def test_the_overhead_is_the_wall_clock_less_the_backtests_own_time():
    found = figures([Sample(1.01, 1.0, 1.0), Sample(2.04, 2.0, 1.0), Sample(1.03, 1.0, 1.0), Sample(9.0)])
    assert (found.runs, found.ok) == (4, 3)
    assert found.overhead_s == pytest.approx(0.03)
    assert found.overhead_p95_s == pytest.approx(0.04)
    assert found.share == pytest.approx(0.02)
    assert figures([Sample(1.0)]) is None


@pytest.mark.parametrize(
    ("changed", "enable", "keeps"),
    [
        ({}, True, True),
        ({"pool_s": 0.02}, True, False),
        ({"pool_s": 0.99}, True, False),
        ({"pool_s": 1.0}, False, False),
        ({"checks": [*PASSED, Check("memory is limited", passed=False)]}, False, True),
        ({"checks": []}, False, True),
        ({"seconds": 0.1}, False, False),
        ({"route": "fallback"}, True, False),
    ],
)
def test_the_rule_enables_for_passed_checks_and_less_than_all_the_run_time(changed, enable, keeps):
    decision = decide(results(**changed))
    assert (decision.enable, decision.keeps_promise) == (enable, keeps)


def test_runs_that_fail_or_disagree_are_no_success():
    assert decide(results()).success == 1.0
    assert decide(results(sharpe=1.5)).success == 0.0
    assert decide(results(sharpe=None)).success == 0.0
    assert decide(results(route="fallback")).fallback == 1.0
    assert decide(results(route="none")).fallback == 1.0


def test_the_projection_takes_the_overhead_of_the_longest_backtest():
    assert projected(results(pool_s=0.01), WarmPool.name, 5.0) == pytest.approx(0.002)
    assert projected(results(sharpe=None), WarmPool.name, 5.0) is None


def test_the_document_shows_inputs_bounds_and_what_failed():
    found = results(checks=[*PASSED, Check("memory is limited", passed=False, seen="ok: | all of it")])
    text = document.markdown(found, decide(found), plots=["overhead.png"])
    assert "**Decision: do NOT enable the sandbox by default: 1 of 2 checks passed, overhead 0.5 % of" in text
    assert "| overhead of a backtest of 1 s | 0.5 % | below 100 % | met |" in text
    assert "| memory is limited | FAILED: ok: \\| all of it |" in text
    assert "| 1.00 s | cold container | 20 of 20 | 1.00 s | 1.50 s | 500.0 ms | 500.0 ms | 50 % |" in text
    assert "| warm pool | 0.17 % | 0.12 % | 0.1 % |" in text
    assert "| 20.0 ms | 16 | 2 | 200.0 ms | 2.00 | 1.60 | 0 |" in text
    assert "![overhead.png](overhead.png)" in text
    assert "- machine: a \\| b c" in text
    for row in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        assert row.count("|") >= 3


def test_the_readme_quotes_the_decision_the_parallel_runs_and_the_machine_of_a_report():
    found = results()
    report = document.markdown(found, decide(found), plots=["overhead.png"])
    page = promises.render("before\n<!-- pool-admin report -->\nold\n<!-- end -->\nafter\n", report)
    assert page.startswith(
        "before\n<!-- pool-admin report -->\n\n**Decision: enable the sandbox by default: 1 of 1 checks"
    )
    assert page.endswith("\n\n<!-- end -->\nafter\n")
    assert "| the same, against the project's promise | 0.5 % | at most 1 %, fallback 0 % | met |" in page
    assert "| 20.0 ms | 16 | 2 | 200.0 ms | 2.00 | 1.60 | 0 |" in page
    assert "- machine: a \\| b c" in page
    assert "old" not in page
    assert "#" not in page
    assert promises.render(page, report) == page
    assert "**Decision" in promises.render(promises.README.read_text(), report)
    with pytest.raises(ValueError, match="this is no report"):
        promises.render(page, "# Another page")
    with pytest.raises(ValueError, match="has to have one block"):
        promises.render("no block", report)


def test_a_way_without_a_good_run_has_a_row_and_no_figures():
    found = results(sharpe=None)
    assert "| warm pool | 0 of 20 |" in document.markdown(found, decide(found), plots=[], no_plots="No plots.")


def test_the_plots_are_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    assert plots.draw(results(), tmp_path) == ["overhead.png", "parallel.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("overhead.png", "parallel.png"))


def test_the_backtest_takes_as_long_as_it_is_asked_to_and_has_one_value():
    here = InProcess()
    counts = sweeps_for([0.001, 0.1], here)
    assert 1 <= counts[0.001] <= counts[0.1]
    first, second = here.run(3), here.run(3)
    assert first.sharpe == second.sharpe
    assert 0 < first.run_s <= first.wall_s


class Limited:
    """A sandbox in which a backtest of more than one sweep meets its limit."""

    def execute(self, _code, arguments=(), **_):
        if len(arguments) == 2 and arguments[1] > 1:
            return ExecutionResult(success=False, error="it ran over its wall limit of 60 s")
        return ExecutionResult(success=True, value={"sharpe": 1.0, "run_s": 0.001})


def test_a_limit_of_the_pool_that_is_too_low_is_said_before_anything_is_measured():
    with pytest.raises(PoolError, match=r"a backtest of 60 s: it ran over its wall limit of 60 s; raise limits"):
        cli._measure(Limited(), [0.001, 60.0], iterations=1, image="", parallel=False)


@pytest.fixture(scope="module")
def endpoint():
    """Of a pool whose workers have imported what a backtest needs: each job would import it again."""
    with testing.daemon(preload={"modules": ["numpy", "pandas"]}) as it:
        yield it


def report(endpoint, out, *arguments):
    command = ["-m", "pool.cli.admin", "--run-dir", str(endpoint).removesuffix("/submit.sock")]
    return python(*command, "report", "--out", out, "--no-cold", *arguments, timeout=300)


def test_the_command_measures_a_pool_and_writes_the_report(endpoint, tmp_path):
    short = ["--iterations", "2", "--backtest", "0.003", "--no-parallel"]
    done = report(endpoint, tmp_path / "out", *short)
    written = (tmp_path / "out" / "report.md").read_text()
    assert done.returncode == 1, done.stderr  # no backtest of a second was asked for, so nothing is enabled
    assert "no backtest of 1 s or more was measured" in written
    assert written in done.stdout
    measured = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [each["what"] for each in measured["checks"] if not each["passed"]] == []
    assert measured["decision"]["fallback"] == 0.0
    assert measured["decision"]["success"] == 1.0
    assert len(measured["cases"][0]["samples"]["warm pool"]) == 2


def test_the_command_says_what_is_wrong_with_what_it_is_given(endpoint, tmp_path):
    assert "0 is not between 0.001 and 600" in report(endpoint, tmp_path, "--backtest", "0").stderr
    (tmp_path / "file").write_text("")
    assert "file/out: Not a directory" in report(endpoint, tmp_path / "file" / "out").stderr
    assert (
        "the pool cannot run the backtest: there is no pool 'none'"
        in report(endpoint, tmp_path / "out", "--pool", "none").stderr
    )

"""SandboxExecutor: with the fake daemon for the failures of a pool, and with a live one for strategies."""

import signal
import threading

import numpy as np
import pandas as pd
import pytest

from pool import JobResult, Outcome, SandboxExecutor, wire
from pool.errors import ConfigError, InvalidJobError
from pool.model import JobError
from pool.screen import check
from tests.support.daemons import DaemonProcess, pool_of
from tests.support.waiting import in_child
from tests.unit.fake_daemon import FakeDaemon

DOUBLE = "def main(x):\n    return x * 2"
POOL = pool_of(2, preload=["numpy", "pandas"], screen="standard", limits={"wall_s": 30, "memory": "512m"})
CLOSE = pd.Series(
    100 * np.cumprod(1 + 0.01 * np.sin(np.arange(300.0))), index=pd.bdate_range("2024-01-01", periods=300)
)
TREND = "def strategy(prices):\n    return (prices > prices.rolling(20).mean()).astype(float)"


OF_FRAME = TREND.replace(":", ":\n    prices = prices['close']", 1)


@pytest.fixture
def sandbox(daemon):
    with SandboxExecutor(daemon.endpoint, wait_s=10) as it:
        yield it


# ---- programs ----


def test_a_program_gets_its_inputs_by_name_or_in_order(sandbox):
    assert sandbox.execute(DOUBLE, {"x": 4}).value == 8
    assert sandbox.execute(DOUBLE, [4]).value == 8
    assert sandbox.execute("result = 3", entry=None).value == 3
    assert sandbox.execute(abs, [-2]).value == 2


def test_a_result_has_all_that_a_loop_wants_to_know(sandbox):
    result = sandbox.execute(DOUBLE, [4])
    assert (result.success, result.route, result.reasons, result.error) == (True, "pool", (), "")
    assert result.outcome is Outcome.OK


def test_a_program_that_fails_is_a_result_with_its_line(live):
    with SandboxExecutor(live.endpoint, wait_s=20) as sandbox:
        result = sandbox.execute("def main():\n    x = {}\n    return x['close']")
        assert (result.success, result.route, result.error) == (False, "pool", "KeyError: 'close' (line 3)")
        refused = sandbox.execute("import subprocess\ndef main(): ...")
        assert refused.outcome is Outcome.REJECTED
        assert "1:8 S101 this pool does not allow the module subprocess" in refused.error
        slow = sandbox.execute("def main():\n    while True: pass", timeout=0.3)
        assert (slow.outcome, "wall limit of 0.3 s" in slow.error) == (Outcome.TIMEOUT, True)
        graded = sandbox.execute(
            "def main(): return 3", grade="def grade(value): return {'score': value / 2, 'x': 'y'}"
        )
        assert (graded.success, graded.metrics) == (True, {"score": 1.5})
        ungraded = sandbox.execute("def main(): return 3", grade="def grade(value): return 1 / 0")
        assert (ungraded.success, ungraded.value) == (False, 3)
        assert "it was not graded: ZeroDivisionError" in ungraded.error


def test_bad_input_is_a_result_too(sandbox, daemon):
    result = sandbox.execute(DOUBLE, [object()])
    assert (result.success, result.outcome, result.route) == (False, Outcome.REJECTED, "none")
    assert "args[0]" in result.error
    assert not daemon.received


# ---- pools that cannot serve ----


def test_a_busy_pool_is_waited_for_and_the_result_says_so(sandbox, daemon):
    def react(call):
        if len(daemon.of(wire.Submit)) < 3:
            call.refuse("busy", "the backlog is full", retry_after_s=0.01)
        else:
            call.proceed()

    daemon.on(wire.Submit, react)
    result = sandbox.execute(DOUBLE, [4])
    assert (result.value, result.reasons) == (8, ("the backlog is full",))
    assert len({each.job_id for each in daemon.of(wire.Submit)}) == 1, "it is one job"


def test_a_pool_that_stays_busy_is_given_up_after_the_wait(daemon):
    daemon.on(wire.Submit, lambda call: call.refuse("draining", "the pool is draining", retry_after_s=0.05))
    with SandboxExecutor(daemon.endpoint, wait_s=0.3) as sandbox:
        result = sandbox.execute(DOUBLE, [4])
    assert (result.success, result.route, result.outcome) == (False, "none", None)
    assert (result.error, result.reasons) == ("the pool is draining", ("the pool is draining",))


def test_a_daemon_that_is_not_there_yet_is_waited_for(tmp_path):
    with SandboxExecutor(tmp_path / "s", wait_s=20) as sandbox:
        results = []
        thread = threading.Thread(target=lambda: results.append(sandbox.execute(DOUBLE, [4])))
        thread.start()
        with FakeDaemon(tmp_path / "s"):
            thread.join(120)
    assert results[0].value == 8


def test_without_a_daemon_the_result_says_what_to_do(tmp_path):
    with SandboxExecutor(tmp_path / "s", wait_s=0.1) as sandbox:
        result = sandbox.execute(DOUBLE, [4])
    assert (result.success, result.route) == (False, "none")
    assert "Start pool-daemon" in result.error


@pytest.mark.parametrize(("idempotent", "runs"), [(True, 2), (False, 1)])
def test_a_lost_program_runs_again_only_if_it_is_idempotent(sandbox, daemon, idempotent, runs):
    def react(call):
        if len(daemon.of(wire.Submit)) > 1:
            call.proceed()
            return
        call.answer(wire.Accepted(request=call.message.request, job_id=call.message.job_id))
        lost = wire.Result(job_id=call.message.job_id, outcome=Outcome.LOST, reason="its worker vanished")
        call.answer(lost, [b"", b"", b""])

    daemon.on(wire.Submit, react)
    result = sandbox.execute(DOUBLE, [4], idempotent=idempotent)
    assert len(daemon.of(wire.Submit)) == runs
    assert result.success is idempotent
    assert "its worker vanished" in (result.reasons[0] if idempotent else result.error)


def test_a_program_whose_daemon_was_killed_is_asked_for_and_not_sent_again(tmp_path):
    endpoint = tmp_path / "s"
    results = []
    with SandboxExecutor(endpoint, wait_s=30) as sandbox:
        with FakeDaemon(endpoint) as first:
            assert sandbox.execute(DOUBLE, [1]).value == 2
            first.on(wire.Submit, lambda call: None)
            thread = threading.Thread(target=lambda: results.append(sandbox.execute(DOUBLE, [4])))
            thread.start()
            first.wait_for(wire.Submit, 2)
        with FakeDaemon(endpoint, instance="two") as second:
            thread.join(120)
            assert not second.of(wire.Submit)
    assert (results[0].success, results[0].route) == (False, "none")
    assert "unknown" in results[0].error


def test_it_serves_threads_and_children_that_are_forked(sandbox):
    values = []
    threads = [threading.Thread(target=lambda n=n: values.append(sandbox.execute(DOUBLE, [n]).value)) for n in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(120)
    assert sorted(values) == [2 * n for n in range(8)]
    assert in_child(lambda: sandbox.execute(DOUBLE, [21]).value == 42) == 0


def test_an_endpoint_beside_a_client_is_refused(client):
    with pytest.raises(ConfigError):
        SandboxExecutor("/tmp/s", client=client)
    SandboxExecutor(client=client).close()
    assert client.run("result = 1").value == 1


# ---- strategies ----


@pytest.fixture(scope="module")
def live():
    with DaemonProcess({"default": POOL}) as running:
        yield running


@pytest.fixture(scope="module")
def strategies(live):
    with SandboxExecutor(live.endpoint, wait_s=20) as it:
        yield it


def test_a_strategy_has_positions_and_metrics(strategies):
    result = strategies.execute_strategy_safe(TREND, CLOSE)
    assert result.success, result.error
    assert list(result.metrics) == ["sharpe", "total_return", "cagr", "max_drawdown", "volatility", "trades"]
    assert result.value.index.equals(CLOSE.index)
    frame = pd.DataFrame({"close": CLOSE, "high": CLOSE})
    by_column = strategies.execute_strategy_safe(OF_FRAME, frame)
    assert by_column.metrics == result.metrics, by_column.error


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def strategy(p): return (p.shift(-1) > p).astype(float)", "the strategy looks ahead: its position at 2024-"),
        ("def strategy(p): return (p > p.mean()).astype(float)", "the strategy looks ahead"),
        ("def strategy(p): return p.rolling(20).mean() / p", "19 positions are nan, first at 2024-01-01"),
        ("def strategy(p): return p * 0 + 7", "the position at 2024-01-01 is 7"),
        ("def strategy(p): return [1.0]", "have the shape (1,), the prices have 300 rows"),
        ("def other(p): return p", "the code defines no function strategy(prices)"),
        ("def strategy(p):\n    return p['nope']", "KeyError: 'nope' (line 2)"),
        ("def strategy(p) return p", "SyntaxError"),
        ("import socket\ndef strategy(p): return p", "this pool does not allow the module socket"),
        ("def strategy(p): return object()", "the strategy returned object; return a Series, an array or a list"),
        ("def strategy(p): yield from p", "the strategy returned generator; return a Series, an array or a list"),
        ("def strategy(p): return {'a': 1}", "the strategy returned dict; return a Series, an array or a list"),
        ("def strategy(p):\n    while True: pass", "wall limit of 2 s"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_strategy_is_said_to_its_author(strategies, code, said):
    result = strategies.execute_strategy_safe(code, CLOSE, timeout=2)
    assert not result.success
    assert said in result.error
    assert not result.metrics


def test_an_error_in_the_call_of_a_strategy_names_no_line_that_its_code_does_not_have(strategies):
    error = strategies.execute_strategy_safe("def strategy(prices, volumes):\n    return prices", CLOSE).error
    assert error.startswith("TypeError: strategy() missing 1 required positional argument: 'volumes'; to find out")


def test_inputs_and_code_of_a_wrong_type_are_a_result_too(strategies):
    assert "args: it is of type DataFrame" in strategies.execute(DOUBLE, pd.DataFrame({"a": [1, 2]})).error
    assert "args: it is of type ndarray" in strategies.execute(DOUBLE, np.arange(2)).error
    assert "code: it is None; give source text" in strategies.execute_strategy_safe(None, CLOSE).error


def test_metrics_are_plain_numbers_also_where_the_grader_computes_with_numpy(strategies):
    grader = (
        "import numpy as np\ndef grade(x): return {'a': np.mean([x, 2]), 'b': np.int64(x), 'c': x, 'd': True, 'e': 'x'}"
    )
    result = strategies.execute(DOUBLE, [1], grade=grader)
    assert result.metrics == {"a": 2.0, "b": 2, "c": 2}, result
    assert {type(each) for each in result.metrics.values()} == {int, float}


def test_a_market_of_a_wrong_type_is_refused(strategies):
    with pytest.raises(InvalidJobError, match="market: it is of type dict"):
        strategies.execute_strategy_safe(TREND, CLOSE, market={"cost": 0.0})


def test_a_strategy_that_needs_more_prices_than_a_beginning_has_is_told_how_many_there_were(strategies):
    error = strategies.execute_strategy_safe("def strategy(p): return p * 0 if p.iloc[280] else p", CLOSE).error
    assert error.startswith("IndexError")
    assert "it ran with the first" in error


@pytest.mark.parametrize("first", [50, 150, 250])
def test_a_strategy_that_looks_ahead_in_a_part_of_the_prices_is_refused(strategies, first):
    code = f"def strategy(p):\n    q = (p.shift(-1) > 0).astype(float)\n    q.iloc[:{first}] = 0.0\n    return q"
    result = strategies.execute_strategy_safe(code, CLOSE)
    assert (result.success, result.error.partition(":")[0]) == (False, "the strategy looks ahead")


def test_a_strategy_that_prints_and_changes_its_input_is_judged_by_its_positions(strategies):
    code = "def strategy(p):\n    for _ in range(2000): print('x' * 1000)\n    q = p * 0\n    p[:] = 1e9\n    return q"
    result = strategies.execute_strategy_safe(code, CLOSE, timeout=30)
    assert (result.success, result.metrics["total_return"]) == (True, 0.0)
    assert result.job.truncated == ("stdout",)


def test_a_strategy_that_forges_the_metrics_changes_nothing(strategies):
    forging = f"""
import numpy as np, pandas as pd
np.cumprod = np.mean = lambda *_, **__: 99.0
def grade(*_): return {{"sharpe": 99.0}}
metrics = grade
{TREND}
"""
    forged = strategies.execute_strategy_safe(forging, CLOSE)
    assert forged.metrics == strategies.execute_strategy_safe(TREND, CLOSE).metrics


def test_data_that_cannot_be_used_is_not_sent(strategies):
    result = strategies.execute_strategy_safe(TREND, CLOSE.iloc[::-1])
    assert (result.success, result.route) == (False, "none")
    assert "are not in order" in result.error


def test_a_loop_goes_on_over_a_daemon_that_is_killed_and_started_again(tmp_path):
    one = {"default": POOL | {"preload": {"modules": []}}}
    first = DaemonProcess(one, home=tmp_path, durability="crash").start()
    try:
        with SandboxExecutor(first.endpoint, wait_s=60) as sandbox:
            assert sandbox.execute(DOUBLE, [1], idempotent=True).value == 2
            first.stop(signal.SIGKILL)
            results = []
            thread = threading.Thread(target=lambda: results.append(sandbox.execute(DOUBLE, [4], idempotent=True)))
            thread.start()
            with DaemonProcess(one, home=tmp_path, durability="crash"):
                thread.join(90)
    finally:
        first.stop(signal.SIGKILL)
    assert results, "it has ended"
    assert (results[0].success, results[0].value) == (True, 8)


# ---- in words ----

_IN_LINE_3 = 'Traceback:\n  File "<job>", line 9, in <module>\n  File "<job>", line 3, in f\n'


@pytest.mark.parametrize(
    ("outcome", "told", "explanation"),
    [
        ("ok", {"reason": "there is no value"}, ""),
        ("error", {"error": JobError(type="KeyError", message="'b'", traceback=_IN_LINE_3)}, "KeyError: 'b' (line 3)"),
        ("error", {"error": JobError(type="KeyError", message="", traceback=_IN_LINE_3)}, "KeyError (line 3)"),
        (
            "error",
            {
                "error": JobError(
                    type="SyntaxError", message="bad (<job>, line 3)", traceback=_IN_LINE_3.replace("Traceback:", "")
                )
            },
            "SyntaxError: bad (<job>, line 3)",
        ),
        ("rejected", {"findings": tuple(check("eval('1')"))}, str(check("eval('1')")[0])),
        ("rejected", {"reason": "it has cost 3 workers"}, "it has cost 3 workers"),
        ("rejected", {"error": JobError(type="ValueCodecError", message="args[0]")}, "ValueCodecError: args[0]"),
        ("timeout", {"reason": "it ran past its wall limit"}, "it ran past its wall limit"),
        ("crash", {}, "it ended crash"),
    ],
)
def test_a_result_explains_what_is_wrong_with_the_code(outcome, told, explanation):
    assert JobResult(job_id="1", outcome=Outcome(outcome), **told).explanation == explanation

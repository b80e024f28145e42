"""A loop whose pool cannot serve goes on in real local workers."""

import numpy as np
import pandas as pd
import pytest

from pool import Outcome, SandboxExecutor

CLOSE = pd.Series(
    100 * np.cumprod(1 + 0.01 * np.sin(np.arange(300.0))), index=pd.bdate_range("2024-01-01", periods=300)
)
TREND = "def strategy(prices):\n    return (prices > prices.rolling(20).mean()).astype(float)"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    with SandboxExecutor(tmp_path_factory.mktemp("none") / "s", wait_s=0.1, fallback="local") as it:
        result = it.execute("result = 1", entry=None)
        if "refuses a part of the lockdown" in result.error:
            pytest.skip(result.error)
        yield it


def test_programs_run_in_a_worker_that_is_kept(sandbox):
    results = [sandbox.execute("def main(x):\n    return x * 2", [n]) for n in range(3)]
    assert [each.value for each in results] == [0, 2, 4]
    assert {(each.route, each.job.fallback, each.job.start) for each in results} == {("fallback", True, "parked")}


def test_a_failure_there_is_that_of_the_program(sandbox):
    result = sandbox.execute("def main():\n    return {}['close']")
    assert (result.route, result.outcome, result.error) == ("fallback", Outcome.ERROR, "KeyError: 'close' (line 2)")
    refused = sandbox.execute("import subprocess\ndef main(): ...")
    assert (refused.route, refused.outcome) == ("fallback", Outcome.REJECTED)


def test_a_program_that_names_a_data_set_is_told_what_to_do(sandbox):
    result = sandbox.execute("def main():\n    return datasets['prices']")
    assert (result.route, result.outcome) == ("fallback", Outcome.ERROR)
    assert "no data set 'prices'" in result.error
    assert "The local engine has none: give arguments" in result.error


def test_a_strategy_has_positions_and_metrics_there(sandbox):
    result = sandbox.execute_strategy_safe(TREND, CLOSE, timeout=60)
    assert (result.success, result.route) == (True, "fallback"), result
    assert list(result.metrics) == ["sharpe", "total_return", "cagr", "max_drawdown", "volatility", "trades"]
    assert sandbox.stats().fallback == sandbox.stats().total

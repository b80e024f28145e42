"""pool.joblib, and the examples for the libraries that loops use, with a daemon whose workers are plain processes."""

import asyncio
import os
from importlib.util import find_spec

import pytest

from pool import Client, Limits, PoolExecutor, SandboxExecutor
from pool.errors import DaemonUnreachableError, InvalidJobError, JobOutcomeError
from tests.newcomer.place import blocks, promised
from tests.support.daemons import DaemonProcess

joblib = pytest.importorskip("joblib")
import pool.joblib  # noqa: E402

# The tests import what they need of these: it takes seconds, and all processes of a run import this file.
if missing := [name for name in ("sklearn", "deap", "optuna", "backtesting") if find_spec(name) is None]:
    pytest.skip(f"not installed: {', '.join(missing)}", allow_module_level=True)

#: These libraries take a minute to import on a busy machine.
PATIENCE_S = 600
PRELOAD = ["sklearn.model_selection", "sklearn.svm", "backtesting"]


@pytest.fixture(scope="module")
def endpoint():
    template = {
        "size": {"min": 1, "max": 1},
        "preload": {"modules": PRELOAD},
        "limits": {"wall_s": 120, "cpu_s": 120},
        "boot_timeout_s": 600,
        "screen": {"mode": "standard", "allow_modules": ["backtesting"]},
    }
    with DaemonProcess({"default": template}, wait_ready=False) as daemon:
        daemon.until(daemon._ready, PATIENCE_S)
        yield str(daemon.run_dir / "submit.sock")


@pytest.fixture(scope="module")
def client(endpoint):
    with Client(endpoint, timeout=60) as made:
        yield made


@pytest.fixture
def executor(client):
    with PoolExecutor(client=client, limits=Limits(wall_s=60)) as made:
        yield made


@pytest.fixture
def backend(client):
    with joblib.parallel_config(backend="pool", client=client):
        yield


def test_the_block_of_the_page_prints_what_stands_behind_it(endpoint, monkeypatch, capsys):
    monkeypatch.setenv("POOL_ENDPOINT", endpoint)
    (code,) = blocks("docs/frameworks.md", "python")
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == promised(code)


def test_a_grid_search_has_the_same_scores_in_the_pool(client):
    from examples import grid_search

    here, there = grid_search.search(), grid_search.main(client)
    for name in ("mean_test_score", "rank_test_score", "split0_test_score"):
        assert (here.cv_results_[name] == there.cv_results_[name]).all(), name
    assert there.best_params_ == here.best_params_


@pytest.mark.parametrize("jobs", [None, 1, 2, -1])
def test_a_parallel_call_runs_in_the_pool_and_keeps_the_order(backend, jobs):
    def task(n):
        return n, os.getpid()

    found = joblib.Parallel(n_jobs=jobs)(joblib.delayed(task)(n) for n in range(6))
    assert [n for n, _ in found] == list(range(6))
    assert os.getpid() not in {pid for _, pid in found}


def test_a_task_gets_more_data_than_code_may_have(backend):
    import numpy as np

    numbers = np.arange(300_000.0)
    assert joblib.Parallel()([joblib.delayed(np.sum)(numbers)] * 2) == [numbers.sum()] * 2


def test_a_task_that_fails_fails_the_call_with_its_own_exception(backend):
    with pytest.raises(ZeroDivisionError) as caught:
        joblib.Parallel()(joblib.delayed(lambda x: 1 / x)(n) for n in range(4))
    assert isinstance(caught.value, JobOutcomeError)


def test_what_cannot_be_sent_or_carried_fails_the_call(backend):
    import threading

    with pytest.raises(InvalidJobError, match="cannot be pickled"):
        joblib.Parallel()([joblib.delayed(print)(threading.Lock())] * 2)
    with pytest.raises(JobOutcomeError, match="this type cannot be carried"):
        joblib.Parallel()([joblib.delayed(object)()] * 2)


def test_parallel_calls_within_a_task_stay_in_its_job(backend):
    def outer(n):
        inner = joblib.Parallel(n_jobs=2)(joblib.delayed(lambda k: (k, os.getpid()))(k) for k in range(3))
        return n, len({pid for _, pid in inner} | {os.getpid()})

    assert joblib.Parallel(n_jobs=2)(joblib.delayed(outer)(n) for n in range(2)) == [(0, 1), (1, 1)]


def test_no_jobs_and_no_daemon_are_errors(endpoint, tmp_path):
    with joblib.parallel_config(backend="pool", endpoint=endpoint), pytest.raises(ValueError, match="0 runs no job"):
        joblib.Parallel(n_jobs=0)([joblib.delayed(len)("a")] * 2)
    absent = joblib.parallel_config(backend="pool", endpoint=str(tmp_path / "none"))
    with absent, pytest.raises(DaemonUnreachableError):
        joblib.Parallel()([joblib.delayed(len)("a")] * 2)


def test_deap_scores_its_individuals_in_the_pool(executor):
    from examples import deap_search

    once, again = (deap_search.search(executor, population=16, generations=3) for _ in range(2))
    assert list(once) == list(again)
    assert once.fitness.values == deap_search.evaluate(list(once))


def test_optuna_is_told_what_the_pool_has_found(executor):
    from examples import optuna_search

    study = optuna_search.search(executor, trials=12)
    assert len(study.trials) == 12
    for trial in study.trials:
        if trial.params["x"] < -9:
            assert trial.state.name == "FAIL"
        else:
            assert trial.value == optuna_search.objective(trial.params)


def test_asyncio_gathers_results_in_order(endpoint):
    from examples import gather

    results = asyncio.run(gather.scores([90, 97, 100], endpoint))
    assert [each.value for each in results] == [10, 0, 7]


def test_a_strategy_of_backtesting_is_graded_from_its_trades(client):
    from examples import backtesting_strategy

    with SandboxExecutor(client=client) as sandbox:
        honest = backtesting_strategy.evaluate(sandbox, backtesting_strategy.CANDIDATE)
        assert honest.success, honest.error
        assert honest.metrics["trades"] > 3
        forged = backtesting_strategy.CANDIDATE + "\nclass Backtest: ...\ndef grade(*_): return {'profit': 1e9}\n"
        assert backtesting_strategy.evaluate(sandbox, forged).metrics == honest.metrics
        outside = "\nimport pandas as pd\ndef trades(prices): return pd.DataFrame({'Size': [1], 'EntryBar': [0], 'ExitBar': [999]})"
        found = sandbox.execute(
            outside,
            [backtesting_strategy.prices_of()],
            entry="trades",
            grade=backtesting_strategy.GRADER,
            grade_args=[backtesting_strategy.prices_of()],
        )
        assert "a trade lies outside of the prices" in found.error
        broken = backtesting_strategy.evaluate(sandbox, "class Other: pass")
        assert "Candidate" in broken.error
    assert pool.joblib.PoolBackend.default_n_jobs == -1

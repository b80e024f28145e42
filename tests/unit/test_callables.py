"""Callables as jobs, with a real daemon whose workers are plain processes."""

import sys
import textwrap

import numpy as np
import pytest

import pool
from pool.client import PoolExecutor
from pool.errors import PoolError
from tests.support.daemons import DaemonProcess


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    prices = tmp_path_factory.mktemp("data") / "prices.npy"
    np.save(prices, np.arange(6.0).reshape(3, 2))
    template = {
        "size": {"min": 1, "max": 1},
        "limits": {"wall_s": 20},
        "preload": {"modules": [], "datasets": {"prices": str(prices)}},
    }
    with DaemonProcess({"default": template}) as daemon, daemon.client(timeout=60) as it:
        yield it


def test_a_callable_finds_the_data_sets_by_their_name_as_source_text_does(client):
    assert client.run("result = datasets['prices'].shape").value == (3, 2)
    assert client.run(lambda: datasets["prices"].shape).value == (3, 2)  # noqa: F821 - a name of the job
    with PoolExecutor(client=client) as executor:
        assert list(executor.map(lambda n: float(datasets["prices"][n, 0]), range(3))) == [0, 2, 4]  # noqa: F821


def test_a_function_of_another_module_finds_them_too_and_as_pool_datasets(client, tmp_path, monkeypatch):
    source = """
        import pool
        from pool import datasets as named
        def plain(): return datasets["prices"].shape
        def linted(): return pool.datasets()["prices"].shape
        def imported(): return named()["prices"].shape
    """
    (tmp_path / "strategy_with_data.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    import strategy_with_data

    try:
        for function in (strategy_with_data.plain, strategy_with_data.linted, strategy_with_data.imported):
            result = client.run(function)
            assert result.value == (3, 2), result
    finally:
        del sys.modules["strategy_with_data"]


def test_a_variable_of_the_users_own_with_that_name_is_left_alone(client):
    datasets = {"mine": 1}
    assert client.run(lambda: datasets["mine"]).value == 1


def test_a_data_set_that_is_not_there_is_an_error_that_names_those_there_are(client):
    for code in ("datasets['price']", lambda: datasets["price"]):  # noqa: F821 - a name of the job
        error = client.run(code).error
        assert error.type == "KeyError"
        assert "no data set 'price'" in error.message
        assert "prices" in error.message.partition("there are")[2]


def test_outside_of_a_job_pool_datasets_says_that_it_is_for_jobs():
    with pytest.raises(PoolError, match="run as a job"):
        pool.datasets()

"""Fixtures of the client's tests: the fake daemon and a client of it. A module that needs other ones has its own."""

import os

import pytest

from pool import Client, PoolExecutor
from tests.unit.fake_daemon import FakeDaemon


@pytest.fixture
def path(tmp_path):
    """The socket of the fake daemon, which a test of faults starts and ends by itself."""
    return tmp_path / "s"


@pytest.fixture
def daemon(path):
    with FakeDaemon(path) as daemon:
        yield daemon


@pytest.fixture
def client(daemon):
    with Client(daemon.endpoint, timeout=60) as client:
        yield client


@pytest.fixture
def executor(daemon):
    with PoolExecutor(daemon.endpoint) as executor:
        yield executor
        executor.shutdown(cancel_futures=True)


@pytest.fixture(autouse=True)
def no_pool_in_the_environment(monkeypatch):
    """No test depends on the variables of a daemon that the user of this host has."""
    for name in [name for name in os.environ if name.startswith("POOL_")]:
        monkeypatch.delenv(name)

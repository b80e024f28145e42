"""Fixtures of the client's tests: the fake daemon and a client of it. A module that needs other ones has its own."""

from __future__ import annotations

import pytest

from pool import Client
from tests.unit.fake_daemon import FakeDaemon


@pytest.fixture
def daemon(tmp_path):
    with FakeDaemon(tmp_path / "s") as daemon:
        yield daemon


@pytest.fixture
def client(daemon):
    with Client(daemon.endpoint, timeout=60) as client:
        yield client

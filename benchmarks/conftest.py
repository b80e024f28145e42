"""What the benchmarks share: one daemon and one client for all of them."""

from collections.abc import Iterator

import pytest

from benchmarks.daemon import Daemon, started
from pool import Client


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    with started() as running:
        yield running


@pytest.fixture(scope="session")
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.endpoint) as opened:
        yield opened

"""Fixtures for tests of code that uses a pool: `pytest_plugins = ["pool.pytest_plugin"]` in a test module.

The daemon and the runner are the real ones; the workers are plain processes, so neither Docker nor an image is needed.
They isolate NOTHING: a test's code has all rights of the user.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pool.client import Client
from pool.testing import daemon


@pytest.fixture(scope="session")
def pool_endpoint() -> Iterator[str]:
    """The endpoint of a daemon with the pool `default`, for the whole test session."""
    with daemon() as endpoint:
        yield endpoint


@pytest.fixture
def pool_client(pool_endpoint: str) -> Iterator[Client]:
    with Client(pool_endpoint, timeout=60) as client:
        yield client

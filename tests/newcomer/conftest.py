"""One empty environment for all pages."""

from __future__ import annotations

import pytest

from tests.newcomer import place as newcomer


@pytest.fixture(scope="session")
def place():
    with newcomer.place() as it:
        yield it

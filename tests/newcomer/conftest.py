"""One empty environment for all pages."""

import pytest

from tests.newcomer import place as newcomer


@pytest.fixture(scope="session")
def place():
    with newcomer.place() as it:
        yield it

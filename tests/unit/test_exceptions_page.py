"""The guide lists every exception."""

import re
from pathlib import Path

from pool import errors

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


def test_the_guide_lists_every_exception_of_the_tree_and_no_other():
    kinds = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.PoolError)
    }
    table = PAGE.read_text().partition("## Exceptions")[2]
    listed = {name for line in table.splitlines() for name in re.findall(r"`(\w+Error)`", line)}
    assert listed - {"TimeoutError"} == kinds


def test_the_client_offers_its_exceptions_under_the_same_names():
    import pool.client

    for name in ("BatchError", "ExecutorClosedError", "JobOutcomeError"):
        assert getattr(pool.client, name) is getattr(errors, name)

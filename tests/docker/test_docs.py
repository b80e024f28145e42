"""The code in the documentation runs, against a real pool, and prints what its comments say."""

import contextlib
import io

import numpy as np
import pytest

from tests.newcomer.place import blocks, promised
from tests.support.daemons import DaemonProcess

TEMPLATE = {
    "size": {"min": 1, "max": 2},
    "recycle": {"max_jobs": 1000},
    "preload": {"modules": ["numpy", "pandas"]},
    "limits": {"wall_s": 30, "cpu_s": 30, "memory": "512m"},
    "screen": "standard",
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    prices = tmp_path_factory.mktemp("data") / "prices.npy"
    np.save(prices, np.linspace(1.0, 2.0, 1001))
    preload = {"modules": ["numpy", "pandas"], "datasets": {"prices": str(prices)}}
    pools = {"default": TEMPLATE | {"preload": preload}, "unscreened": TEMPLATE | {"screen": "off"}}
    with DaemonProcess(pools, engine="docker") as running:
        yield running


@pytest.mark.parametrize("page", ["docs/jobs.md", "docs/strategies.md"])
def test_every_block_of_the_guide_prints_what_stands_behind_it(pool, monkeypatch, page):
    monkeypatch.setenv("POOL_ENDPOINT", pool.endpoint)
    scope = {"__name__": "guide"}
    found = blocks(page, "python")
    assert len(found) > 1
    for code in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), scope)
        assert printed.getvalue().splitlines() == promised(code)

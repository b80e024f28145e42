"""`pool-admin advise`, against a daemon whose workers are plain processes."""

import json

import pytest
from typer.testing import CliRunner

from pool.cli.admin import app
from tests.support.daemons import DaemonProcess, pool_of

POOL = pool_of(1, 2)
JOBS = 12


@pytest.fixture(scope="module")
def daemon():
    with DaemonProcess({"default": POOL, "unused": POOL}) as running:
        with running.client(timeout=60) as client:
            assert all(
                each.ok for each in client.map("def main(x):\n    return x", [[n] for n in range(JOBS)], entry="main")
            )
        yield running


def advise(daemon, *arguments):
    return CliRunner().invoke(app, ["--run-dir", str(daemon.run_dir), "advise", *arguments])


def test_it_shows_hits_wait_and_memory_of_each_size(daemon):
    told = advise(daemon)
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    assert lines[0].split() == ["WORKERS", "HITS", "WAIT", "p95", "MEMORY"]
    assert lines[1].split()[0] == "1"
    assert lines[-1].startswith(f"{JOBS} jobs, ")


def test_a_larger_pool_has_no_fewer_hits_and_more_memory(daemon):
    found = json.loads(advise(daemon, "--json").stdout)
    assert found["jobs"] == JOBS
    rates = [each["hit_rate"] for each in found["sizes"]]
    assert [each["size"] for each in found["sizes"]] == list(range(1, len(rates) + 1))
    assert rates[-1] >= rates[0]
    memory = [each["memory_bytes"] for each in found["sizes"]]
    assert memory == sorted(memory)
    assert found["spare"] >= 1


def test_it_is_plotted_where_matplotlib_is_installed_and_else_the_error_says_so(daemon, tmp_path):
    told = advise(daemon, "--plot", str(tmp_path / "advice.png"))
    if told.exit_code == 0:
        assert (tmp_path / "advice.png").read_bytes().startswith(b"\x89PNG")
    else:
        assert "needs matplotlib" in told.stderr


@pytest.mark.parametrize(("pool", "words"), [("unused", "has run no job"), ("other", "the pools are: default, unused")])
def test_a_pool_without_jobs_and_one_that_is_not_there_are_told(daemon, pool, words):
    told = advise(daemon, "--pool", pool)
    assert told.exit_code == 1
    assert words in told.stderr

"""The end of a job and its reason, as its client sees them; workers are plain processes."""

import pytest

from pool.model import Outcome
from tests.support.daemons import module_daemon, pool_of

daemon = module_daemon({"default": pool_of(1, limits={"wall_s": 20})})


def inner(x):
    return 1 / x


def outer(x):
    return inner(x)


def test_the_traceback_of_a_function_has_its_own_lines(client):
    told = client.run(outer, args=[0]).error.traceback
    assert "return inner(x)" in told
    assert "return 1 / x" in told
    assert "execution.py" not in told


@pytest.mark.parametrize("odd", ["\x0c", "\x1c", "\u2028", "\x85"])
def test_lines_are_counted_as_python_counts_them(client, odd):
    told = client.run(f"x = '''a{odd}b'''\n1 / 0\n").error.traceback
    assert "line 2, in <module>\n    1 / 0\n" in told


def test_a_system_call_that_finds_no_memory_ends_memory(client):
    result = client.run("raise OSError(12, 'Cannot allocate memory')")
    assert (result.outcome, result.error.type) == (Outcome.MEMORY, "OSError")


def test_a_process_of_a_job_that_runs_out_of_memory_says_so(client):
    result = client.run("import os\nif os.fork() == 0: raise MemoryError\nresult = os.wait()[1] >> 8")
    assert (result.value, "MemoryError" in result.stderr) == (1, True)

"""No residue: whatever a job leaves, the next job of the same worker sees what it would have seen without it.

The probe returns all that a job can observe; it is taken once in the untouched worker, and again after each attempt.
"""

import os

import pytest

from tests.hostile.alone import settled
from tests.hostile.payloads.leavings import LEAVINGS, PROBE

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def untouched(alone):
    """What an honest job sees after an honest job. Both have a child before them, as all that follow."""
    alone.honest()
    first = probe(alone)
    second = probe(alone)
    assert first.value == second.value, "the probe itself must be repeatable"
    return second


def probe(alone):
    result = alone.run(PROBE)
    assert result.ok, result
    return result


@pytest.mark.parametrize("leaving", LEAVINGS, ids=lambda each: f"{each.number}-{each.title}".replace(" ", "_"))
def test_the_next_job_sees_nothing_of_it(alone, untouched, record, leaving):
    replaced = alone.recycles("dirty")
    dirty = alone.run(leaving.code, limits={"wall_s": 20 if "timeout" not in leaving.outcomes else 1})
    assert dirty.outcome in leaving.outcomes, (dirty.reason, dirty.error)
    assert dirty.value in (1, None), "it has done its worst"
    after = probe(alone)
    changed = {
        name: (value, after.value[name]) for name, value in untouched.value.items() if after.value[name] != value
    }
    assert changed == {}
    assert after.stdout == after.stderr == ""
    assert dirty.worker == after.worker, "it was clean, so there was no reason to replace it"
    assert alone.recycles("dirty") == replaced
    if os.geteuid() == 0:
        assert settled(alone, lambda view: len(view.others) == 2 and not view.zombies()), (
            "the parked child and its init"
        )
    record(
        leaving.number,
        leaving.title,
        "INERT",
        stopped_by=leaving.stopped_by,
        seen=f"{dirty.outcome}; same worker, same view",
    )


@pytest.mark.parametrize(
    ("at", "names"),
    [
        (0, ("environment", "directory", "umask", "warnings", "numpy", "pandas", "decimal", "path")),
        (1, ("interpreter", "collector")),
    ],
    ids=["state", "interpreter"],
)
def test_the_probe_sees_what_is_left_where_nothing_holds_it(outside, at, names):
    """In one process, as in a worker without a fork for each job, what the first does is there for the second."""
    code = PROBE.replace("def main(", "def probe(") + """
import json
def main(dirty):
    os.environ.setdefault("HOME", "/tmp")
    before = probe()
    scope = {"__name__": "job"}
    exec(dirty, scope)
    scope["main"]()
    after = probe()
    return sorted(name for name in before if before[name] != after[name])
"""  # fmt: skip
    state = [each for each in LEAVINGS if each.number == "D8"][at]
    if "numpy" not in outside("import numpy, pandas\ndef main():\n    return 'numpy'").value:
        pytest.skip("numpy and pandas are not installed here")
    seen = outside(code, state.code)
    assert seen.error == "", seen
    for name in names:
        assert name in seen.value, (name, seen)


def test_the_flags_locks_and_times_of_a_file_outlive_a_process_that_shares_its_open_file(outside):
    code = """
import fcntl, os
def look(path):
    with open(path) as file:
        try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError: return fcntl.fcntl(0, fcntl.F_GETFL), False, os.stat(path).st_mtime_ns
        return fcntl.fcntl(0, fcntl.F_GETFL), True, os.stat(path).st_mtime_ns
def main():
    with open("shared", "w+") as file: os.dup2(file.fileno(), 0)
    os.utime("shared", (1, 1))
    before = look("shared")
    if os.fork() == 0:
        fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK); fcntl.flock(0, fcntl.LOCK_EX); os.utime("shared")
        os._exit(0)
    os.wait()
    return [one != other for one, other in zip(before, look("shared"))]
"""
    assert outside(code).value == "[True, True, True]"


def test_the_next_pipes_of_a_user_with_many_are_small(outside):
    leaving = next(each for each in LEAVINGS if "so many pipes" in each.title)
    assert outside(leaving.code, user=65533).value == "1"


def test_jobs_that_follow_a_hundred_dirty_ones_are_right(alone, untouched, record):
    quick = [
        each
        for each in LEAVINGS
        if each.number in {"D5", "D8", "D9", "D10", "D14", "D15", "D24"} and "used up" not in each.title
    ]
    for turn in range(100):
        alone.run(quick[turn % len(quick)].code)
    after = probe(alone)
    assert after.value == untouched.value
    assert after.worker == untouched.worker
    record(
        "D5",
        "a hundred dirty jobs in one worker",
        "INERT",
        stopped_by=["namespaces", "runner"],
        seen="same worker, same view",
    )

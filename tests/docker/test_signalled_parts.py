"""Each process of a worker is killed or stopped, without a job and during one: the job's outcome, and who serves next."""

import os
import signal
from pathlib import Path

import pytest

from pool.model import Limits
from tests.hostile.alone import View, one_worker, only_root, settled

pytestmark = only_root

STOP, KILL = signal.SIGSTOP, signal.SIGKILL
ONE = "def main():\n    return 1"
RUNS = "import time\nprint(1, flush=True)\ntime.sleep(1)\nresult = 1"
#: Which process, the signal, and how a job ends that it is about. A stopped init is not needed by a job.
PARTS = [
    ("child", STOP, {"timeout"}),
    ("child", KILL, {"crash"}),
    ("init", STOP, {"ok"}),
    ("init", KILL, {"crash"}),
    ("shim", KILL, {"lost", "ok"}),
]
EACH = pytest.mark.parametrize(("name", "number", "outcomes"), PARTS, ids=[f"{it[0]}-{it[1].name}" for it in PARTS])


@pytest.fixture(scope="module")
def alone():
    with one_worker() as it:
        yield it


def part(view, name):
    """The pid on the host."""
    if name == "shim":
        return _shim(view.container)
    numbers = {_inner(pid): pid for pid in view.others}
    return numbers[1] if name == "init" else next(pid for number, pid in numbers.items() if number != 1)


def _inner(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])


def _shim(container):
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except (FileNotFoundError, ProcessLookupError):
            continue
        if container.encode() in words and b"containerd-shim" in words[0]:
            return int(entry.name)
    pytest.skip("workers have no containerd-shim")


def await_end(alone, name, view):
    """The Engine ends a container without a shim some time later, perhaps during the next job."""
    if name == "shim":
        alone.daemon.until(lambda: view.container not in {each["container"] for each in alone.daemon.workers()})


def idle(alone):
    alone.honest()
    assert settled(alone, lambda view: len(view.others) == 2), "the parked child and its init"
    return View(alone.rest()["container"])


@EACH
def test_a_worker_of_which_a_process_was_signalled_without_a_job_serves_or_is_replaced(alone, name, number, outcomes):
    view = idle(alone)
    os.kill(part(view, name), number)
    result = alone.client.run(ONE, entry="main", limits=Limits(wall_s=10))
    assert result.outcome in outcomes | {"ok"}, result
    assert result.value == (1 if result.ok else None)
    await_end(alone, name, view)
    alone.honest()


@EACH
def test_a_job_of_which_a_process_was_signalled_has_one_end_and_leaves_nothing(alone, name, number, outcomes):
    view = idle(alone)
    job = alone.client.submit(RUNS, limits=Limits(wall_s=10))
    next(alone.client.stream(job, timeout=60))
    os.kill(part(view, name), number)  # of what was parked, and runs now
    result = alone.client.result(job, timeout=60)
    assert result.outcome in outcomes, result
    assert alone.client.result(job, timeout=60).outcome == result.outcome
    await_end(alone, name, view)
    alone.honest()
    assert settled(alone, lambda after: len(after.others) == 2 and not after.zombies())
    assert not set(view.others) & set(View(alone.rest()["container"]).others)

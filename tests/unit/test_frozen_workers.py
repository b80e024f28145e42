"""A frozen process is told from one that waits for a core, and a worker is given up only after several looks."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from pool.core.events import WorkerFrozen
from pool.daemon.frozen_workers import LOOKS, FrozenWorkers, freezer_of, why_frozen


@pytest.fixture
def process():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child.pid
        child.kill()


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def go_on(pid):
    os.kill(pid, signal.SIGCONT)
    os.waitpid(pid, os.WCONTINUED)


class Pool:
    """With one worker."""

    def __init__(self, pid):
        self.events = []
        self.handles = {"p-1": SimpleNamespace(id="p-1", pid=pid, log=structlog.get_logger())}

    def apply(self, event):
        self.events.append(event)


def test_a_stopped_process_is_told_from_one_that_waits(process):
    assert why_frozen(process, None) == ""
    stop(process)
    assert "signal" in why_frozen(process, None)
    go_on(process)
    assert why_frozen(process, None) == ""


def test_of_a_process_that_is_gone_nothing_is_said():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert freezer_of(child.pid) is None
    assert why_frozen(child.pid, None) == ""


@pytest.mark.parametrize(
    ("name", "frozen", "thawed"),
    [
        ("cgroup.events", "populated 1\nfrozen 1\n", "populated 1\nfrozen 0\n"),
        ("freezer.state", "FROZEN\n", "THAWED\n"),
    ],
    ids=["v2", "v1"],
)
def test_a_frozen_control_group_is_seen(tmp_path, name, frozen, thawed):
    freezer = tmp_path / name
    freezer.write_text(frozen)
    assert "docker pause" in why_frozen(os.getpid(), freezer)
    freezer.write_text(thawed)
    assert why_frozen(os.getpid(), freezer) == ""
    freezer.unlink()
    assert why_frozen(os.getpid(), freezer) == ""


def test_the_file_of_a_control_group_is_found_where_the_kernel_says(tmp_path):
    paths = dict(line.strip().split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    controller = next((name for name in paths if "freezer" in name.split(",")), "")
    place = tmp_path / controller / paths[controller].lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    file = place / ("freezer.state" if controller else "cgroup.events")
    assert freezer_of(os.getpid(), cgroups=tmp_path) is None
    file.touch()
    assert freezer_of(os.getpid(), cgroups=tmp_path) == file


def test_a_worker_is_given_up_once_after_several_looks_in_a_row(process):
    pool = Pool(process)
    looks = FrozenWorkers({"p": pool})
    stop(process)
    for _ in range(LOOKS - 1):
        looks.look()
    go_on(process)
    looks.look()
    assert pool.events == []
    stop(process)
    for _ in range(LOOKS - 1):
        looks.look()
    assert pool.events == []
    for _ in range(3):
        looks.look()
    (event,) = pool.events
    assert isinstance(event, WorkerFrozen)
    assert event.worker_id == "p-1"

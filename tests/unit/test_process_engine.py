"""The engine of plain processes that is shipped for tests: what it keeps and removes of killed daemons."""

import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from pool import sources
from pool.assets import runner_tree
from pool.errors import StartError
from pool.testing import ProcessEngine
from tests.support.worker_spec import SPEC


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def launched_by_a_killed_daemon(directory):
    """The scratch directory of its worker, which has ended too; as old as `find` of another daemon may know it."""
    program = (
        "import sys, time; from pool.testing import ProcessEngine; from tests.support.worker_spec import SPEC\n"
        "engine = ProcessEngine(); engine.start = 'import time; time.sleep(600)'\n"
        "print(engine.launch(SPEC).pid(), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(directory)}) as daemon:
        worker = int(daemon.stdout.readline())
        daemon.kill()
    (scratch,) = directory.glob("pool-scratch-*")
    return worker, scratch


def test_the_scratch_directory_of_a_killed_daemons_worker_is_removed_once_the_worker_has_ended(temporary):
    worker, scratch = launched_by_a_killed_daemon(temporary)
    long_ago = time.time() - 3600
    os.utime(scratch / "note", (long_ago, long_ago))
    assert [found.running for found in ProcessEngine().find(owner=SPEC.owner)] == [True]
    os.kill(worker, signal.SIGKILL)
    while scratch.exists():  # until it has been waited for by whoever has inherited it
        ProcessEngine()
    assert ProcessEngine().find(owner=SPEC.owner) == []


def test_a_worker_that_has_just_ended_is_still_found_by_the_next_daemon(temporary):
    worker, scratch = launched_by_a_killed_daemon(temporary)
    os.kill(worker, signal.SIGKILL)
    (found,) = ProcessEngine().find(owner=SPEC.owner)
    found.container.kill()
    assert not scratch.exists()
    assert ProcessEngine().find(owner="somebody-else") == []


def test_all_engines_of_a_user_share_one_tree_whose_content_is_right(temporary):
    first = ProcessEngine().tree
    (first / "runner" / "main.py").write_text("changed")
    (first / "runner" / "more.py").write_text("")
    assert ProcessEngine().tree == first
    assert sources.digest(sources.read_tree(first)) == sources.digest(runner_tree())
    assert list(first.parent.iterdir()) == [first]
    assert list(temporary.iterdir()) == [first.parent]


def test_engines_that_start_at_once_find_a_whole_tree(temporary):
    program = (
        "from pool import sources, testing; print(sources.digest(sources.read_tree(testing.ProcessEngine().tree)))"
    )
    for number in range(4):
        directory = temporary / str(number)
        directory.mkdir()
        environment = os.environ | {"TMPDIR": str(directory)}
        command = [sys.executable, "-c", program]
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(6)]
        found = {each.communicate()[0].decode().strip() for each in started}
        assert found == {sources.digest(runner_tree())}


def test_a_tree_that_nobody_has_used_for_long_is_removed(temporary):
    tree = ProcessEngine().tree
    old = tree.with_name("old")
    old.mkdir()
    os.utime(old, (0, 0))
    assert ProcessEngine().tree == tree
    assert not old.exists()


def test_what_is_no_directory_of_ours_is_refused(temporary):
    (temporary / f"pool-trees-{os.geteuid()}").symlink_to(temporary)
    with pytest.raises(StartError, match="is not this user's directory"):
        ProcessEngine()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_tree_of_another_user_is_refused(temporary):
    tree = ProcessEngine().tree
    os.chown(tree.parent, 65534, 65534)
    with pytest.raises(StartError, match="belongs to another user"):
        ProcessEngine()

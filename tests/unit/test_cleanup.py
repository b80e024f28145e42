"""All that a job leaves behind is removed, whatever its name and depth."""

import os
from pathlib import Path

import pytest
from runner import cleanup

from pool.daemon.metrics import RESIDUE
from tests.support.process import python

ROOT = Path(__file__).parents[2]


def test_a_scratch_directory_is_emptied_of_every_kind_of_file(tmp_path):
    (tmp_path / "plain").write_text("x")
    (tmp_path / "-rf").write_text("x")
    (tmp_path / "new\nline").write_text("x")
    os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe")
    (tmp_path / "dangling").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "inner").mkdir()
    (tmp_path / "closed" / "inner" / "file").write_text("x")
    (tmp_path / "closed" / "inner").chmod(0)
    (tmp_path / "closed").chmod(0)
    assert cleanup.empty(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_what_a_link_points_to_stays(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "link").symlink_to(outside)
    assert cleanup.empty(scratch) == ""
    assert (outside / "kept").exists()


def test_a_tree_deeper_than_any_path_is_removed(tmp_path):
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    assert cleanup.empty(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_is_said(tmp_path):
    assert "No such file" in cleanup.empty(tmp_path / "absent")


RUNNER = """
import ctypes, os, subprocess, sys, time
sys.path.insert(0, "worker_image")
from pool.daemon.metrics import RESIDUE
from runner import cleanup
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER, as the runner's main does
own = subprocess.Popen(["sleep", "60"])
nested = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
stray = subprocess.Popen([sys.executable, "-c", nested], start_new_session=True)
while len(list(cleanup.descendants(os.getpid()))) < 3:
    time.sleep(0.01)
below = [pid for pid in cleanup.descendants(os.getpid()) if pid != own.pid]
said = cleanup.kill_strays({own.pid})
left = [pid for pid in below if os.path.exists(f"/proc/{pid}")]
print(len(below), repr(said), left, own.poll())
own.kill()
"""


def test_strays_are_gone_when_the_sweep_returns_and_the_workers_own_processes_stay():
    done = python("-c", RUNNER, cwd=ROOT)
    assert done.stdout.strip() == "2 '' [] None", done.stderr


@pytest.mark.parametrize(
    ("pid", "processes", "walks"),
    [(1, "1 7 8", False), (1, "1 7", False), (1, "1 7 8 9", True), (5, "1 5 7 8", True)],
    ids=["its own only", "one has ended", "one more", "not process 1"],
)
def test_a_worker_looks_for_strays_below_it_unless_its_own_proc_has_none(monkeypatch, pid, processes, walks):
    walked = []
    with monkeypatch.context() as patch:
        patch.setattr(cleanup.os, "getpid", lambda: pid)
        patch.setattr(cleanup.os, "listdir", lambda _: [*processes.split(), "self", "sys"])
        patch.setattr(cleanup, "descendants", lambda root: iter(walked.append(root) or ()))
        said = cleanup.kill_strays({7, 8})
    assert (said, walked) == ("", [pid] if walks else [])


def test_what_it_says_begins_with_the_kind_by_which_it_is_counted(tmp_path):
    assert cleanup.empty(tmp_path / "absent").startswith("files: ")
    assert {"files", "processes"} <= RESIDUE


def test_names_that_clash_with_those_it_moves_to_are_no_trouble(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "same" / "same").mkdir(parents=True)
        (tmp_path / name / "same" / "file").write_text("x")
    (tmp_path / f".{os.getpid()}.1").mkdir()
    assert cleanup.empty(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []

"""What a job leaves behind goes, whatever it is called and however deep it lies."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from runner import residue


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
    assert residue.empty(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_what_a_link_points_to_stays(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "link").symlink_to(outside)
    assert residue.empty(scratch) == ""
    assert (outside / "kept").exists()


def test_a_tree_deeper_than_any_path_is_removed(tmp_path):
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    assert residue.empty(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_is_said(tmp_path):
    assert "No such file" in residue.empty(tmp_path / "absent")


def test_strays_die_and_the_workers_own_processes_stay():
    own = subprocess.Popen(["sleep", "60"])
    script = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    stray = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while len(list(residue.descendants(stray.pid))) < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        below = list(residue.descendants(stray.pid))
        assert below
        others = set(residue.descendants(os.getpid())) - {stray.pid, *below}
        assert residue.kill_strays(others) == ""
        assert own.poll() is None
        assert not any(os.path.exists(f"/proc/{pid}/stat") and _alive(pid) for pid in [stray.pid, *below])
    finally:
        own.kill()
        own.wait()
        stray.poll()


def _alive(pid):
    with open(f"/proc/{pid}/stat") as text:
        return text.read().rpartition(")")[2].split()[0] not in {"Z", "X"}

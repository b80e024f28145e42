"""The figures in the status: residue by kind, and the memory of workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.daemon import metrics
from pool.daemon.metrics import RESIDUE, Metrics, worker_memory

# ---- what jobs left behind ----


def counted(*words):
    metrics = Metrics()
    for each in words:
        metrics.count_residue(each)
    return dict(metrics.residue)


@pytest.mark.parametrize("kind", sorted(RESIDUE))
def test_each_kind_of_residue_is_counted_by_its_name(kind):
    assert counted(f"{kind}: not as before the job") == {kind: 1}


def test_each_kind_in_a_report_counts_once():
    words = "processes: 2 would not die; files: /tmp cannot be emptied (x); code: not as before the job"
    assert counted(words, "files: y") == {"processes": 1, "files": 2, "code": 1}


@given(st.lists(st.text(), max_size=20))
def test_any_text_of_a_worker_is_counted_by_a_known_kind_or_as_other(words):
    found = counted(*words)
    assert found.keys() <= RESIDUE | {"other"}
    assert all(count > 0 for count in found.values())


def test_unknown_kinds_count_as_other():
    assert counted("Files: x", "\x1b[2J", "filesystem: x", "parked") == {"other": 3, "parked": 1}


# ---- memory ----


def test_a_worker_without_a_process_has_no_figure():
    assert worker_memory(None, "abc") is None


def test_a_process_that_is_gone_has_no_figure():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert worker_memory(child.pid, None) is None


def test_without_a_cgroup_of_its_own_a_worker_has_the_memory_of_its_processes():
    size = 64 << 20
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = b\"x\" * {size}; print(1, flush=True); input()'])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as first:
        assert first.stdout.readline() == "1\n"
        found = worker_memory(first.pid, "no-such-container")
        first.communicate("\n")
    assert size < found < 4 * size


CGROUPS = {
    "version 2": ("0::/docker/{id}\n", "docker/{id}", "file 7\nanon 4096\nanon_thp 9\n"),
    "version 1": ("5:cpu:/x\n3:memory:/docker/{id}\n", "memory/docker/{id}", "rss 3\ntotal_rss 4096\n"),
}


@pytest.mark.parametrize(("line", "place", "stat"), CGROUPS.values(), ids=["v2", "v1"])
def test_a_container_has_the_memory_that_its_own_cgroup_counts(line, place, stat, tmp_path, monkeypatch):
    place = tmp_path / place.format(id="c0ffee")
    place.mkdir(parents=True)
    (place / "memory.stat").write_text(stat)
    read = Path.read_text
    monkeypatch.setattr(metrics, "_CGROUPS", tmp_path)
    monkeypatch.setattr(
        Path, "read_text", lambda self, **how: line.format(id="c0ffee") if self.name == "cgroup" else read(self, **how)
    )
    assert worker_memory(os.getpid(), "c0ffee") == 4096
    assert worker_memory(os.getpid(), "another") != 4096
    (place / "memory.stat").write_text("nothing of the kind\n")
    assert worker_memory(os.getpid(), "c0ffee") > 1 << 20

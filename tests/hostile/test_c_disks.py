"""The files of the image and the data sets are on disks of the host, and all workers have them: what a job does to both."""

import mmap
import os
from ast import literal_eval
from pathlib import Path

import pytest

from tests.docker import live
from tests.hostile.alone import PRELUDE, only_root

pytestmark = [pytest.mark.docker, only_root]

#: On a host it is a file of the root file system; in a container the engine mounts it from there.
SHARED = "/etc/passwd"
_TIMES = 3000


def _flushes(path):
    """How often the disk under a file was told to write out its cache; None if there is no such count."""
    device = os.stat(path).st_dev
    place = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    counts = place.read_text().split() if place.exists() else []
    return int(counts[15]) if len(counts) > 15 else None


FLUSH = """
def main(path, times):
    fd = os.open(path, os.O_RDONLY)
    LIBC.mmap.restype = ctypes.c_void_p
    at = ctypes.c_void_p(LIBC.mmap(None, ctypes.c_size_t(4096), 1, 1, fd, ctypes.c_long(0)))
    for _ in range(times):
        os.fsync(fd)
        os.fdatasync(fd)
        if call(26, at, ctypes.c_long(4096), 4) != "ok":
            raise OSError("msync")
"""


def test_b35_a_job_does_not_have_the_disks_of_the_host_write_out_their_caches(unmoved, outside, record):
    """Others may do so at the same time. A job that reached the disk would add two for each turn."""
    before = _flushes(SHARED)
    result = unmoved(FLUSH, SHARED, _TIMES)
    assert result.ok, result
    if before is None:
        pytest.skip("the calls succeed in a job; this disk has no count of flushes, by which more could be shown")
    assert _flushes(SHARED) - before < _TIMES
    before = _flushes(SHARED)
    assert outside(PRELUDE + FLUSH, SHARED, 50).value == "None"
    loose = _flushes(SHARED) - before
    if loose < 50:
        pytest.skip("the calls succeed in a job; outside they do not reach this disk either, so they show no more")
    record("B35", "fsync, fdatasync and msync of files that it reads", "INERT", stopped_by=["job filter"],
           seen=f"{_TIMES} times, and the disk is not told", outside=f"{loose} flushes of the disk in 50 times")  # fmt: skip


DROP = """
def main(path):
    fd = os.open(path, os.O_RDONLY)
    return [call(221, fd, *map(ctypes.c_long, (0, 0, advice))) for advice in (0, 1, 2, 3, 5, 4)]
"""


def _is_cached(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(fd, [bytearray(16)], 0, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def test_c42_a_job_does_not_drop_from_the_page_cache_what_others_read(alone, unmoved, outside, tmp_path, record):
    path = tmp_path / "file"
    path.write_bytes(bytes(mmap.PAGESIZE))
    os.sync()
    assert _is_cached(path)
    assert literal_eval(outside(PRELUDE + DROP, str(path)).value)[-1] == "ok"
    dropped = not _is_cached(path)
    shared = Path(f"/proc/{live.first_process(alone.rest()['container'])}/root{SHARED}")
    shared.read_bytes()
    assert _is_cached(shared)
    seen = unmoved(DROP, SHARED).value
    assert seen == ["ok"] * 5 + ["EPERM"]
    assert _is_cached(shared)
    if not dropped:
        pytest.skip("it is refused in a job; outside this file system keeps its pages, so the probe shows no more")
    record("C42", "pages of shared files dropped from the page cache", "ERR", stopped_by=["job filter"], seen=seen,
           outside="the page is gone")  # fmt: skip


def test_b35_what_a_program_keeps_is_written_and_flushed_as_ever(unmoved):
    code = """
import mmap, sqlite3
import numpy as np
def main():
    with open("kept", "wb") as file:
        file.write(b"abc" * 2000); file.flush(); os.fsync(file.fileno())
    with open("kept", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:3] = b"xyz"; view.flush()
    array = np.memmap("array", dtype="i8", mode="w+", shape=(600,)); array[:] = 7; array.flush()
    with sqlite3.connect("base") as base:
        base.execute("create table t (n)"); base.execute("insert into t values (5)")
    return open("kept", "rb").read(4), int(np.fromfile("array", "i8").sum()), sqlite3.connect("base").execute("select n from t").fetchall()
"""
    assert unmoved(code).value == (b"xyza", 4200, [(5,)])

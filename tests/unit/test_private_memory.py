"""What a forked process writes to shared memory of its parent is not seen by the parent once that memory is private."""

import pytest
from runner import private_memory

from tests.support.process import python

#: A module that a pool preloads, then a child that writes to what it has, and what a later child would find.
_PROGRAM = """
import mmap, multiprocessing, os, sys, tempfile
sys.path[:0] = sys.argv[2:]
from runner import private_memory

anonymous = mmap.mmap(-1, mmap.PAGESIZE)
file = tempfile.TemporaryFile()
file.truncate(mmap.PAGESIZE)
of_file = mmap.mmap(file.fileno(), mmap.PAGESIZE)
anonymous[:4] = of_file[:4] = b"mine"
lock, taken = multiprocessing.Lock(), multiprocessing.Lock()
taken.acquire()
if sys.argv[1] == "private without smaps":
    private_memory._SMAPS = private_memory.Path("/nowhere")
if sys.argv[1] != "shared":
    private_memory.replace_shared()
if os.fork() == 0:
    anonymous[:4] = of_file[:4] = b"evil"
    lock.acquire()
    taken.release()
    os._exit(0)
os.wait()
print(anonymous[:4], of_file[:4], lock.acquire(block=False), taken.acquire(block=False))
"""


@pytest.mark.parametrize(
    ("memory", "seen"),
    [
        ("shared", "b'evil' b'evil' False True"),
        ("private", "b'mine' b'mine' True False"),
        ("private without smaps", "b'mine' b'mine' True False"),
    ],
)
def test_a_child_does_not_write_to_memory_and_locks_that_were_made_private(memory, seen):
    done = python("-c", _PROGRAM, memory, "worker_image", ".", check=True)
    assert done.stdout.strip() == seen, done.stderr


def test_memory_that_is_private_or_cannot_be_written_is_left_as_it_is():
    entry = "{} {} 00000000 00:01 5 /x\nSize: 4 kB\nRss: 4 kB\nVmFlags: rd {}\n"
    smaps = "".join(
        entry.format(*each)
        for each in (
            ("1000-2000", "rw-s", "wr sh mr mw me ms"),
            ("3000-5000", "r--s", "sh mr mw me"),  # may be made writable
            ("6000-7000", "r--s", "sh mr me"),
            ("8000-9000", "rw-p", "wr mr mw me"),
            ("a000-b000", "---s", "sh mr mw me"),  # cannot be copied
        )
    )
    assert [*private_memory.shared(smaps)] == [(0x1000, 0x1000), (0x3000, 0x2000)]


def test_without_smaps_a_file_that_is_mapped_for_reading_is_left_as_it_is():
    maps = (
        "1000-2000 rw-s 00000000 00:01 5    /dev/shm/x\n"
        "3000-5000 r--s 00000000 00:01 5    /dev/zero (deleted)\n"
        "6000-7000 r--s 00000000 08:01 5    /data/prices.npy\n"
        "8000-9000 rw-p 00000000 00:00 0    [heap]\n"
    )
    assert [*private_memory.shared_in_maps(maps)] == [(0x1000, 0x1000), (0x3000, 0x2000)]

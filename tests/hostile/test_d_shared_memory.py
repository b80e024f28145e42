"""No page that a job can write to is one of the zygote's, of the next child or of the process 1 of its namespace."""

from pathlib import Path

import pytest

from tests.docker import live
from tests.hostile.alone import only_root, settled

pytestmark = [pytest.mark.docker, only_root]

#: Writes a mark to each `mmap` that any object refers to. Returns whether the mark was there already.
WRITE = """
import gc, mmap
def main(mark):
    gc.unfreeze()
    everything = [part for each in gc.get_objects() for part in [each, *gc.get_referents(each)]]
    maps = {id(part): part for part in everything if type(part) is mmap.mmap and len(part) >= len(mark)}
    found = [part[: len(mark)] == mark for part in maps.values()]
    for part in maps.values():
        part[: len(mark)] = mark
    return found
"""


def test_d22_memory_that_one_job_has_written_is_not_that_of_the_next_one(unmoved, outside, record):
    held = "import mmap\nkept = [mmap.mmap(-1, 4096)]\n"
    loose = outside(held + WRITE.replace("def main", "def mark_all") + """
import os
def main(mark):
    if os.fork() == 0:
        mark_all(mark.encode()), os._exit(0)
    os.wait()
    return True in mark_all(mark.encode())
""", "a mark")  # fmt: skip
    assert loose.value == "True", "two forks of one process share such memory"
    mark = b"a job was here"
    first = unmoved(WRITE, mark)
    assert len(first.value) > 0, "the runner has such memory"
    seen = unmoved(WRITE, mark)
    assert seen.ok
    assert True not in seen.value
    record("D22", "marks in all memory that is mapped by an object, from one job to the next", "INERT",
           stopped_by=["runner"], seen=seen.value, outside="the mark is found")  # fmt: skip


def test_d22_no_process_of_a_worker_has_memory_that_is_shared_and_can_be_written(alone, record):
    """Whatever object it belongs to. The stack of a process 1 that shares the zygote's memory was such memory once."""
    alone.honest()
    assert settled(alone, lambda view: len(view.others) == 2), "the parked child and its init"
    view = alone.view()
    found = {pid: _shared(pid) for pid in (view.zygote, *view.others)}
    assert not any(found.values()), found
    job = alone.client.submit("import time\nprint(1, flush=True)\ntime.sleep(60)")
    next(alone.client.stream(job, timeout=60))
    running = {pid: _shared(pid) for pid in live.processes(view.container) if pid != view.runner}
    alone.client.cancel(job)
    assert len(running) >= 3
    assert not any(running.values()), running
    record("D22", "shared memory of zygote, init, parked child and job, seen from the host", "INERT",
           stopped_by=["runner"], seen="none that can be written")  # fmt: skip


def _shared(pid):
    """Its mappings that are shared and can be made writable."""
    entry, found = "", []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if words and "-" in words[0] and not words[0].endswith(":"):
            entry = line
        elif words and words[0] == "VmFlags:" and {"sh", "mw"} <= set(words):
            found.append(entry)
    return found

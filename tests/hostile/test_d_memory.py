"""What jobs of one worker share without leaving anything: memory, random numbers, hash seed, users of one pool."""

import os
import secrets

import pytest

from tests.hostile.alone import PRELUDE

pytestmark = pytest.mark.docker


PLANT = """
import numpy as np, pandas as pd
def main(raw):
    marker = bytes(byte ^ 0x5A for byte in raw)
    held = [marker * 1000, bytearray(marker * 20000), marker.decode("latin-1") * 500, np.frombuffer(marker * 5000, "u1").copy(),
            [marker + bytes([n % 256]) for n in range(2000)], {marker: marker}, pd.Series([marker.hex()] * 500), memoryview(marker * 100)]
    os.environ["LEFT"] = marker.hex()
    sys.stdout.write(marker.hex() * 200); sys.stderr.write(marker.hex() * 200)
    for place in ("/tmp/planted", "/dev/shm/planted", "planted"):
        with open(place, "wb") as file:
            file.write(marker * 4000)
    big = np.empty(4_000_000, "u1"); big[:] = np.resize(np.frombuffer(marker, "u1"), big.size)
    time.planted = held, big
    if len(raw) == 33:
        raise ValueError(marker.hex())
    return marker * 100
"""
#: Where it can be found: uninitialised memory, every object, and every page that can be read at all. The pages are read
#: through a pipe, for write() answers EFAULT where a plain read would end the process.
SEARCH = """
import gc, mmap, numpy as np
def pages():
    reading, writing = os.pipe()
    fcntl.fcntl(writing, 1031, 1 << 18)
    os.set_blocking(writing, False)
    page, libc, span = 4096, LIBC, 1 << 16
    libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    libc.write.restype = ctypes.c_ssize_t
    anchors = [id(object()), id(type), id(main), ctypes.addressof(ctypes.c_int()), ctypes.cast(libc.write, ctypes.c_void_p).value]
    anchors += [np.empty(n, "u1").ctypes.data for n in (1000, 200_000, 5_000_000)] + [id(each) for each in gc.get_objects()[:: 50]]
    seen = set()
    for anchor in anchors:
        for step in (1, -1):
            at, misses = anchor & ~(span - 1), 0
            while misses < 64 and at not in seen and at > 0:
                seen.add(at)
                got = libc.write(writing, at, span)
                if got > 0:
                    yield os.read(reading, got)
                    for inner in range(at + got, at + span, page) if got < span else ():
                        if (more := libc.write(writing, inner, page)) > 0:
                            yield os.read(reading, more)
                    misses = 0
                else:
                    found = False
                    for inner in range(at, at + span, page):
                        if (more := libc.write(writing, inner, page)) > 0:
                            found = True
                            yield os.read(reading, more)
                    misses = 0 if found else misses + 1
                at += step * span

def main(raw):
    marker = bytes(byte ^ 0x5A for byte in raw)
    needles = [marker[:16], marker[16:32], marker.hex()[:32].encode(), marker.hex()[32:].encode()]
    fresh = [np.empty(n, "u1") for n in (100, 4000, 70_000, 4_000_000, 16_000_000)]
    found = [f"uninitialised {each.size}" for each in fresh if any(needle in each.tobytes() for needle in needles)]
    del fresh
    total, hits, tail = 0, 0, b""
    for piece in pages():
        total += len(piece)
        hits += sum(piece.count(needle) for needle in needles)
    return found, total, hits
"""


def test_d22_the_memory_of_one_job_is_nowhere_in_that_of_the_next(alone, record):
    """The search finds the needles it holds itself, in the very job; a few copies, and not the thousands planted."""
    raw = secrets.token_bytes(32)
    first = alone.run(PRELUDE + SEARCH, raw)
    assert first.ok, first
    _, total, own_hits = first.value
    assert total > 30_000_000, "most of the process's memory is read"
    other = secrets.token_bytes(32)
    planted = alone.run(PRELUDE + PLANT, other)
    assert planted.ok, planted
    after = alone.run(PRELUDE + SEARCH, other)
    assert after.worker == planted.worker == first.worker
    fresh, total, hits = after.value
    assert fresh == []
    assert total > 30_000_000
    assert hits <= own_hits + 24, f"{hits} needles found; a job that held its own alone had {own_hits}"
    here = alone.run(
        PRELUDE
        + PLANT.replace("def main(", "def plant(")
        + SEARCH.replace("def main(raw):", "def main(raw):\n    plant(raw)"),
        other,
    )
    assert here.value[2] > 10_000, "the search finds what is planted in the same process"
    record("D22", "the memory of the previous job, read page by page", "INERT", stopped_by=["runner"],
           seen=f"{total >> 20} MiB read, {hits} copies, all its own", outside=f"{here.value[2]} in the process that holds them")  # fmt: skip


def test_d22_neither_runner_nor_zygote_holds_what_a_job_had_once_it_is_over(alone, record):
    """From the host: the zygote, of which the next child is a copy, has nothing of a job at all."""
    if os.geteuid() != 0:
        pytest.skip("only root may read another user's memory")
    raw = secrets.token_bytes(32)
    marker = bytes(byte ^ 0x5A for byte in raw)
    assert alone.run(PRELUDE + PLANT, raw).ok
    view = alone.view()
    assert _copies(view.zygote, raw) == _copies(view.zygote, marker) == 0
    for pid in view.others:
        assert _copies(pid, raw) == _copies(pid, marker) == 0, "the parked child is a copy of the zygote"
    record("D22", "a job's code, arguments and results in the zygote and the parked child", "INERT", stopped_by=["runner"],
           seen="no copy, by /proc/PID/mem from the host")  # fmt: skip


def _copies(pid, needle):
    count = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, permissions, *_ = line.split()
            if "r" not in permissions or "[v" in line:
                continue
            start, end = (int(each, 16) for each in span.split("-"))
            try:
                memory.seek(start)
                count += memory.read(end - start).count(needle)
            except OSError:
                continue
    return count


# ---- random numbers --------------------------------------------------------------------------------------------------

DRAW = """
import random, ssl, uuid, multiprocessing.process, numpy as np
def main():
    return (random.random(), float(np.random.rand()), float(np.random.default_rng().random()), uuid.uuid4().hex, os.urandom(8).hex(),
            uuid.uuid1().hex[12:], ssl.RAND_bytes(8).hex(), multiprocessing.process.current_process().authkey.hex())
"""


def test_d21_jobs_draw_different_numbers_and_the_same_with_the_same_seed(alone, record):
    free = [alone.run(PRELUDE + DRAW).value for _ in range(4)]
    for column in zip(*free, strict=True):
        assert len(set(column)) == 4, column
    first, second = (alone.run(PRELUDE + DRAW, seed=7).value for _ in range(2))
    assert first[:2] == second[:2]
    assert first[3:] != second[3:]
    assert alone.run(PRELUDE + DRAW, seed=8).value[:2] != first[:2]
    record(
        "D21",
        "streams of random, numpy and ssl, and the key of multiprocessing, shared by forks",
        "INERT",
        stopped_by=["runner"],
        seen="differ, and agree with a seed",
    )


def test_d21_threads_and_processes_of_a_job_that_reseed_nothing_are_the_jobs_affair(alone):
    draw = "import random\ndef main():\n    return random.getrandbits(64)\n"
    assert len({alone.run(draw).value for _ in range(20)}) == 20


def test_d21_a_generator_that_a_preloaded_module_made_is_shared_and_none_is_preloaded(alone, outside, record):
    """numpy.random.seed() does not reach it: whoever preloads a module with a generator of its own shares its stream."""
    code = """
import sys
import random, numpy as np
def main():
    held = [each for name in ("_generator", "_rng") for module in list(sys.modules.values()) if isinstance(each := getattr(module, name, None), np.random.Generator)]
    return [float(each.random()) for each in held], hash("text"), id(np.random.mtrand._rand) != 0
"""
    forks = """
import json, os, numpy as np
GENERATOR = np.random.default_rng()
def main():
    drawn = []
    for _ in range(2):
        reading, writing = os.pipe()
        if os.fork() == 0:
            np.random.seed(None)
            os.write(writing, str(GENERATOR.random()).encode())
            os._exit(0)
        os.wait()
        drawn.append(os.read(reading, 100))
    return drawn[0] == drawn[1]
"""
    assert outside(forks).value == "True", "forks of a process share the stream of such a generator"
    first, second = alone.run(code).value, alone.run(code).value
    assert first[0] == second[0], "and no module that is preloaded by default has one"
    assert first[0] == []
    assert first[1] == second[1], "every worker has the hash seed 0, so that a job gives the same result in each"
    record("D21", "hash seed; generators of preloaded modules", "INERT", stopped_by=[],
           seen="all workers have the hash seed 0; numpy and pandas hold no generator", outside="two forks draw the same number")  # fmt: skip


def test_d23_jobs_of_a_worker_share_their_addresses_and_another_worker_does_not(alone, record):
    code = "import ctypes\ndef main():\n    return ctypes.cast(ctypes.CDLL(None).write, ctypes.c_void_p).value\n"
    first, second = alone.run(code), alone.run(code)
    assert first.value == second.value
    alone.daemon.call("recycle", pool="default")
    third = alone.run(code)
    assert third.worker != first.worker
    assert third.value != first.value
    record("D23", "addresses are those of every fork of a worker", "INERT", stopped_by=[],
           seen="the same in a worker, others in the next; a worker is refreshed by recycling")  # fmt: skip

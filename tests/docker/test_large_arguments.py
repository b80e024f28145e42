"""Large arguments in real containers: the job maps a file of the daemon, and has no more of it than its own bytes."""

import numpy as np
import pandas as pd
import pytest

from pool.model import Limits, Outcome
from tests.support.same import same

POOL = {
    "size": {"min": 1, "max": 1},
    "recycle": {"max_jobs": 100_000},
    "preload": {"modules": ["numpy", "pandas"]},
    "limits": {"wall_s": 100, "cpu_s": 100, "memory": "512m", "tmp": "64m", "result": "100m"},
}
POOLS = {"default": POOL, "open": {**POOL, "allow": ["proc"]}}
DAEMON = {"durability": "crash"}
MIB = 1 << 20
ARRAY = np.arange(20 * MIB // 8)
IDENTITY = "def main(*x):\n    return x"


@pytest.fixture(autouse=True)
def nothing_is_left(client, daemon):
    yield
    assert client.run("result = 6 * 7").value == 42
    assert not list(daemon.home.glob("run/w/*/body.sock"))
    assert not list(daemon.home.glob("state/journal/bodies/*.job"))
    assert not daemon.pool()["recycles"]


SAMPLES = {
    "an array": [ARRAY],
    "one in the order of columns": [np.asfortranarray(ARRAY.reshape(2, -1))],
    "a frame": [pd.DataFrame({"a": ARRAY, "b": ARRAY / 3, "c": ARRAY % 2 == 0})],
    "several, between small ones": [1, ARRAY, "text", ARRAY[:10], {"x": ARRAY[::-1].copy()}],
    "a list of numbers": [list(range(3_000_000))],
    "a text": ["ü" * (2 * MIB)],
    "bytes": [bytes(3 * MIB)],
    "a record": [np.zeros(MIB, [("a", "u1"), ("b", ">f8")])],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_large_value_goes_in_and_comes_out_equal_and_of_the_same_type(name, client):
    result = client.run(IDENTITY, entry="main", args=SAMPLES[name])
    assert result.outcome is Outcome.OK, result
    for given, came in zip(SAMPLES[name], result.value, strict=True):
        assert same(given, came)


def test_the_array_of_a_job_is_aligned_and_writable_and_what_it_writes_ends_with_it(client):
    code = (
        "def main(x):\n"
        "    before = int(x.sum())\n"
        "    x[:] = 1\n"
        "    return [before, int(x.sum()), x.flags.aligned, x.flags.writeable]"
    )
    for _ in range(2):
        assert client.run(code, entry="main", args=[ARRAY]).value == [int(ARRAY.sum()), len(ARRAY), True, True]
    assert int(ARRAY[-1]) == len(ARRAY) - 1


def test_a_large_argument_counts_for_the_memory_limit_and_in_the_usage(client):
    code = "def main(x):\n    return [int(x.sum()), len(bytes(40 << 20))]"
    limits = Limits(memory=70 * MIB)
    small = client.run("def main(x):\n    return x", entry="main", args=[1], limits=limits)
    large = client.run(code, entry="main", args=[ARRAY], limits=limits)
    assert large.value == [int(ARRAY.sum()), 40 * MIB]
    assert large.usage.max_rss_bytes - small.usage.max_rss_bytes > 19 * MIB
    over = client.run(code, entry="main", args=[np.concatenate([ARRAY, ARRAY])], limits=limits)
    assert over.outcome is Outcome.MEMORY, over


def test_files_and_standard_input_come_beside_large_arguments(client):
    code = "import sys\ndef main(x):\n    return [len(x), len(sys.stdin.read()), len(open('a', 'rb').read())]"
    result = client.run(code, entry="main", args=[ARRAY], stdin="i" * (2 * MIB), files={"a": bytes(3 * MIB)})
    assert result.value == [len(ARRAY), 2 * MIB, 3 * MIB]


def test_a_job_has_no_descriptor_of_the_file_and_does_not_see_its_path(client):
    code = "import os\ndef main(x):\n    return sorted(os.listdir('/proc/self/fd'))"
    with_file = client.run(code, entry="main", args=[ARRAY])
    without = client.run(code, entry="main", args=[1])
    assert with_file.value == without.value
    code = "def main(x):\n    return [line for line in open('/proc/self/maps') if '.job' in line or 'bodies' in line]"
    assert client.run(code, entry="main", args=[ARRAY], pool="open").value == []


#: What a job tries with the pages of its array.
ATTEMPTS = {
    "make the mapping larger": "libc.mremap(ctypes.c_void_p(at), size, ctypes.c_size_t(size + (64 << 20)), 1)",
    "remove pages of the file": "libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(size), 9)",
    "drop its own changes": "libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(size), 4)",
    "write the pages out": "libc.msync(ctypes.c_void_p(at), ctypes.c_size_t(size), 4)",
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_nothing_that_a_job_does_to_its_argument_reaches_the_file(name, client, daemon):
    """It is what a second attempt would get."""
    code = (
        "import ctypes, signal\n"
        "def main(x):\n"
        "    libc = ctypes.CDLL(None)\n"
        "    libc.mremap.restype = ctypes.c_void_p\n"
        "    at, size = x.ctypes.data, x.nbytes\n"
        "    x[:] = 7\n"
        f"    {ATTEMPTS[name]}\n"
        "    print('tried', flush=True)\n"
        "    signal.pause()"
    )
    job_id = client.submit(code, entry="main", args=[ARRAY])
    for event in client.stream(job_id):
        if "tried" in getattr(event, "text", ""):
            (path,) = daemon.home.glob("state/journal/bodies/*.job")
            assert ARRAY.tobytes() in path.read_bytes()
            client.cancel(job_id)
    assert client.result(job_id).outcome is Outcome.CANCELLED

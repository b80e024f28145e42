"""What a job tries with the calls that it may make: sockets and pidfds that it has, options, mappings, paths, clones.

The calls that no job may make are in test_c_syscalls.py. All attempts run in one worker, whose runner and zygote are
afterwards what they were.
"""

from ast import literal_eval

import pytest

from tests.hostile.alone import PRELUDE, only_root
from tests.hostile.payloads.attempts import ATTEMPTS, CHANNEL, PAIR

pytestmark = [pytest.mark.docker, only_root]

#: Each in a fork of its own, so that none changes what the next one finds.
_ALL = """
import json
def main(codes):
    told = []
    for code in codes:
        reading, writing = os.pipe()
        if os.fork() == 0:
            scope = dict(globals())
            exec(code, scope)
            os.write(writing, json.dumps(scope["main"]()).encode())
            os._exit(0)
        os.close(writing)
        with open(reading) as answer:
            text = answer.read()
        os.wait()
        told.append(json.loads(text) if text else None)
    return told
"""


@pytest.fixture(scope="module")
def run(alone):
    with alone.unmoved() as run:
        yield run


@pytest.fixture(scope="module")
def loose(outside):
    """What each attempt comes to in a process of this host, if it may be tried there."""
    tried = [each for each in ATTEMPTS if each.works]
    seen = outside(PRELUDE + PAIR + CHANNEL + _ALL, [each.code for each in tried])
    assert not seen.error, seen
    return dict(zip([each.title for each in tried], literal_eval(seen.value), strict=True))


@pytest.mark.parametrize("tried", ATTEMPTS, ids=lambda each: f"{each.number}-{each.title}".replace(" ", "_"))
def test_what_a_job_may_call_does_not_reach_beyond_the_job(tried, run, loose, record):
    result = run(CHANNEL + tried.code)
    assert result.ok, result
    assert result.value
    assert set(result.value) <= tried.inside, result.value
    if tried.works:
        assert tried.works in loose[tried.title], loose[tried.title]
    record(tried.number, tried.title, "ERR", stopped_by=tried.stopped_by, seen=sorted(set(result.value)),
           outside=sorted(set(loose.get(tried.title, []))))  # fmt: skip


# ---- processes that end, wait and answer in other ways than a program does ----

ENDS = {
    "its first thread ends, another one stays": ("""
import threading
threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
LIBC.syscall(60, 0)
""", {"timeout"}),
    "its first thread ends, and the other one then": ("""
import threading
threading.Thread(target=lambda: (time.sleep(0.2), os._exit(0))).start()
LIBC.syscall(60, 0)
""", {"crash"}),
    "its first thread waits for a process that shares its memory": ("""
stack = ctypes.create_string_buffer(65536)
top = ctypes.c_void_p(ctypes.addressof(stack) + 65536 - 64)
assert LIBC.clone(ctypes.cast(LIBC.pause, ctypes.c_void_p), top, 0x4100 | signal.SIGCHLD, None) != -1  # VM, VFORK
""", {"timeout"}),
    "it stops itself, traced by nobody": ("os.kill(os.getpid(), signal.SIGTTIN)\nos.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(600)", {"timeout"}),
    "it kills its process group, number 0": ("os.kill(0, signal.SIGKILL)", {"crash"}),
    "its parent's death is to leave it alone": ("LIBC.prctl(1, 0, 0, 0, 0)\nwhile True: time.sleep(1)", {"timeout"}),
    "a process waits for each of ten others in a ring of locks": ("""
files = [os.open(f"/tmp/{n}", os.O_CREAT | os.O_RDWR) for n in range(10)]
for n in range(10):
    if os.fork() == 0:
        fcntl.lockf(files[n], fcntl.LOCK_EX); time.sleep(0.2)
        try: fcntl.lockf(files[(n + 1) % 10], fcntl.LOCK_EX)
        except OSError: pass
        time.sleep(600)
time.sleep(600)
""", {"timeout"}),
    "it has unmapped its own code": ("LIBC.munmap(ctypes.c_void_p(ctypes.cast(LIBC.munmap, ctypes.c_void_p).value & ~4095), ctypes.c_size_t(4096))", {"crash"}),
}  # fmt: skip


@pytest.mark.parametrize("title", ENDS)
def test_a35_however_a_process_ends_or_waits_it_is_gone_at_its_limit(title, alone, run, record):
    code, outcomes = ENDS[title]
    result = run(code, entry=None, limits={"wall_s": 1.5})
    assert result.outcome in outcomes, result
    assert alone.honest().worker == result.worker
    record("A35", title, "KILL", stopped_by=["runner", "namespaces"], seen=f"{result.outcome}: {result.reason}")

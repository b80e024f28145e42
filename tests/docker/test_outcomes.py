"""Every limit of a job and every way in which it ends, in real containers: the right outcome, with its evidence.

After each test the next job has the right value. What is measured is printed (`pytest -s`).
"""

import signal
import statistics
import time
from pathlib import Path

import pytest

from pool.errors import LimitExceededError
from pool.model import Limits, Outcome
from tests.docker import live

TEMPLATE = {
    "size": {"min": 2, "max": 2},
    "recycle": {"max_jobs": 100_000},
    "preload": {"modules": ["numpy"]},
    "poison": {"kills": 0},
    "limits": {
        "wall_s": 20, "cpu_s": 20, "memory": "128m", "tmp": "16m", "output": "64k", "result": "4m", "processes": 24,
    },
    "max_limits": {"wall_s": 100, "memory": "160m", "output": "1m"},
}  # fmt: skip
#: Each worker outlives its jobs also where it gets no core for a while.
DAEMON = {"patient": True}
#: For what ends by itself, on a machine that is shared.
PATIENCE_S = 120
#: A second of CPU can take many on a busy machine.
SLOWLY = {"wall_s": 100}


@pytest.fixture(autouse=True)
def next_job_is_untouched(client):
    yield
    result = client.run("import os\nresult = 6 * 7, os.listdir('/dev/shm'), os.listdir('.')")
    assert (result.value, result.stdout, result.stderr) == ((42, [], ["out"]), "", "")


# ---- limits --------------------------------------------------------------------------------------------------------

TOUCH = "def touch(block):\n    for at in range(0, len(block), 4096): block[at] = 1\n"
SPIN = "while True: pass"
FORKS = "import os, time\nfor _ in range({count}):\n    if os.fork() == 0:\n        {work}\n        os._exit(0)\n{then}"
EAT = TOUCH + FORKS.format(count=5, work="held = bytearray(30 << 20); touch(held); time.sleep(9)", then="time.sleep(9)")
SHARE = TOUCH + "import mmap, time\nheld = mmap.mmap(-1, {size} << 20)\ntouch(held)\ntime.sleep(9)"
LIMITS = {
    "wall": (SPIN, {"wall_s": 0.3}, "timeout", "wall limit of 0.3 s"),
    "wall, asleep": ("import time\ntime.sleep(60)", {"wall_s": 0.3}, "timeout", "wall limit of 0.3 s"),
    "cpu": (SPIN, SLOWLY | {"cpu_s": 0.3}, "timeout", "s of CPU, its limit is 0.3 s"),
    "cpu of several together": (FORKS.format(count=3, work=SPIN, then=SPIN), SLOWLY | {"cpu_s": 0.5}, "timeout",
                                "limit is 0.5 s"),
    "cpu, its signal ignored": (f"import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n{SPIN}", SLOWLY | {"cpu_s": 1},
                                "timeout", "s of CPU, its limit is 1 s"),
    "memory": ("x = bytearray(140 << 20)", {}, "memory", "134217728 bytes"),
    "less memory": ("x = bytearray(70 << 20)", {"memory": "64m"}, "memory", "67108864 bytes"),
    "more memory": ("x = bytearray(170 << 20)", {"memory": "160m"}, "memory", "167772160 bytes"),
    "memory of numpy": ("import numpy as np\nx = np.ones(100 << 20)", {"memory": "64m"}, "memory", "67108864 bytes"),
    "memory bit by bit": ("x = {}\nn = 0\nwhile True:\n    x[n] = str(n)\n    n += 1", {"memory": "40m"}, "memory", "bytes"),
    "memory of many together": (EAT, {"memory": "64m"}, "memory", " memory"),
    "memory that is shared": (SHARE.format(size=140), {"memory": "64m"}, "memory", " memory"),
    "memory over the container's": (SHARE.format(size=900), {}, "memory", " memory"),
    "a result": ("result = b'x' * (5 << 20)", {}, "output", "4194304 bytes"),
    "a smaller result": ("result = b'x' * (2 << 20)", {"result": "1m"}, "output", "1048576 bytes"),
    "scratch space": ("for n in range(3): open(f'f{n}', 'wb').write(bytes(7 << 20))", {}, "error", "limits.tmp"),
    "less scratch space": ("for n in 'ab': open(f'/dev/shm/{n}', 'wb').write(bytes(700 << 10))", {"tmp": "1m"}, "error", "1048576"),
    "inodes": ("for n in range(10_000): open(f'f{n}', 'w').close()", {}, "error", "tmp_inodes"),
    "the size of a file": ("open('x', 'wb').truncate(17 << 20)", {}, "error", "16777216 bytes"),
    "the size of a file, with less": ("open('x', 'wb').truncate(2 << 20)", {"tmp": "1m"}, "error", "1048576 bytes"),
    "processes": (FORKS.format(count=50, work="time.sleep(9)", then=""), {}, "error", "24 processes and threads"),
    "fewer processes": (FORKS.format(count=9, work="time.sleep(9)", then=""), {"processes": 3}, "error", "3 processes"),
    "threads": ("import threading, time\nfor _ in range(9): threading.Thread(target=time.sleep, args=(9,)).start()",
                {"processes": 3}, "error", "3 processes and threads"),
    "open files": ("held = []\nwhile True: held.append(open('/dev/null'))", {}, "error", "open files"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_has_its_own_outcome_and_says_which_it_was(name, client, daemon):
    code, limits, outcome, evidence = LIMITS[name]
    workers = {each["id"] for each in daemon.workers()}
    began = time.monotonic()
    result = client.run(code, limits=Limits(**limits))
    assert time.monotonic() - began < PATIENCE_S
    assert result.outcome == outcome, result
    assert evidence in result.reason
    assert result.value is None
    assert {each["id"] for each in daemon.workers()} == workers  # the job ends, its worker does not
    print(f"\n{name}: {result.outcome}, {result.reason}")


@pytest.mark.parametrize("code", ["import not_here", "import email.not_here", "def f(): import not_here\nf()"])
def test_a_module_that_the_image_lacks_has_its_remedy_in_the_reason(code, client):
    missing = client.run(code)
    assert (missing.error.type, "pool-admin image build" in missing.reason) == ("ModuleNotFoundError", True)
    assert "image build" not in client.run("raise ImportError('not_here')").reason


@pytest.mark.parametrize("code", ["import os\nos.kill(os.getpid(), 9)", "import os\nos._exit(137)", "exit(137)"])
def test_that_it_was_memory_is_never_guessed_from_how_a_process_ended(code, client):
    assert client.run(code).outcome in {Outcome.CRASH, Outcome.ERROR}


def test_a_job_whose_process_the_kernel_had_to_kill_is_over_its_memory(client):
    """Also if the job itself went on: it would end without the work of that process, for no visible reason."""
    eat = "held = mmap.mmap(-1, 900 << 20); touch(held)"
    result = client.run(TOUCH + "import mmap\n" + FORKS.format(count=1, work=eat, then="os.wait()\ntime.sleep(9)"))
    assert result.outcome is Outcome.MEMORY, result


def test_a_job_that_handles_its_lack_of_memory_is_no_failure(client):
    code = "try:\n    bytearray(500 << 20)\nexcept MemoryError:\n    result = 'less, then'"
    assert client.run(code).value == "less, then"


MAXIMA = {"wall_s": 101, "cpu_s": 21, "memory": "161m", "tmp": "17m", "output": "2m", "result": "5m", "processes": 25}


@pytest.mark.parametrize("name", MAXIMA)
def test_more_than_the_maximum_is_refused_with_both_numbers(name, client):
    with pytest.raises(LimitExceededError) as refused:
        client.run("result = 1", limits=Limits(**{name: MAXIMA[name]}))
    said = refused.value
    assert said.fields["limit"] == name
    assert said.fields["asked"] > said.fields["maximum"]
    assert str(MAXIMA[name]).strip("m") in said.message


def test_there_is_no_core_dump_and_no_limit_can_be_lifted(client):
    code = (
        "import resource\n"
        "found = {}\n"
        "for name in ('CORE', 'FSIZE', 'NOFILE', 'NPROC', 'CPU'):\n"
        "    kind = getattr(resource, f'RLIMIT_{name}')\n"
        "    try: resource.setrlimit(kind, (-1, -1))\n"
        "    except ValueError: found[name] = resource.getrlimit(kind)[0]\n"
        "result = found\n"
    )
    found = client.run(code).value
    assert found.pop("CORE") <= 1  # the kernel starts no program for a dump of so little
    assert found.pop("CPU") <= 21
    assert found == {"FSIZE": 16 << 20, "NOFILE": 256, "NPROC": 24}


# ---- output --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limits", "cap"), [({}, 64 << 10), ({"output": "1k"}, 1024), ({"output": "1m"}, 1 << 20)])
def test_the_streams_are_cut_apart_each_with_its_count(limits, cap, client):
    code = f"import sys\nprint('x' * {cap}, end='')\nprint('e' * {cap + 1}, end='', file=sys.stderr)"
    result = client.run(code, limits=Limits(**limits))
    assert (result.outcome, result.truncated) == (Outcome.OK, ("stderr",))
    assert (len(result.stdout), result.stdout_bytes) == (cap, cap)
    assert (len(result.stderr), result.stderr_bytes) == (cap, cap + 1)


def test_a_gigabyte_of_output_is_counted_and_the_daemon_stays_as_it_was(client, daemon):
    before = _memory(daemon.process.pid, "VmRSS")
    code = "import os\nblock = bytes(1 << 20)\nfor n in range(1024): os.write(1 + n % 2, block)"
    result = client.run(code)
    assert (result.outcome, result.truncated) == (Outcome.OK, ("stdout", "stderr"))
    assert (result.stdout_bytes, result.stderr_bytes) == (512 << 20, 512 << 20)
    grown = _memory(daemon.process.pid, "VmRSS") - before
    print(f"\n1 GiB of output: {result.timings.run_ms:.0f} ms, the daemon grew by {grown >> 10} KiB")
    assert grown < 16 << 20


def _memory(pid, name):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


# ---- the end of all it started ---------------------------------------------------------------------------------------

TREE = (
    "import os, time\n"
    "ends = os.pipe()\n"
    "for _ in range(5):\n"
    "    if os.fork() == 0:\n"
    "        if os.fork() == 0: os.setsid()\n"
    "        os.write(ends[1], b'x')\n"
    "        while True: time.sleep(1)\n"
    "for _ in range(10): os.read(ends[0], 1)\n"
    "print('up', flush=True)\n"
    "time.sleep(60)\n"
)


def _tree(container, least=12):
    """The processes of the job that runs there, with the init of its pid namespace: it is the fullest one."""
    groups = {}
    for pid in live.processes(container):
        try:
            groups.setdefault(str(Path(f"/proc/{pid}/ns/pid").readlink()), set()).add(pid)
        except OSError:
            continue
    largest = max(groups.values(), key=len)
    assert len(largest) >= least, groups
    return largest


def _running(client, daemon, **options):
    """Id, container and processes of a job whose tree is up."""
    job_id = client.submit(TREE, **{"limits": Limits(**SLOWLY)} | options)
    next(client.stream(job_id, timeout=PATIENCE_S))
    worker = next(each for each in daemon.workers() if each["job"] == job_id)
    return job_id, _tree(worker["container"])


def _left_of(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_when_the_client_gets_a_timeout_nothing_of_the_job_is_left(client, daemon):
    job_id, tree = _running(client, daemon, limits=Limits(wall_s=10))  # its processes start and are seen meanwhile
    result = client.result(job_id, timeout=PATIENCE_S)
    assert _left_of(tree) == []
    assert result.outcome is Outcome.TIMEOUT


def test_a_wall_limit_ends_no_job_early_and_each_one_after_it(client):
    over = []
    for _ in range(60):
        result = client.run(SPIN, limits=Limits(wall_s=0.1))
        assert result.outcome is Outcome.TIMEOUT
        over.append(result.timings.run_ms + result.timings.collect_ms - 100)
    print(f"\novershoot of a wall limit: {_percentiles(over)}")
    assert min(over) > -5
    assert max(over) < PATIENCE_S * 1000


def test_cancelling_kills_a_job_with_all_it_has_started(client, daemon):
    took, left = [], []
    for _ in range(30):
        job_id, tree = _running(client, daemon)
        began = time.monotonic()
        client.cancel(job_id)
        result = client.result(job_id, timeout=PATIENCE_S)
        took.append((time.monotonic() - began) * 1000)
        left += _left_of(tree)
        assert (result.outcome, result.signal) == (Outcome.CANCELLED, signal.SIGKILL)
    print(f"\ncancel of a job with 11 processes, until its result is there: {_percentiles(took)}")
    assert left == []
    assert max(took) < PATIENCE_S * 1000


def _percentiles(figures):
    figures = sorted(figures)
    return f"p50 {statistics.median(figures):.1f} ms, p99 {figures[-1 - len(figures) // 100]:.1f} ms of {len(figures)}"


# ---- ends ----------------------------------------------------------------------------------------------------------

ENDS = {
    "an exit with 0": ("import sys\nsys.exit(0)", "ok", 0, None),
    "an exit with 3": ("import sys\nsys.exit(3)", "error", 3, None),
    "an exit with a text": ("import sys\nsys.exit('no')", "error", 1, None),
    "os._exit(0)": ("import os\nos._exit(0)", "crash", 0, None),
    "an interrupt": ("raise KeyboardInterrupt", "error", None, signal.SIGINT),
    "an exception that is no Exception": ("class B(BaseException): pass\nraise B", "error", None, None),
    "a text that never ends": ("class E(Exception):\n    def __str__(s):\n        while True: pass\nraise E", "timeout", None, 9),
    "a text of 100 MB": ("class E(Exception):\n    def __str__(s): return 'x' * (100 << 20)\nraise E", "error", None, None),
    "a text that exits": ("import sys\nclass E(Exception):\n    def __str__(s): sys.exit(0)\nraise E", "error", None, None),
    "endless recursion": ("def f(): f()\nf()", "error", None, None),
    "a group": ("raise ExceptionGroup('g', [ValueError(1), TypeError(2)])", "error", None, None),
    "a segfault": ("import ctypes\nctypes.string_at(0)", "crash", None, signal.SIGSEGV),
    "the end of the C stack": ("import sys\nsys.setrecursionlimit(10**8)\nclass A:\n    def __getattr__(s, n): return getattr(s, n)\nA().x",
                               "crash", None, signal.SIGSEGV),
    "abort": ("import os\nos.abort()", "crash", None, signal.SIGABRT),
    "kill -9": ("import os\nos.kill(os.getpid(), 9)", "crash", None, signal.SIGKILL),
    "stdout closed": ("import sys\nsys.stdout.close()\nresult = 7", "ok", None, None),
    "stdout gone": ("import sys\ndel sys.stdout, sys.__stdout__\nresult = 7", "ok", None, None),
    "stdout replaced": ("import sys, io\nsys.stdout = io.StringIO()\nprint('x')\nresult = 7", "ok", None, None),
    "stdout that fights back": ("import sys\nclass O:\n    def flush(s): sys.exit(3)\nsys.stdout = O()\nresult = 7", "ok", None, None),
    "descriptor 1 closed": ("import os\nos.close(1)\nresult = 7", "ok", None, None),
    "all descriptors closed": ("import os\nos.closerange(0, 256)\nresult = 7", "crash", 1, None),
    "stdin that is empty": ("import sys\nassert sys.stdin.read() == ''\nresult = 7", "ok", None, None),
    "a thread that lives on": ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nresult = 7", "ok", None, None),
    "a process that lives on": ("import os, time\nif os.fork() == 0: time.sleep(60)\nresult = 7", "ok", None, None),
    "a process that exits": ("import os, sys\nif os.fork() == 0: sys.exit(5)\nresult = 7 if os.wait()[1] == 5 << 8 else 0", "ok", None, None),
    "a process that raises": ("import os\nif os.fork() == 0: 1 / 0\nresult = 7 if os.wait()[1] == 1 << 8 else 0", "ok", None, None),
    "an exit handler": ("import atexit\natexit.register(print, 3)\nresult = 7", "ok", None, None),
    "an exit handler that exits": ("import atexit, os\natexit.register(os._exit, 3)", "crash", 3, None),
    "no builtins": ("import builtins\nfor n in {*vars(builtins)} - {'delattr'}: delattr(builtins, n)\nresult = 7", "ok", None, None),
    "no modules": ("import sys\nsys.modules = {}\nresult = 7", "ok", None, None),
    "a clock of its own": ("import time\ntime.monotonic_ns = lambda: 1 / 0\nresult = 7", "ok", None, None),
    "a tracer of its own": ("import sys\nsys.setprofile(lambda *_: None)\nresult = 7", "ok", None, None),
    "a codec of its own": ("import json, msgspec, pool.values, pool.wire\njson.dumps = pool.values.encode = pool.wire.encode_fault = None\nresult = 7",
                           "error", None, None),
    "an alarm": ("import signal, time\nsignal.alarm(1)\ntime.sleep(9)", "crash", None, signal.SIGALRM),
    "a stop": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timeout", None, 9),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_every_way_out_has_its_one_outcome_and_its_figures(name, client):
    code, outcome, exit_code, number = ENDS[name]
    until_its_limit = outcome == "timeout" or name == "a thread that lives on"
    result = client.run(code, limits=Limits(wall_s=3 if until_its_limit else None, memory="160m"))
    assert (result.outcome, result.exit_code, result.signal) == (outcome, exit_code, number), result
    assert (result.value == 7) == (outcome == "ok" and "result = 7" in code)
    assert (result.error is not None) == (outcome == "error")
    assert bool(result.reason) == (outcome != "ok" or name == "a thread that lives on")


def test_an_error_comes_with_the_jobs_own_lines_and_source(client):
    code = (
        "def inner(x):\n    raise ValueError(f'{x} shares')\n\n\ndef main(x):\n    # a comment\n    return inner(x)\n"
    )
    error = client.run(code, entry="main", args=[0]).error
    assert (error.type, error.message) == ("ValueError", "0 shares")
    for line in (
        'File "<job>", line 7, in main',
        "return inner(x)",
        'File "<job>", line 2, in inner',
        "raise ValueError",
    ):
        assert line in error.traceback
    assert "runner" not in error.traceback

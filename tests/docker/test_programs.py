"""A job's program runs as `python job.py` runs it, where that depends on the container: user, locale, zones, /dev, flags."""

import os

import pytest

from pool.model import Limits, Outcome
from tests.support.daemons import DaemonProcess

TEMPLATE = {
    "size": {"min": 1, "max": 1},
    "screen": "off",
    "recycle": {"max_jobs": 1000, "reuse_scope": "any"},
    "limits": {"wall_s": 100, "cpu_s": 20, "memory": "256m"},
}


@pytest.fixture(scope="module")
def client():
    pools = {
        "default": TEMPLATE,
        "plain": TEMPLATE | {"isolation": "plain", "preload": {"modules": []}},
        "two_cores": TEMPLATE | {"cpus": 2},
        "programs": TEMPLATE | {"allow": ["subprocess"]},
    }
    with DaemonProcess(pools, engine="docker") as running, running.client(timeout=60) as it:
        yield it


#: Program and what it prints.
PROGRAMS = {
    "user": (
        (
            "import getpass, grp, os, pathlib, pwd\nopen('x', 'w')\n"
            "print(getpass.getuser(), pwd.getpwuid(os.getuid()).pw_name, pathlib.Path('x').owner(), pathlib.Path('x').group(),\n"
            "      os.environ['USER'], os.environ['LOGNAME'], os.path.expanduser('~') == os.environ['HOME'] == os.getcwd(),\n"
            "      pwd.getpwnam('job').pw_dir == os.environ['HOME'])\n"
        ),
        "job job job job job job True True\n",
    ),
    "locale": (
        "import locale, sys\nprint(locale.setlocale(locale.LC_ALL, ''), sys.getfilesystemencoding(), open('x', 'w').encoding)\n",
        "C.UTF-8 utf-8 UTF-8\n",
    ),
    "zone of the C library": (
        "import os, time\nos.environ['TZ'] = 'Europe/Prague'\ntime.tzset()\nprint(time.tzname, time.localtime(1_700_000_000).tm_hour)\n",
        "('CET', 'CEST') 23\n",
    ),
    "zone of zoneinfo": (
        "import datetime, zoneinfo\nprint(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo('America/New_York')).utcoffset())\n",
        "-1 day, 20:00:00\n",
    ),
    "flags": (
        "import sys\nf = sys.flags\nprint(f.safe_path, f.no_user_site, f.isolated, f.utf8_mode, sys.orig_argv[1:], sys.path[0])\n",
        "False 0 0 0 ['job.py'] /tmp/work\n",
    ),
    "nothing of the runner": (
        (
            "import importlib, sys\nfound = [n for n in sys.modules if n.partition('.')[0] in ('runner', 'pool')]\n"
            "for name in ('runner', 'pool', 'runner.child', 'pool.wire'):\n"
            "    try: found.append(importlib.import_module(name))\n    except ImportError: pass\n"
            "print(found, [p for p in sys.path if 'pool' in p])\n"
        ),
        "[] []\n",
    ),
    "names of standard streams": (
        (
            "with open('/dev/stdout', 'w') as f: f.write('out\\n')\n"
            "open('/dev/fd/1', 'w').write('fd\\n')\nf = open(1, 'w', closefd=False); f.write('second\\n')\n"
        ),
        "out\nfd\nsecond\n",
    ),
}


@pytest.mark.parametrize("pool", ["default", "plain"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_finds_what_it_finds_on_any_system(client, name, pool):
    code, expected = PROGRAMS[name]
    result = client.run(code, pool=pool)
    assert (result.outcome, result.stdout) == (Outcome.OK, expected), result


@pytest.mark.parametrize("pool", ["default", "plain"])
@pytest.mark.parametrize("place", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_standard_input_is_read_by_its_name(client, place, pool):
    assert client.run(f"result = open({place!r}).read()", stdin="3 4\n", pool=pool).value == "3 4\n"
    assert client.run(f"result = open({place!r}).read()", pool=pool).value == ""


@pytest.mark.parametrize("pool", ["default", "plain"])
def test_standard_error_is_written_by_its_name(client, pool):
    assert client.run("open('/dev/stderr', 'w').write('told')", pool=pool).stderr == "told"


def test_the_descriptors_of_a_job_are_all_that_proc_shows(client):
    code = "import os\nresult = os.listdir('/proc'), os.listdir('/proc/self'), len(os.listdir('/proc/self/fd'))"
    entries, own, descriptors = client.run(code).value
    assert (entries, own) == (["self"], ["fd"])
    assert descriptors <= 5  # three streams, the channel, and that of the listing


def test_input_that_does_not_fit_is_said_not_to_fit(client):
    result = client.run("result = 1", files={"x": bytes(3_000_000)}, limits=Limits(tmp="1m"))
    assert (result.outcome, result.error.limit) == (Outcome.ERROR, "tmp")
    assert "did not run" in result.reason
    assert "do not fit" in result.reason


def test_a_program_that_may_not_be_started_is_refused_with_cause_and_way(client):
    result = client.run("import subprocess\nsubprocess.run(['python3', '-c', ''])")
    assert (result.outcome, result.error.type) == (Outcome.ERROR, "PermissionError")
    assert "allow: [subprocess]" in result.reason


THREADS = """
import threading
gate = threading.Event()
threads = [threading.Thread(target=gate.wait) for _ in range(60)]
for each in threads: each.start()
gate.set()
for each in threads: each.join()
result = len(threads)
"""


def test_threads_cost_the_memory_that_they_use(client):
    assert client.run(THREADS, limits=Limits(memory="64m")).value == 60
    more = THREADS.replace("60", "70").replace("gate.wait)", "gate.wait, daemon=True)")
    assert client.run(more).error.limit == "processes", "the default is 64"


def test_a_thread_has_a_stack_of_the_usual_size(client):
    code = (
        "import sys, threading\nsys.setrecursionlimit(30000)\nout = []\n"
        "def deep(n): return 1 if n == 0 else max([n], key=lambda n: deep(n - 1)) * 0 + 1\n"
        "t = threading.Thread(target=lambda: out.append(deep(5000)))\nSIZE\nt.start()\nt.join()\nresult = out\n"
    )
    assert client.run(code.replace("SIZE", "")).value == [1]
    small = client.run(code.replace("SIZE", "threading.stack_size(1 << 20)"))
    assert small.outcome is Outcome.CRASH, "so deep it does not fit into a smaller stack"


@pytest.mark.parametrize(("size", "threads"), [(256 << 20, 14), (16 << 20, 40), (1 << 20, 40)])
def test_threads_with_a_stack_of_their_own_size_cost_the_memory_that_they_use(client, size, threads):
    code = f"import threading\nthreading.stack_size({size})\n" + THREADS.replace("60", str(threads))
    assert client.run(f"{code}\nresult = result, threading.stack_size()").value == (threads, size)


def test_stacks_are_used_again_by_later_threads(client):
    code = (
        "import threading\nfor size in (0, 64 << 20) * 400:\n    threading.stack_size(size)\n"
        "    t = threading.Thread(target=list)\n    t.start()\n    t.join()\nresult = 800\n"
    )
    assert client.run(code, limits=Limits(memory="64m")).value == 800


def test_a_large_stack_is_there_to_be_used(client):
    code = (
        "import functools, sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(128 << 20)\n"
        "@functools.lru_cache(None)\ndef f(n): return n if n < 2 else f(n - 1) + 1\nout = []\n"
        "t = threading.Thread(target=lambda: out.append(f(60_000)))\nt.start()\nt.join()\nresult = out\n"
    )
    assert client.run(code).value == [60_000]


def test_executors_start_as_many_threads_as_they_take(client):
    code = (
        "import concurrent.futures as f, time\nwith f.ThreadPoolExecutor(32) as e:\n"
        "    result = sum(e.map(lambda n: (time.sleep(0.05), 1)[1], range(64)))\n"
    )
    assert client.run(code, limits=Limits(memory="64m")).value == 64


def test_the_cores_are_those_of_the_quota(client):
    code = "import os, multiprocessing\nresult = os.cpu_count(), len(os.sched_getaffinity(0)), multiprocessing.cpu_count(), os.environ['POLARS_MAX_THREADS']"
    assert client.run(code).value == (1, 1, 1, "1")


BLAS = """
import ctypes, glob, numpy, os
library = ctypes.CDLL(glob.glob(f"{os.path.dirname(numpy.__file__)}.libs/libscipy_openblas64*")[0])
square = numpy.ones((500, 500))
result = float((square @ square)[0, 0]), library.scipy_openblas_get_num_threads64_()
"""


def test_linear_algebra_has_as_many_threads_as_there_are_cores_and_they_cost_no_memory_of_the_limit(client):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one core")
    assert client.run(BLAS, pool="two_cores", limits=Limits(memory="16m")).value == (500.0, 2)
    assert client.run(BLAS).value == (500.0, 1)


HELPERS = {
    "shared memory": (
        (
            "from multiprocessing import shared_memory\ns = shared_memory.SharedMemory(create=True, size=10)\ns.buf[0] = 7\n"
            "o = shared_memory.SharedMemory(s.name)\nresult = o.buf[0]\no.close(); s.close(); s.unlink()\n"
        ),
        7,
    ),
    "spawn": (
        (
            "import multiprocessing as mp\ndef square(x): return x * x\nif __name__ == '__main__':\n"
            "    mp.set_start_method('spawn')\n    with mp.Pool(2) as pool: result = pool.map(square, range(4))\n"
        ),
        [0, 1, 4, 9],
    ),
    "forkserver": (
        (
            "import multiprocessing as mp\ndef put(q): q.put(5)\nif __name__ == '__main__':\n    c = mp.get_context('forkserver')\n"
            "    q = c.Queue()\n    p = c.Process(target=put, args=(q,))\n    p.start()\n    result = q.get()\n    p.join()\n"
        ),
        5,
    ),
    "manager": (
        (
            "import multiprocessing as mp\ndef work(shared, n): shared[n] = n * n\n"
            "with mp.Pool(1) as older, mp.Manager() as manager:\n    shared = manager.dict()\n"
            "    younger = mp.get_context('spawn').Process(target=work, args=(shared, 3))\n    younger.start()\n"
            "    older.apply(work, (shared, 2))\n    younger.join()\n    result = sorted(shared.values())\n"
        ),
        [4, 9],
    ),
    "manager of shared memory": (
        (
            "from multiprocessing.managers import SharedMemoryManager\n"
            "with SharedMemoryManager() as manager: result = list(manager.ShareableList([1, 'a']))\n"
        ),
        [1, "a"],
    ),
    "listener": (
        (
            "from multiprocessing import Process\nfrom multiprocessing.connection import Client, Listener\n"
            "def ask():\n    with Client(('localhost', 6000), authkey=b'k') as c: c.send('asked')\n"
            "with Listener(('localhost', 6000), authkey=b'k') as listener:\n    p = Process(target=ask)\n    p.start()\n"
            "    with listener.accept() as c: result = c.recv()\n    p.join()\n"
        ),
        "asked",
    ),
    "process pool executor with spawn": (
        (
            "import concurrent.futures as f, multiprocessing as mp\ndef square(x): return x * x\n"
            "if __name__ == '__main__':\n    with f.ProcessPoolExecutor(1, mp_context=mp.get_context('spawn')) as e:\n"
            "        result = list(e.map(square, range(3)))\n"
        ),
        [0, 1, 4],
    ),
    "process pool executor": (
        "import concurrent.futures as f, math\nwith f.ProcessPoolExecutor(2) as e: result = list(e.map(math.factorial, range(4)))\n",
        [1, 1, 2, 6],
    ),
}


#: The worker of "plain" has not imported multiprocessing.
@pytest.mark.parametrize("pool", ["default", "programs", "plain"])
@pytest.mark.parametrize("name", HELPERS)
def test_a_library_that_wants_a_helper_works_with_and_without_one(client, name, pool):
    code, value = HELPERS[name]
    result = client.run(code, pool=pool)
    assert (result.outcome, result.value, result.stderr) == (Outcome.OK, value, ""), result


SERVERS = {
    "nothing listens": (
        "from multiprocessing.connection import Client\nClient(('localhost', 6000))",
        "no manager or listener was started at ('localhost', 6000)",
    ),
    "its user is a new interpreter": (
        (
            "import multiprocessing as mp\nwith mp.get_context('spawn').Pool(1) as pool:\n"
            "    pool.map(print, [mp.Manager().list()])\n"
        ),
        "a manager is reached by forked processes only",
    ),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_cannot_be_reached_is_refused_at_once_with_cause_and_way(client, name):
    code, words = SERVERS[name]
    result = client.run(code, pool="programs")
    assert (result.outcome, result.error.type) == (Outcome.ERROR, "PermissionError"), result
    assert words in result.error.message
    assert "jobs have no sockets" in result.error.message
    assert "use Queue, Pipe" in result.error.message or "or Queue, Pipe" in result.error.message

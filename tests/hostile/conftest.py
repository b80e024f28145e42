"""A real daemon with real workers for the attacks of the catalogue, and the same attack outside the sandbox.

    attack(code)    runs `main` of the code in the pool `open` (the screen is off): a JobResult
    screened(code)  the same in the pool `screened`
    outside(code)   the same in a plain process of this host, to show that the attack works where nothing stops it

    unmoved(code)   in a pool with one worker, whose runner and zygote are afterwards what they were (alone.py)
    unbound(code)   the value of the same code, with the same prelude, outside; `victim` is a process to try it on

    record(...)     what it came to, for the table of docs/security.md

With POOL_HOSTILE_ENGINE=oci the workers are started without a Docker Engine; POOL_HOSTILE_PYTHON=3.13 is the Python in them.

After each test the pool is whole again: an honest job gives the right value.
"""

import json
import os
import tempfile
from ast import literal_eval
from dataclasses import dataclass

import pytest

from pool.model import Limits
from tests.hostile import record as records
from tests.hostile.alone import ENGINE, IMAGE, PRELUDE, bystander, make_image, one_worker
from tests.hostile.surroundings import Surroundings
from tests.support.daemons import DaemonProcess
from tests.support.process import python

TEMPLATE = {
    "image": IMAGE,
    "size": {"min": 1, "max": 2},
    "recycle": {"max_jobs": 100_000},
    "preload": {"modules": ["numpy", "pandas"]},
    "limits": {"wall_s": 20, "cpu_s": 20, "memory": "256m", "tmp": "16m", "processes": 24},
    "max_limits": {"wall_s": 100},
    "screen": "off",
}
POOLS = {"open": TEMPLATE, "screened": TEMPLATE | {"screen": "standard", "size": {"min": 1, "max": 1}}}

_RUN = """
import json, os, sys
code, arguments, user = json.loads(sys.stdin.read())
scope = {"__name__": "job"}
try:
    exec(compile(code, "<job>", "exec"), scope)
    if user is not None:
        os.setgroups([]), os.setgid(user), os.setuid(user)
    print(json.dumps({"value": repr(scope["main"](*arguments))}), file=sys.__stdout__)
except BaseException as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=sys.__stdout__)
sys.__stdout__.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class Outside:
    """The result without a sandbox."""

    value: object = None  #: the repr of what main returned
    error: str = ""
    status: int = 0  #: of the process, negative for a signal


@pytest.fixture(scope="session")
def daemon():
    make_image()
    with DaemonProcess(POOLS, engine=ENGINE, patient=True) as running:
        yield running


@pytest.fixture(scope="session")
def client(daemon):
    with daemon.client(timeout=120) as it:
        yield it


def honest(client, pool):
    """Run a job of another client; it has to be right."""
    result = client.run("def main(x):\n    return x * 2", entry="main", args=[21], pool=pool)
    assert (result.outcome, result.value) == ("ok", 42), result
    return result


@pytest.fixture
def attack(daemon, client):
    """Run it where the screen is off; whatever it did, the pool serves on."""

    def run(code, *args, limits=None, **options):
        limits = Limits(**limits) if limits else None
        return client.run(code, entry="main", args=list(args), pool="open", limits=limits, **options)

    yield run
    honest(client, "open")


@pytest.fixture
def screened(client):
    def run(code, *args, **options):
        return client.run(code, entry="main", args=list(args), pool="screened", **options)

    yield run
    honest(client, "screened")


@pytest.fixture
def script(client):
    """Run it as a script where the screen is off; its value is what it leaves in `result`."""
    return lambda code, **options: client.run(code, pool="open", **options)


@pytest.fixture
def unharmed(daemon, client):
    """After the test the workers, the daemon and its files are what they were, and both pools serve on."""
    for pool in POOLS:
        honest(client, pool)
    before = Surroundings(daemon)
    yield
    for pool in POOLS:
        honest(client, pool)
    before.check()


@pytest.fixture(scope="session")
def outside():
    """Run it in a plain process, in a directory of its own; `user`: drop to this user id before main."""

    def run(code, *args, user=None, timeout=300):
        with tempfile.TemporaryDirectory(prefix="outside.") as home:
            os.chmod(home, 0o777)
            process = python(
                "-c",
                _RUN,
                input=json.dumps([code, args, user]),
                cwd=home,
                timeout=timeout,
                env={"PATH": os.environ["PATH"], "HOME": home, "OPENBLAS_NUM_THREADS": "1"},
            )
        last = process.stdout.strip().splitlines()[-1:] or ["{}"]
        return Outside(**json.loads(last[0]), status=process.returncode)

    return run


@pytest.fixture(scope="module")
def alone():
    with one_worker() as it:
        yield it


@pytest.fixture
def unmoved(alone):
    with alone.unmoved() as run:
        yield run


@pytest.fixture
def victim():
    with bystander() as process:
        yield process


@pytest.fixture
def unbound(outside):
    return lambda code, *args: literal_eval(outside(PRELUDE + code, *args).value)


@pytest.fixture
def record(request):
    def keep(number, title, outcome, *, stopped_by, seen="", outside="", screen_off=True):
        entry = records.Entry(
            number, title, outcome, tuple(stopped_by), str(seen)[:200], str(outside)[:200], screen_off
        )
        request.config.stash.setdefault(ENTRIES, []).append(entry)

    return keep


ENTRIES = pytest.StashKey()


def pytest_sessionfinish(session):
    records.write(session.config.stash.get(ENTRIES, []))

"""A pool with one worker, and the state of that worker that a job could have changed, as root of the host sees it.

with one_worker() as alone:
    first = alone.run(code)           a JobResult
    alone.same(first)                 whether the worker that served it is still the pool's
    alone.view().state()              limits, scheduling, signals, ... of runner and zygote
"""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pool.images import DEFAULT_TAG, build
from pool.model import Limits
from tests.docker import live
from tests.support.daemons import DaemonProcess, build_lock

TEMPLATE = {
    "size": {"min": 1, "max": 1},
    "recycle": {"max_jobs": 100_000},
    "preload": {"modules": ["numpy", "pandas"]},
    "limits": {"wall_s": 20, "cpu_s": 20, "memory": "256m", "tmp": "16m", "processes": 24},
}
#: What starts the workers.
ENGINE = os.environ.get("POOL_HOSTILE_ENGINE", "docker")
#: The version of Python in the workers, "" for that of the standard image.
PYTHON = os.environ.get("POOL_HOSTILE_PYTHON", "")
IMAGE = f"pool-worker-python{PYTHON}:latest" if PYTHON else DEFAULT_TAG
#: For the code of a job: raw calls, and what an action comes to.
PRELUDE = """
import ctypes, errno, fcntl, os, resource, signal, socket, struct, sys, time
LIBC = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    ctypes.set_errno(0)
    answer = LIBC.syscall(ctypes.c_long(number), *arguments)
    return "ok" if answer != -1 else errno.errorcode[ctypes.get_errno()]

def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "ok"
"""
#: For tests that look at a worker from the host.
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into another user's processes")
#: What the signals that a process ignores, blocks and catches are called, and who traces it.
_SIGNALS = ("SigBlk", "SigIgn", "SigCgt", "TracerPid", "State", "NoNewPrivs", "Seccomp")


def make_image():
    with build_lock():
        build(IMAGE, progress=print, python=PYTHON or None)


@contextlib.contextmanager
def one_worker(daemon_settings=None, **template):
    make_image()
    pools = {"default": TEMPLATE | {"image": IMAGE} | template}
    with (
        DaemonProcess(pools, engine=ENGINE, patient=True, **(daemon_settings or {})) as daemon,
        daemon.client(timeout=120) as client,
    ):
        daemon.until(lambda: daemon.workers(state="idle"))
        yield Alone(daemon, client)


@contextlib.contextmanager
def bystander():
    """A process of another program on the host that waits, as the runner does, and would show what was done to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import time\nprint(1, flush=True)\ntime.sleep(60)"], stdout=subprocess.PIPE
    )
    process.stdout.read(1)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Alone:
    """The pool, its one worker and a client."""

    def __init__(self, daemon, client):
        self.daemon, self.client = daemon, client

    def run(self, code, *args, limits=None, entry="main", **options):
        limits = Limits(**limits) if limits else None
        return self.client.run(code, entry=entry, args=list(args), limits=limits, **options)

    def honest(self):
        result = self.run("def main(x):\n    return x * 2", 21)
        assert (result.outcome, result.value) == ("ok", 42), result
        return result

    def rest(self):
        """Wait until the worker has cleared up; its record."""
        self.daemon.until(lambda: self.daemon.workers(state="idle"))
        return self.daemon.workers(state="idle")[0]

    def view(self):
        return View(self.rest()["container"])

    @contextlib.contextmanager
    def unmoved(self):
        """Runs attacks in the worker; afterwards runner and zygote are the same processes in the same state."""
        before = self.view()
        state = before.state()

        def run(code, *args, **options):
            result = self.run(PRELUDE + code, *args, **options)
            assert result.container == before.container
            return result

        yield run
        assert self.honest().container == before.container
        after = self.view()
        assert (after.runner, after.zygote) == (before.runner, before.zygote)
        assert after.state() == state

    def recycles(self, reason):
        return self.daemon.pool()["recycles"].get(reason, 0)


class View:
    """A container's processes by the host's /proc."""

    def __init__(self, container):
        self.container = container
        parents = {pid: _status(pid) for pid in live.processes(container)}
        parents = {pid: int(status["PPid"]) for pid, status in parents.items() if status}
        self.runner = next(pid for pid, parent in parents.items() if parent not in parents)
        children = [pid for pid, parent in parents.items() if parent == self.runner]
        assert len(children) == 1, children
        self.zygote = children[0]
        self.others = sorted(parents.keys() - {self.runner, self.zygote})

    def state(self):
        """Everything about the runner and the zygote that somebody else could have changed."""
        return {name: _state(pid) for name, pid in (("runner", self.runner), ("zygote", self.zygote))}

    def usage(self):
        """Figures that a leak raises: descriptors, threads and resident bytes of both, and the scratch directories."""
        sizes = {}
        for name, pid in (("runner", self.runner), ("zygote", self.zygote)):
            sizes[f"{name} descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
            sizes[f"{name} threads"] = len(os.listdir(f"/proc/{pid}/task"))
            sizes[f"{name} anonymous"] = _anonymous_bytes(pid)
        for place in ("/tmp", "/dev/shm"):
            found = os.statvfs(f"/proc/{self.runner}/root{place}")
            sizes[f"{place} blocks"] = found.f_blocks - found.f_bfree
            sizes[f"{place} inodes"] = found.f_files - found.f_ffree
        sizes["processes"] = len(live.processes(self.container))
        return sizes

    def zombies(self):
        return [pid for pid in live.processes(self.container) if _status(pid).get("State", "").startswith("Z")]


def settled(alone, condition, timeout=60):
    """Whether the condition holds in time. A worker cleans up after its answer."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition(alone.view()):
            return True
        time.sleep(0.05)
    return False


def _state(pid):
    status = _status(pid)
    return {
        "limits": Path(f"/proc/{pid}/limits").read_text(),
        "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "affinity": os.sched_getaffinity(pid),
        "scheduler": os.sched_getscheduler(pid),
        "parameter": os.sched_getparam(pid).sched_priority,
        "oom": Path(f"/proc/{pid}/oom_score_adj").read_text(),
        "session": os.getsid(pid),
        "group": os.getpgid(pid),
        "root": os.readlink(f"/proc/{pid}/root"),
        "namespaces": live.namespaces(pid),
        "environment": Path(f"/proc/{pid}/environ").read_bytes(),
        **{name: status[name] for name in _SIGNALS if name != "State"},
        "stopped": status["State"][0] in "Tt",
    }


def _status(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _anonymous_bytes(pid):
    """Of all pages, shared with a child or not: what is shared depends on how much the parked child has written."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Anonymous:", "Swap:")))

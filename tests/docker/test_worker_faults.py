"""Faults of real workers, made by the host: a pause, an end, no memory for the runner; and the outcome of each job."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pool.model import Outcome
from tests.docker import live
from tests.support.daemons import pool_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="signals processes of other users; needs root")

MEMORY_BYTES = 256 << 20
TEMPLATE = pool_of(2, limits={"wall_s": 300, "cpu_s": 300, "memory": MEMORY_BYTES})
#: Its process has a name that no other one of this host has, and ends when it is told to.
WAITS = """
import ctypes, signal
def main(name, mark):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ctypes.CDLL(None).prctl(15, f"{name}-{mark}".encode(), 0, 0, 0)
    signal.sigwait({signal.SIGUSR1})
    return name
"""
#: So that another run of these tests on this host has other names; the kernel keeps 15 characters.
MARK = secrets.token_hex(3)


def submit(client, daemon, name, **options):
    job_id = client.submit(WAITS, entry="main", args=[name, MARK], **options)
    daemon.until(lambda: named(name))
    return job_id


def named(name):
    """Pids of the processes of this job."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if path.read_text().strip() == f"{name}-{MARK}":
                found.append(int(path.parent.name))
    return found


def whole(daemon):
    return len(daemon.workers(state="idle")) == 2


def test_a_paused_worker_is_replaced_its_job_is_lost_and_the_other_job_goes_on(daemon, client, sdk):
    daemon.until(lambda: whole(daemon))
    jobs = [submit(client, daemon, name) for name in ("paused", "unharmed")]
    paused = daemon.worker_of(jobs[0])
    sdk.pause(paused["container"])
    lost = client.result(jobs[0])
    assert (lost.outcome, lost.worker) == (Outcome.LOST, paused["id"])
    assert "its control group is frozen" in lost.reason
    daemon.until(lambda: len(daemon.workers(state="idle")) == 1)
    (process,) = named("unharmed")
    os.kill(process, signal.SIGUSR1)
    assert client.result(jobs[1]).value == "unharmed"
    assert named("paused") == []
    assert daemon.pool()["recycles"]["frozen"] == 1


def test_a_job_with_retries_outlives_a_removed_container_and_a_stopped_runner(daemon, client, sdk):
    daemon.until(lambda: whole(daemon))
    job_id = submit(client, daemon, "retried", retries=2)
    for strike in (
        lambda worker: sdk.remove_container(worker["container"], force=True),
        lambda worker: os.kill(live.first_process(worker["container"]), signal.SIGSTOP),
    ):
        before = daemon.worker_of(job_id)
        strike(before)
        daemon.until(lambda gone=before["id"]: gone not in {each["id"] for each in daemon.workers()})
        daemon.until(lambda: named("retried"))
    (process,) = named("retried")
    os.kill(process, signal.SIGUSR1)
    result = client.result(job_id)
    assert (result.value, result.attempt) == ("retried", 3)


def test_the_job_of_a_worker_whose_process_that_forks_jobs_is_killed_is_lost_and_the_worker_is_replaced(
    daemon, client, sdk
):
    daemon.until(lambda: whole(daemon))
    job_id = submit(client, daemon, "orphan")
    worker = daemon.worker_of(job_id)
    runner = live.first_process(worker["container"])
    zygote, *_ = Path(f"/proc/{runner}/task/{runner}/children").read_text().split()
    os.kill(int(zygote), signal.SIGKILL)
    result = client.result(job_id)
    assert (result.outcome, result.worker) == (Outcome.LOST, worker["id"])
    daemon.until(lambda: worker["id"] not in {each["id"] for each in daemon.workers()} and whole(daemon))
    daemon.until(lambda: named("orphan") == [])


def test_the_job_of_a_runner_that_the_kernel_ends_for_want_of_memory_is_lost(daemon, client, sdk):
    """A process of the host enters the worker's control group and takes its memory, so the kernel kills the runner."""
    daemon.until(lambda: whole(daemon))
    job_id = submit(client, daemon, "oom")
    worker = daemon.worker_of(job_id)
    runner = live.first_process(worker["container"])
    group = memory_group(runner)
    for pid in (group / "cgroup.procs").read_text().split():
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000" if int(pid) == runner else "0")
    enter = f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid()))"
    subprocess.run([sys.executable, "-c", f"{enter}\nb'x' * {2 * MEMORY_BYTES}"], check=False)
    result = client.result(job_id)
    assert (result.outcome, result.worker) == (Outcome.LOST, worker["id"])
    daemon.until(lambda: whole(daemon))
    assert named("oom") == []


def memory_group(pid):
    """The directory of the control group that limits its memory."""
    root = Path("/sys/fs/cgroup")
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        place = root / controllers / path.lstrip("/")
        if controllers in {"", "memory"} and (place / "memory.stat").exists():
            return place
    return pytest.skip("no control group of this host limits a worker's memory")

"""Clients that disconnect, and what happens to their jobs."""

import signal
import subprocess
import sys
from math import inf
from types import SimpleNamespace

import pytest

from pool.daemon import sessions
from pool.daemon.sessions import GRACE_S, Sessions
from tests.support.daemons import DaemonProcess
from tests.unit.test_daemon import SMALL

A, B = b"connection a", b"connection b"


class Listener:
    """The part of a ClientListener that sessions use."""

    def __init__(self):
        self.open = {A, B}

    def queued_bytes(self, address):
        return 0 if address in self.open else None

    def close(self, address):
        self.open.discard(address)
        self.on_end(address)


@pytest.fixture
def world(monkeypatch):
    """Sessions with a clock of their own. `cancelled` has the jobs that were cancelled."""
    clock = SimpleNamespace(monotonic=lambda: world.now)
    monkeypatch.setattr(sessions, "time", clock)
    listener, jobs, cancelled = Listener(), [], []
    world = SimpleNamespace(now=100.0, listener=listener, jobs=jobs, cancelled=cancelled)
    world.sessions = Sessions(listener, jobs, lambda job: cancelled.append(job.key))

    def job(key, session="one"):
        found = SimpleNamespace(
            key=key, client="0", pool="default", session=f"0/{session}", run=object(), watchers=set()
        )
        jobs.append(found)
        world.sessions.bind(found.session)
        return found

    world.job = job
    return world


def later(world, seconds):
    """Let time pass with a tick each second."""
    until = world.now + seconds
    while world.now < until:
        world.now = min(world.now + 1, until)
        look_at = world.sessions.tick(world.now)
    return look_at


def test_jobs_of_a_client_that_is_gone_are_cancelled_after_the_grace(world):
    world.sessions.announce(A, "0", "one")
    world.job("j")
    assert later(world, 1000) == inf
    world.listener.close(A)
    assert later(world, GRACE_S - 0.1) == pytest.approx(world.now + 0.1)
    assert world.cancelled == []
    assert later(world, 0.2) == inf
    assert world.cancelled == ["j"]


def test_a_client_that_connects_again_keeps_its_jobs(world):
    world.sessions.announce(A, "0", "one")
    world.job("j")
    world.listener.close(A)
    later(world, 1)
    world.sessions.announce(B, "0", "one")
    assert later(world, 1000) == inf
    assert world.cancelled == []
    world.listener.close(B)
    later(world, GRACE_S)
    assert world.cancelled == ["j"]


@pytest.fixture
def paused(world):
    """A client is absent for a second when the daemon stops, which goes on much later."""
    world.sessions.announce(A, "0", "one")
    world.job("j")
    world.listener.close(A)
    later(world, 1)
    world.now += 1000
    return world


def test_a_client_can_connect_again_after_a_pause_of_the_daemon(paused):
    world = paused
    later(world, GRACE_S - 1.1)
    assert world.cancelled == []
    world.sessions.announce(B, "0", "one")
    later(world, 1000)
    assert world.cancelled == []


def test_a_client_that_does_not_connect_again_after_a_pause_of_the_daemon_is_gone(paused):
    later(paused, GRACE_S)
    assert paused.cancelled == ["j"]


def test_a_client_with_two_connections_is_there_until_both_are_gone(world):
    world.sessions.announce(A, "0", "one")
    world.sessions.announce(B, "0", "one")
    world.job("j")
    world.listener.close(A)
    assert later(world, 1000) == inf


def test_the_session_of_another_user_is_another_one(world):
    world.sessions.announce(A, "0", "one")
    world.job("j")
    world.listener.close(A)
    world.sessions.announce(B, "1001", "one")
    later(world, GRACE_S)
    assert world.cancelled == ["j"]


@pytest.mark.parametrize("change", [{"watchers": {A, B}}, {"run": None}], ids=["that is waited for", "that has ended"])
def test_a_job_that_somebody_else_waits_for_or_that_has_ended_is_not_cancelled(world, change):
    world.sessions.announce(A, "0", "one")
    vars(world.job("j")).update(change)
    world.listener.close(A)
    later(world, GRACE_S)
    assert world.cancelled == []


def test_the_job_of_a_client_that_was_gone_before_it_was_read_is_cancelled(world):
    world.listener.close(A)
    world.sessions.announce(A, "0", "one")
    world.job("j")
    later(world, GRACE_S)
    assert world.cancelled == ["j"]


def test_nothing_is_kept_of_clients_that_are_gone(world):
    for number in range(100):
        address = str(number).encode()
        world.listener.open.add(address)
        world.sessions.announce(address, "0", f"s{number}")
        world.job(f"j{number}", f"s{number}")
        world.listener.close(address)
    later(world, GRACE_S)
    kept = (world.sessions._connected, world.sessions.of, world.sessions.absent, world.sessions.with_jobs)
    assert [len(each) for each in kept] == [0, 0, 0, 0]


PROGRAM = """
import sys
from pool import Client
client = Client(sys.argv[1], timeout=60)
client.submit("import time; time.sleep(60)", job_id="kept")
client.submit("import time; time.sleep(60)", job_id="waits", on_disconnect="cancel")
print("submitted", flush=True)
client.run("import time; time.sleep(60)", job_id="runs")
"""


def test_the_jobs_of_a_client_that_was_killed_end_unless_they_were_only_submitted():
    with (
        DaemonProcess({"default": SMALL | {"size": {"min": 2, "max": 2}}}) as daemon,
        daemon.client(timeout=60) as other,
    ):
        command = [sys.executable, "-c", PROGRAM, daemon.endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            client.stdout.readline()
            daemon.until(lambda: daemon.pool()["backlog"] == 1)
            client.send_signal(signal.SIGKILL)
        # A client that asked for the result now would count as one that waits for the job.
        daemon.until(lambda: (daemon.pool()["backlog"], daemon.pool()["running"]) == (0, 1))
        ended = {job_id: str(other.result(job_id, timeout=60).outcome) for job_id in ("waits", "runs")}
        assert ended == {"waits": "cancelled", "runs": "cancelled"}
        other.cancel("kept")


#: Submits a job that ends with this process, and stays.
STAYS = """
import sys, time
from pool import Client
client = Client(sys.argv[1], timeout=60)
client.submit(sys.argv[2], job_id="of-the-dead", on_disconnect="cancel")
client.submit(sys.argv[2], job_id="asked-to-keep", on_disconnect="cancel")
client.submit(sys.argv[2], job_id="asked-to-keep", on_disconnect="keep")
print("submitted", flush=True)
time.sleep(600)
"""


def test_over_a_restart_of_the_daemon_the_jobs_of_clients_that_are_gone_end_and_those_of_the_others_go_on(home):
    pool = SMALL | {"size": {"min": 3, "max": 3}, "limits": {"wall_s": 300, "cpu_s": 300}}
    waits = f"import os, time\nwhile not os.path.exists({str(home / 'go')!r}): time.sleep(0.02)\nresult = 7"
    with DaemonProcess({"default": pool}, home=home, durability="crash") as first, first.client(timeout=120) as living:
        living.submit(waits, job_id="of-the-living", on_disconnect="cancel")
        with subprocess.Popen([sys.executable, "-c", STAYS, first.endpoint, waits], stdout=subprocess.PIPE) as dead:
            dead.stdout.readline()
            first.kill()
            dead.kill()
        with DaemonProcess({"default": pool}, home=home, durability="crash") as second:
            second.until(lambda: [each["outcome"] for each in jobs(second, "of-the-dead")] == ["cancelled"])
            (home / "go").touch()
            for job_id in ("of-the-living", "asked-to-keep"):
                assert living.result(job_id, timeout=60).value == 7, job_id


def jobs(daemon, job_id):
    return [each for each in daemon.call("jobs")["jobs"] if each["id"] == job_id]

"""Faults of the Docker Engine: the pool serves with the workers it has, asks seldom, and leaves nothing behind.

A socket between daemon and Engine refuses, closes or hangs, so that no Engine that others use has to be disturbed.
"""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from pool.errors import PoolUnavailableError
from pool.model import Outcome
from tests.docker import live
from tests.support.daemons import DaemonProcess, pool_of
from tests.support.engine_proxy import EngineProxy, engine_socket, gone, refusing

POOL = pool_of(2, recycle={"max_jobs": 100_000}, limits={"wall_s": 120, "cpu_s": 120}, boot_timeout_s=60)
#: Tries to start a worker in the time of a test: after 0.75 s at least, then 1.5 s, and so on.
FEW = 30


@pytest.fixture(scope="module")
def proxy():
    place = Path(tempfile.mkdtemp(prefix="pool.", dir="/tmp"))
    with EngineProxy(place / "docker.sock", engine=engine_socket()) as between:
        yield between
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def daemon(proxy):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", proxy.host)
        running = DaemonProcess({"default": POOL}, engine="docker")
        with running:
            yield running


@pytest.fixture(autouse=True)
def whole(daemon, proxy):
    """Each test begins and ends with a whole pool that has nothing to report."""
    daemon.until(lambda: is_whole(daemon))
    yield
    proxy.answer = None
    daemon.call("resume")
    daemon.until(lambda: is_whole(daemon))


def is_whole(daemon):
    return len(daemon.workers(state="idle")) == 2 and not daemon.status()["alerts"]


def kill_worker(daemon):
    victim = daemon.workers(state="idle")[0]
    os.kill(live.first_process(victim["container"]), signal.SIGKILL)
    daemon.until(lambda: victim["id"] not in {each["id"] for each in daemon.workers(state="idle")})
    return victim["id"]


def kill_leased(daemon):
    """Kill the workers that have a job, and wait until the daemon has tried to remove their containers."""
    leased = {worker["id"]: worker["container"] for worker in daemon.workers(state="leased")}
    for container in leased.values():
        os.kill(live.first_process(container), signal.SIGKILL)
    daemon.until(lambda: leased.keys().isdisjoint(worker["id"] for worker in daemon.workers()))


def alerts(daemon):
    return {alert["id"]: alert["text"] for alert in daemon.status()["alerts"]}


def containers(sdk, daemon):
    owner = (daemon.state_dir / "owner").read_text().strip()
    return {each["Id"] for each in sdk.containers(all=True, filters={"label": f"pool.owner={owner}"})}


def assert_no_orphan(sdk, daemon):
    daemon.until(lambda: is_whole(daemon))
    daemon.until(lambda: containers(sdk, daemon) == {each["container"] for each in daemon.workers()})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refusing(500, "an internal error"), "an internal error"),
        (refusing(500, "write /data: no space left on device", only="/containers/create"), "no space left on device"),
    ],
    ids=["answers 500", "disk full"],
)
def test_while_the_engine_refuses_the_other_worker_serves_and_starts_are_tried_seldom(
    daemon, proxy, sdk, answer, reason
):
    proxy.answer = answer
    before = len(proxy.calls)
    kill_worker(daemon)
    with daemon.client(timeout=60) as client:
        daemon.until(lambda: client.run("result = 1").value == 1 and "breaker:default" in alerts(daemon))
        assert reason in alerts(daemon)["breaker:default"]
        assert client.run("result = 2").value == 2
    assert len(proxy.calls) - before <= FEW
    proxy.answer = None
    assert_no_orphan(sdk, daemon)


def test_an_engine_that_hangs_stops_no_job_and_what_it_was_asked_for_leaves_no_container(daemon, proxy, sdk):
    proxy.answer = proxy.hang
    before = len(proxy.calls)
    kill_worker(daemon)
    daemon.until(lambda: len(proxy.calls) >= before + 2)  # a removal and a start
    with daemon.client(timeout=60) as client:
        assert [client.run(f"result = {n}").value for n in range(50)] == list(range(50))
    assert len(proxy.calls) - before <= FEW
    proxy.answer = None
    assert_no_orphan(sdk, daemon)


def test_without_any_worker_jobs_are_refused_and_those_that_wait_run_when_the_engine_is_back(daemon, proxy, sdk):
    proxy.answer = gone
    for _ in range(2):
        kill_worker(daemon)
    with daemon.client(timeout=120) as client:
        waits = client.submit("result = 'waited'")
        daemon.until(lambda: "breaker:default" in alerts(daemon))
        with pytest.raises(PoolUnavailableError) as caught:
            client.submit("result = 1")
        assert 0 < caught.value.fields["retry_after_s"] <= 60
        proxy.answer = None
        assert client.result(waits).value == "waited"
    assert_no_orphan(sdk, daemon)


def test_an_image_that_is_deleted_is_named_with_the_command_that_builds_it(daemon, proxy, sdk):
    proxy.answer = refusing(404, "No such image: pool-worker:latest", only="/containers/create")
    kill_worker(daemon)
    with daemon.client(timeout=60) as client:
        daemon.until(lambda: client.run("result = 1").value == 1 and "breaker:default" in alerts(daemon))
    assert "pool-admin image build" in alerts(daemon)["breaker:default"]
    proxy.answer = None
    daemon.call("resume")  # what an operator does after the build; otherwise it is tried within a minute
    assert_no_orphan(sdk, daemon)


def test_code_that_ran_when_the_engine_ended_its_workers_is_not_refused(daemon, proxy):
    """As an Engine does that is stopped: its API is closed, then its containers are killed."""
    program = "def main(seconds):\n    import time\n    time.sleep(seconds)\n    return 'ran'"
    with daemon.client(timeout=120) as client:
        for _ in range(2):  # four workers; three would be enough for a refusal
            jobs = [client.submit(program, entry="main", args=[100]) for _ in range(2)]
            daemon.until(lambda: len(daemon.workers(state="leased")) == 2)
            proxy.answer = gone
            kill_leased(daemon)
            assert {client.result(job).outcome for job in jobs} == {Outcome.LOST}
            proxy.answer = None
            daemon.call("resume")
            daemon.until(lambda: is_whole(daemon))
        assert daemon.pool()["poison"] == []
        assert client.run(program, entry="main", args=[0]).value == "ran"

"""One daemon with a pool of each engine: what a pool does is the same on both."""

import os
import signal

import pytest

from pool.model import Limits, Outcome
from tests.docker import live
from tests.support.daemons import DaemonProcess, pool_of

WAIT_S = 120
POOLS = {
    name: pool_of(1, engine=name, recycle={"max_jobs": 1000}, limits={"wall_s": 600, "memory": "96m"})
    for name in ("docker", "oci")
}
each_pool = pytest.mark.parametrize("pool", POOLS)


@pytest.fixture(scope="module")
def daemon(oci_usable):
    del oci_usable
    with DaemonProcess(POOLS, engine="oci") as running:
        yield running


@pytest.fixture(scope="module")
def client(daemon):
    with daemon.client(timeout=WAIT_S) as it:
        yield it


def test_the_status_tells_the_engine_of_each_pool_and_every_worker_has_proven_its_lockdown(daemon):
    daemon.until(lambda: all(daemon.workers(name, state="idle") for name in POOLS))
    assert {each["name"] for each in daemon.status()["daemon"]["engines"]} == set(POOLS)
    for name in POOLS:
        (worker,) = daemon.workers(name)
        assert (daemon.pool(name)["engine"], worker["lockdown"]) == (name, "verified")
        assert worker["rss_bytes"] > 1 << 20
        assert live.processes(worker["container"])


@each_pool
@pytest.mark.parametrize(
    ("code", "limits", "outcome"),
    [
        ("import numpy; result = int(numpy.arange(10).sum())", {}, Outcome.OK),
        ("1 / 0", {}, Outcome.ERROR),
        ("while True: pass", {"wall_s": 0.5}, Outcome.TIMEOUT),
        ("x = bytearray(1 << 30)", {}, Outcome.MEMORY),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", {}, Outcome.CRASH),
    ],
    ids=["ok", "error", "timeout", "memory", "crash"],
)
def test_a_job_has_the_same_outcome(client, pool, code, limits, outcome):
    result = client.run(code, pool=pool, limits=Limits(**limits))
    assert result.outcome == outcome, result


@each_pool
def test_a_worker_that_is_killed_from_outside_is_replaced_and_nothing_of_it_is_left(daemon, client, pool):
    job_id = client.submit("import time; time.sleep(600)", pool=pool)
    victim = daemon.worker_of(job_id, pool)
    os.kill(live.first_process(victim["container"]), signal.SIGKILL)
    result = client.result(job_id)
    assert result.outcome == Outcome.LOST, (result, victim, daemon.words())
    assert client.run("result = 7", pool=pool).value == 7
    daemon.until(lambda: live.processes(victim["container"]) == [])


@each_pool
def test_a_recycled_worker_is_gone_and_another_one_serves(daemon, client, pool):
    daemon.until(lambda: daemon.workers(pool, state="idle"))
    (before,) = daemon.workers(pool)
    daemon.call("recycle", pool=pool)
    daemon.until(lambda: before["id"] not in {each["id"] for each in daemon.workers(pool)})
    result = client.run("result = 7", pool=pool)
    assert (result.value, result.worker == before["id"]) == (7, False)
    daemon.until(lambda: live.processes(before["container"]) == [])


def test_a_daemon_that_is_told_to_stop_leaves_no_container(daemon, sdk):
    owner = (daemon.state_dir / "owner").read_text().strip()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(WAIT_S) == 0
    assert sdk.containers(all=True, filters={"label": f"pool.owner={owner}"}) == []
    for name in ("containers", "state"):
        assert list((daemon.state_dir / "oci" / name).iterdir()) == []

"""`pool-admin mine`: what a submitter sees with the submit socket alone, against a real daemon."""

import json
import os

import pytest

from tests.support.daemons import DaemonProcess, pool_of

POOL = pool_of(1, limits={"wall_s": 60})


@pytest.fixture
def daemon():
    with DaemonProcess({"default": POOL, "research": POOL}) as running:
        (running.run_dir / "admin.sock").rename(running.run_dir / "away")  # as for a user who may not open it
        yield running
        (running.run_dir / "away").rename(running.run_dir / "admin.sock")


def test_a_submitter_sees_his_jobs_their_place_in_the_queue_and_the_pools(daemon):
    assert "no jobs" in daemon.admin("mine").stdout
    with daemon.client(timeout=60) as client:
        client.run("result = 1", job_id="done-one", pool="research")
        holding = client.submit("print(1, flush=True)\nimport time\ntime.sleep(60)", job_id="running-one")
        next(client.stream(holding))  # it runs
        waiting = [client.submit("result = 1", job_id=f"waits-{n}", priority=n) for n in range(2)]
        daemon_says = json.loads(daemon.admin("mine", "--json").stdout)
        jobs = {job["id"]: job for job in daemon_says["jobs"]}
        assert [jobs[each]["place"] for each in waiting] == [2, 1], "the higher priority goes first"
        assert jobs[holding]["place"] is None
        assert (jobs["done-one"]["state"], jobs["done-one"]["outcome"]) == ("done", "ok")
        assert (daemon_says["user"], daemon_says["total"]) == (str(os.getuid()), 4)
        assert [pool["name"] for pool in daemon_says["pools"]] == ["default", "research"]
        shown = daemon.admin("mine", "--last", "2").stdout
        assert "waits-1" in shown
        assert "done-one" not in shown
        assert "2 older jobs" in shown
        client.cancel(holding)


def test_jobs_of_another_user_are_not_shown():
    from types import SimpleNamespace

    from pool.daemon.status import own

    jobs = [SimpleNamespace(client="1", key="1/a"), SimpleNamespace(client="2", key="2/b")]
    assert own("3", jobs, {}).jobs == ()

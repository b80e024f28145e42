"""The pool as its users see it: a real daemon, real containers, the real client."""

import subprocess
import sys
import time

from tests.support.daemons import DaemonProcess, pool_of

TEMPLATE = pool_of(
    2, 3, preload=["numpy", "pandas"], recycle={"max_jobs": 1000}, limits={"wall_s": 30, "cpu_s": 30, "memory": "512m"}
)


POOLS = {"default": TEMPLATE, "single": TEMPLATE | {"recycle": {"max_jobs": 1}}}


def test_the_order_of_a_set_is_the_same_in_every_worker(client):
    code = "print(list({f'asset-{n}' for n in range(100)}))\n"
    here = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "0"}, stdout=subprocess.PIPE, text=True, check=True
    )
    results = [client.run(code, pool="single") for _ in range(3)]
    assert len({each.worker for each in results}) == 3
    assert {each.stdout for each in results} == {here.stdout}


def test_a_missing_image_is_named_with_the_command_that_builds_it(tmp_path):
    running = DaemonProcess({"default": TEMPLATE | {"image": "no-such-image:1"}}, engine="docker", wait_ready=False)
    try:
        running.start()
        assert running.process.wait(60) == 1
        assert "no-such-image:1" in running.words()
        assert "pool-admin image build" in running.words()
    finally:
        running.stop()


def test_status_shows_what_a_person_and_a_script_look_for(daemon, client):
    client.run("result = 1")
    snapshot = daemon.status()
    pool = daemon.pool()
    assert snapshot["daemon"]["state"] == "running"
    assert pool["engine"] == "docker"
    assert pool["jobs"]["ok"] >= 1
    assert pool["overhead_ms"]["p50"] > 0
    assert 0 < pool["hit_rate"] <= 1
    worker = pool["workers"][0]
    assert {"id", "container", "state", "jobs", "age_s", "rss_bytes", "lockdown", "isolation", "job"} <= worker.keys()
    assert worker["rss_bytes"] > 10_000_000


def test_workers_of_age_are_replaced_one_after_another():
    pools = {"default": TEMPLATE | {"size": {"min": 2, "max": 3}, "recycle": {"max_jobs": 1000, "max_age_s": 4}}}
    with DaemonProcess(pools, engine="docker") as running, running.client() as client:
        running.until(lambda: len(running.workers(state="idle")) == 2)
        first = {each["id"] for each in running.workers()}
        deadline = time.monotonic() + 300  # three starts, one after the other
        while first & {each["id"] for each in running.workers()} and time.monotonic() < deadline:
            assert client.run("result = 1").value == 1
            time.sleep(0.2)
        assert not first & {each["id"] for each in running.workers()}
        assert running.pool()["recycles"]["max_age"] >= 2

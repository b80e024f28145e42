"""kill -9 of the daemon with real containers: every acknowledged job has exactly one end."""

from __future__ import annotations

import signal

import pytest

from pool.model import Outcome
from tests.support.daemons import DaemonProcess

pytestmark = pytest.mark.docker

POOL = {"size": {"min": 2, "max": 2}, "preload": {"modules": []}, "limits": {"wall_s": 120, "cpu_s": 120}}


def test_after_kill_9_finished_running_and_waiting_jobs_have_exactly_one_end_each(worker_image, tmp_path_factory):
    home = tmp_path_factory.mktemp("pool")
    with DaemonProcess({"default": POOL}, engine="docker", home=home, durability="crash") as first:
        with first.client() as client:
            finished = [client.submit(f"result = {n}") for n in range(10)]
            before = [client.result(job_id) for job_id in finished]
            running = [client.submit("import time; time.sleep(100)") for _ in range(2)]
            first.until(lambda: first.pool()["running"] == 2)
            waiting = [client.submit(f"result = {n}") for n in range(30)]
        first.stop(signal.SIGKILL)
    with (
        DaemonProcess({"default": POOL}, engine="docker", home=home, durability="crash") as second,
        second.client(timeout=60) as client,
    ):
        assert [client.result(job_id) for job_id in finished] == before
        client.cancel(running)  # the workers that were adopted would sleep on
        ends = [client.result(job_id, 120) for job_id in running]
        assert {end.outcome for end in ends} <= {Outcome.LOST, Outcome.OK, Outcome.CANCELLED}
        assert all(end.attempt == 1 for end in ends)
        assert [client.result(job_id, 120).value for job_id in waiting] == list(range(30))
        assert [client.result(job_id) for job_id in running] == ends

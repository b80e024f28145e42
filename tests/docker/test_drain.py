"""Drain, resume and resize of real containers while clients submit: nothing is lost, and the drain ends."""

import threading
import time

import pytest

from pool.client.admin import AdminClient
from pool.errors import DrainingError, PoolError
from tests.support.daemons import pool_of

TEMPLATE = pool_of(1, 3, backlog={"max_jobs": 10_000, "max_per_client": 10_000})
NOTHING = "import time; time.sleep(0.02)"


class Load:
    """A thread that submits without a pause, and waits while the pool takes nothing."""

    def __init__(self, client):
        self.accepted, self.refused = [], 0
        self._client, self._stop = client, threading.Event()
        self._thread = threading.Thread(target=self._submit)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _submit(self):
        while not self._stop.is_set():
            try:
                self.accepted.append(self._client.submit(NOTHING))
            except DrainingError:
                self.refused += 1
            time.sleep(0.05)


def test_drain_resume_and_resize_under_load_lose_no_job_and_end(daemon, client):
    with AdminClient(f"ipc://{daemon.run_dir}/admin.sock", timeout=60) as admin:
        ok_before = daemon.pool()["jobs"]["ok"]
        with Load(client) as load:
            daemon.until(lambda: len(load.accepted) > 20)
            admin.call("resize", pool="default", min=3, max=3)
            daemon.until(lambda: len(daemon.workers()) == 3)
            admin.call("resize", pool="default", min=1, max=1)
            admin.drain(timeout=120)
            assert (daemon.pool()["running"], daemon.pool()["backlog"]) == (0, 0)
            before = len(load.accepted)
            daemon.until(lambda: load.refused > 0)
            admin.call("resume")
            daemon.until(lambda: len(load.accepted) > before + 5)
            admin.call("resize", pool="default", min=2, max=2)
        admin.drain("default", timeout=120)
        results = [client.result(job_id) for job_id in load.accepted]
        assert {(each.outcome, each.attempt) for each in results} == {("ok", 1)}
        assert daemon.pool()["jobs"]["ok"] - ok_before == len(load.accepted)
        admin.call("resume")


def test_a_drain_that_takes_too_long_says_what_is_left_and_loses_nothing(daemon, client):
    with AdminClient(f"ipc://{daemon.run_dir}/admin.sock", timeout=60) as admin:
        job = client.submit("import time; time.sleep(5); result = 1")
        daemon.until(lambda: daemon.pool()["running"] == 1)
        with pytest.raises(PoolError, match="1 jobs run and 0 wait in default; they go on"):
            admin.drain(timeout=0.01)
        admin.drain(timeout=120)
        assert client.result(job).value == 1
        admin.call("resume")

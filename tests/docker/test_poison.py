"""Code whose containers die under it, with real containers: refused after the second, pardoned by the operator."""

from __future__ import annotations

import pytest

from pool.errors import PoisonedCodeError
from pool.model import Outcome

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("worker_image")]

TEMPLATE = {
    "size": {"min": 1, "max": 1},
    "preload": {"modules": []},
    "limits": {"wall_s": 60, "cpu_s": 60, "memory": "256m"},
    "poison": {"kills": 2},
}
CODE = "def main(x):\n    import time\n    print('it runs', flush=True)\n    time.sleep(x)\n    return x"


def test_code_whose_container_is_killed_under_it_twice_is_refused_until_it_is_pardoned(daemon, sdk):
    with daemon.client(timeout=30) as client:
        for _ in range(2):
            job_id = client.submit(CODE, entry="main", args=[60])
            next(client.stream(job_id, timeout=60))  # before its code runs, nothing counts against it
            victim = daemon.worker_of(job_id)
            waiting = client.submit(CODE, entry="main", args=[0])
            sdk.kill(victim["container"])
            result = client.result(job_id, timeout=60)
            assert (result.outcome, result.worker) == (Outcome.LOST, victim["id"])
            waited = client.result(waiting, timeout=60)
        assert waited.outcome is Outcome.REJECTED
        with pytest.raises(PoisonedCodeError, match="has cost 2 workers") as caught:
            client.run(CODE, entry="main", args=[0])
        assert victim["id"] in caught.value.fields["history"]
        assert client.run("result = 1", timeout=60).value == 1
        daemon.call("pardon", code=caught.value.fields["digest"])
        assert client.run(CODE, entry="main", args=[0], timeout=60).value == 0


def test_a_job_that_runs_out_of_memory_again_and_again_costs_no_worker_and_is_never_refused(daemon):
    hog = "def main():\n    held = []\n    while True:\n        held.append(bytearray(8 << 20))"
    with daemon.client(timeout=30) as client:
        before = daemon.workers()[0]["id"]
        for _ in range(4):
            assert client.run(hog, entry="main", timeout=60).outcome is Outcome.MEMORY
        assert daemon.pool()["poison"] == []
        assert daemon.workers()[0]["id"] == before

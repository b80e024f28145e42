"""Output while a job runs, from real containers."""

import time

import pytest

from tests.support.daemons import pool_of

TEMPLATE = pool_of(2, recycle={"max_jobs": 1000}, limits={"wall_s": 60, "cpu_s": 60, "memory": "256m", "output": "1m"})
pytestmark = pytest.mark.usefixtures("next_job_is_served")


def test_what_is_flushed_arrives_while_the_job_runs(client):
    """Containers and host have one monotonic clock, so a line can say when it was printed."""
    code = "import time\nwhile True:\n    print(time.monotonic(), flush=True)\n    time.sleep(0.02)"
    job_id = client.submit(code)
    events = client.stream(job_id, timeout=120)
    printed = [(time.monotonic(), float(line)) for _ in range(20) for line in next(events).text.split()]
    client.cancel(job_id)
    assert all(0 < heard - said < 20 for heard, said in printed)


def test_the_steps_of_a_traced_job_are_of_one_clock_inside_and_outside_of_its_container(client, daemon):
    result = client.run("result = 1", trace=True)
    times = [each.us for each in result.trace]
    assert times == sorted(times)
    known = [(each["step"], each["us"]) for each in daemon.call("history", id=result.job_id)["trace"]]
    assert known == [(each.step, each.us) for each in result.trace[:-1]]
    inside = dict(known)
    assert inside["daemon: sent to the worker"] < inside["child: code begins"] < inside["daemon: answer received"]


def test_advise_has_the_jobs_of_the_pool_and_what_a_container_costs(client, daemon):
    before = len(daemon.call("arrivals")["pools"][0]["jobs"])
    assert client.run("result = 1").value == 1
    (found,) = daemon.call("arrivals")["pools"]
    assert len(found["jobs"]) == before + 1
    assert found["start_s"] > 0
    assert found["worker_bytes"] > 1 << 20

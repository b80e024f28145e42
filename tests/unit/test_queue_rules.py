"""The backlog of a real daemon: priority, queue timeout, many threads, and batches that are larger than it."""

import itertools
import threading

import psutil
import pytest

from pool.errors import BacklogFullError
from pool.model import Outcome
from tests.support.daemons import module_daemon

POOL = {
    "size": {"min": 1, "max": 1},
    "preload": {"modules": []},
    "limits": {"wall_s": 60, "cpu_s": 60, "memory": "256m", "output": "64k", "result": "1m"},
    "recycle": {"max_jobs": 100_000},
}
BLOCK = "import time; time.sleep(60)"
WHEN = "import time; result = time.monotonic_ns()"
DOUBLE = "def main(x):\n    return x * 2"


daemon = module_daemon(
    {
        "default": POOL,
        "hasty": POOL | {"backlog": {"queue_timeout_s": 0.3}},
        "narrow": POOL | {"backlog": {"max_jobs": 4}, "poison": {"kills": 1}},
        "wide": POOL | {"size": {"min": 2, "max": 2}},
    }
)


def blocked(daemon, client, pool="default"):
    """The one worker of the pool is busy until this job is cancelled."""
    job_id = client.submit(BLOCK, pool=pool)
    daemon.until(lambda: daemon.pool(pool)["running"] == 1)
    return job_id


def test_of_the_waiting_jobs_the_one_with_the_highest_priority_runs_first(daemon, client):
    blocker = blocked(daemon, client)
    priorities = [0, -100, 5, 100, 5, -1, 0]
    ids = [client.submit(WHEN, priority=priority) for priority in priorities]
    client.cancel(blocker)
    ended = [client.result(job_id, timeout=60).value for job_id in ids]
    ran = sorted(range(len(ids)), key=ended.__getitem__)
    assert [priorities[at] for at in ran] == [100, 5, 5, 0, 0, -1, -100]
    assert ran == [3, 2, 4, 0, 6, 5, 1], "first come, first served within one priority"


@pytest.mark.parametrize(("pool", "options"), [("default", {"queue_timeout": 0.3}), ("hasty", {})])
def test_a_job_that_waits_too_long_ends_timeout_with_that_reason_and_does_not_run(daemon, client, pool, options):
    blocker = blocked(daemon, client, pool)
    result = client.run("print('ran')", pool=pool, **options)
    assert (result.outcome, result.stdout, result.worker, result.attempt) == (Outcome.TIMEOUT, "", None, 0)
    assert "over its queue timeout of 0.3 s; it did not run" in result.reason
    assert result.timings.run_ms == 0
    assert result.timings.queue_ms >= 300
    client.cancel(blocker)
    client.result(blocker, timeout=60)
    assert client.run("result = 1", pool=pool, queue_timeout=30).value == 1


def test_a_job_that_gets_its_worker_in_time_may_run_longer_than_its_queue_timeout(daemon, client):
    daemon.until(lambda: daemon.workers(state="idle"))
    assert client.run("import time; time.sleep(1); result = 1", queue_timeout=0.5).value == 1


def test_sixty_four_threads_on_one_client_get_their_own_results(client):
    found = []

    def work(number):
        found.extend(client.run(DOUBLE, entry="main", args=[n], pool="wide").value == 2 * n for n in (number, -number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == [True] * 128


# ---- batches ----


def test_a_map_far_larger_than_the_backlog_gives_every_result_in_order(daemon, client):
    blocker = blocked(daemon, client, "narrow")
    fillers = [client.submit(WHEN, pool="narrow") for _ in range(4)]
    with pytest.raises(BacklogFullError):
        client.submit(WHEN, pool="narrow")
    progress, inputs = [], ([n] for n in range(200))
    results = client.map(
        DOUBLE, inputs, entry="main", pool="narrow", progress=lambda *at: progress.append(at), timeout=6000
    )
    client.cancel(blocker)
    assert all(result.ok for result in client.results(fillers, timeout=600))
    assert [result.value for result in results] == [2 * n for n in range(200)]
    assert progress[-1] == (200, None)


def test_many_jobs_are_submitted_to_a_small_backlog_and_all_end(daemon, client):
    batch = client.submit_many(
        [{"code": DOUBLE, "entry": "main", "args": [n], "pool": "narrow"} for n in range(50)], timeout=120
    )
    assert sorted(result.value for result in client.results(batch, timeout=120)) == [2 * n for n in range(50)]


def test_code_that_is_refused_during_a_map_is_rejected_from_then_on(daemon, client):
    results = client.map(
        "def main(x):\n    import time\n    time.sleep(x)", [[60]] * 20, entry="main", pool="narrow", timeout=120
    )
    daemon.until(lambda: daemon.pool("narrow")["running"] == 1 and daemon.pool("narrow")["backlog"] >= 3)
    victim = daemon.workers("narrow", state="leased")[0]
    psutil.Process(daemon.pid_of(victim)).kill()
    ended = list(results)
    assert [str(result.outcome) for result in ended] == ["lost"] + ["rejected"] * 19
    assert all("has cost 1 workers" in result.reason for result in ended[1:])
    assert client.run("result = 1", pool="narrow", timeout=60).value == 1


def test_an_endless_map_costs_neither_side_memory(daemon, client):
    results = client.map(DOUBLE, ([bytes(40_000)] for _ in itertools.count()), entry="main", pool="wide", window=16)
    sizes = [psutil.Process(daemon.process.pid), psutil.Process()]
    for _ in itertools.islice(results, 100):
        pass
    before = [each.memory_info().rss for each in sizes]
    for result in itertools.islice(results, 500):
        assert len(result.value) == 80_000
    grown = [each.memory_info().rss - was for each, was in zip(sizes, before, strict=True)]
    results.close()
    # The daemon keeps the results for a while: 40 MB here, within its bound; the client keeps none.
    assert grown[0] < 80 << 20
    assert grown[1] < 20 << 20
    daemon.until(lambda: daemon.pool("wide")["running"] == 0 and daemon.pool("wide")["backlog"] == 0)

"""A traced job: when each process had done its part. The workers are plain processes."""

import pytest

from pool.model import Outcome
from tests.support.daemons import module_daemon, pool_of

POOL = pool_of(1)
STEPS = [
    "client: sent",
    "daemon: received",
    "daemon: accepted",
    "daemon: worker chosen",
    "journal: job written",
    "daemon: sent to the worker",
    "runner: received",
    "runner: passed to the child",
    "child: code begins",
    "child: code ended",
    "runner: answer complete",
    "daemon: answer received",
    "journal: result written",
    "daemon: result sent",
    "client: result received",
]


DOUBLE = "def main(x):\n    return x * 2"


daemon = module_daemon({"default": POOL})


@pytest.fixture(scope="module")
def client(daemon):
    with daemon.client(timeout=60) as it:
        yield it


def test_a_traced_job_has_each_step_from_the_client_to_the_child_and_back(client):
    result = client.run(DOUBLE, entry="main", args=[21], trace=True)
    assert (result.outcome, result.value) == (Outcome.OK, 42)
    assert {each.step for each in result.trace} == set(STEPS)
    assert [each.step for each in result.trace][:3] == STEPS[:3]
    assert [each.step for each in result.trace][-4:] == STEPS[-4:]


def test_the_steps_are_in_the_order_of_time_and_begin_with_the_client(client):
    times = [each.us for each in client.run(DOUBLE, entry="main", args=[21], trace=True).trace]
    assert times[0] == 0
    assert times == sorted(times)


def test_a_job_has_no_trace_unless_it_asks_for_one(client):
    assert client.run(DOUBLE, entry="main", args=[21]).trace == ()


def test_pool_admin_job_shows_the_steps_that_the_daemon_knows(client, daemon):
    result = client.run("result = 1", trace=True)
    told = daemon.admin("job", result.job_id, "--trace")
    assert told.exit_code == 0, told.stderr
    rows = [line.strip().split(maxsplit=2) for line in told.stdout.splitlines()[1:]]
    assert {step for _, _, step in rows} == set(STEPS[:-1])


def test_pool_admin_job_says_how_to_trace_a_job_that_has_no_trace(client, daemon):
    told = daemon.admin("job", client.run("result = 1").job_id, "--trace")
    assert told.exit_code == 1
    assert "submit a job with trace=True" in told.stderr


def test_pool_admin_run_prints_the_steps_on_stderr(daemon, tmp_path):
    (tmp_path / "job.py").write_text("result = 42")
    told = daemon.admin("run", str(tmp_path / "job.py"), "--trace")
    assert told.stdout == "42\n"
    assert "client: result received" in told.stderr


def test_a_trace_of_several_files_is_refused(daemon, tmp_path):
    (tmp_path / "job.py").write_text("result = 42")
    assert daemon.admin("run", str(tmp_path), "--trace").exit_code == 2


def test_the_same_job_traced_again_is_the_same_job(client):
    job_id = client.submit("result = 7", trace=True)
    assert client.submit("result = 7", trace=True, job_id=job_id) == job_id
    assert client.result(job_id, timeout=60).value == 7


def test_a_failed_job_and_a_chunk_have_their_steps_too(client):
    assert "daemon: answer received" in {each.step for each in client.run("1 / 0", trace=True).trace}
    results = list(client.map(DOUBLE, [[1], [2], [3]], entry="main", chunksize=3, trace=True))
    assert [each.value for each in results] == [2, 4, 6]
    assert all(each.trace for each in results)

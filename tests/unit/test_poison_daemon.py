"""Code that costs workers, end to end: the daemon, its client, pool-admin, and workers that are plain processes."""

import json
import os
import signal

import pytest

from pool import wire
from pool.daemon import admission
from pool.errors import InvalidJobError, JobRefusedError, PoisonedCodeError, UnknownPoolError
from pool.model import Outcome
from tests.support.daemons import module_daemon, pool_of

POOL = pool_of(
    1, limits={"wall_s": 60, "cpu_s": 60, "memory": "256m"}, poison={"kills": 2, "window_s": 600, "refuse_s": 600}
)
HELD = "def main(x):\n    import time\n    time.sleep(x)\n    return x"
OTHER = "result = 6 * 7"


daemon = module_daemon({"default": POOL, "patient": POOL | {"poison": {"kills": None}}})


@pytest.fixture(autouse=True)
def pardoned(daemon):
    yield
    daemon.call("pardon", all=True)


def kill_worker(daemon, pool="default"):
    """From outside, while it runs its job."""
    daemon.until(lambda: daemon.pool(pool)["running"] == 1)
    victim = daemon.workers(pool, state="leased")[0]
    os.kill(daemon.pid_of(victim), signal.SIGKILL)
    return victim["id"]


def lose(daemon, client, code=HELD, **options):
    """A job whose worker dies under it; the worker."""
    job_id = client.submit(code, entry="main", args=[60], **options)
    daemon.until(lambda: any("started" in each["what"] for each in daemon.call("history", id=job_id)["entries"]))
    worker = kill_worker(daemon, options.get("pool", "default"))
    assert client.result(job_id, timeout=60).outcome is Outcome.LOST
    return worker


def test_code_that_costs_its_worker_again_and_again_is_refused_with_its_history(daemon, client):
    workers = [lose(daemon, client) for _ in range(2)]
    with pytest.raises(PoisonedCodeError) as caught:
        client.run(HELD, entry="main", args=[0])
    fields = caught.value.fields
    assert isinstance(caught.value, JobRefusedError)
    assert fields["kills"] == 2
    assert 540 < fields["retry_after_s"] <= 600
    assert all(worker in fields["history"] for worker in workers)
    assert f"pool-admin pardon {fields['digest']}" in caught.value.message
    assert client.run(OTHER, timeout=60).value == 42


def test_the_same_code_elsewhere_with_another_entry_or_pool_is_other_code(daemon, client):
    for _ in range(2):
        lose(daemon, client)
    assert client.run(HELD + "\nresult = 1", timeout=60).value == 1
    assert client.run(HELD, pool="patient", entry="main", args=[0], timeout=60).value == 0
    assert client.run(f"{HELD}\ndef other(): return 2", entry="other", timeout=60).value == 2


def test_a_pool_without_this_rule_refuses_nothing(daemon, client):
    for _ in range(2):
        lose(daemon, client, pool="patient")
    assert client.run(HELD, pool="patient", entry="main", args=[0], timeout=60).value == 0
    assert daemon.pool("patient")["poison"] == []


def test_jobs_of_it_that_wait_end_rejected_and_the_others_run(daemon, client):
    lose(daemon, client)
    runs = client.submit(HELD, entry="main", args=[60])
    waiting = [client.submit(HELD, entry="main", args=[1]) for _ in range(3)]
    other = client.submit(OTHER)
    daemon.until(lambda: any("started" in each["what"] for each in daemon.call("history", id=runs)["entries"]))
    kill_worker(daemon)
    assert client.result(runs, timeout=60).outcome is Outcome.LOST
    for job_id in waiting:
        result = client.result(job_id, timeout=60)
        assert (result.outcome, result.worker, result.findings) == (Outcome.REJECTED, None, ())
        assert result.reason.startswith("This code has cost 2 workers")
        assert client.result(job_id, timeout=60) == result
    assert client.result(other, timeout=60).value == 42


def test_an_operator_sees_it_and_pardons_it(daemon, client):
    assert daemon.admin("poison").stdout == "no code has destroyed a worker lately\n"
    workers = [lose(daemon, client) for _ in range(2)]
    (code,) = json.loads(daemon.admin("poison", "--json").stdout)["poison"]
    assert (code["pool"], code["kills"], code["last"]["worker"]) == ("default", 2, workers[-1])
    assert 540 < code["refused_until_s"] <= 600
    listed = daemon.admin("poison", "--pool", "default").stdout
    assert code["code"] in listed
    assert "vanished" in listed
    assert "refuses code that has cost it workers (1); see pool-admin poison" in daemon.admin("status").stdout
    assert "is refused for 600 s" in daemon.admin("job", code["code"]).stdout
    pardon = daemon.admin("pardon", code["code"][:8], "--pool", "default")
    assert (pardon.exit_code, pardon.stdout) == (0, f"pardoned: {code['code']}\n")
    assert client.run(HELD, entry="main", args=[0], timeout=60).value == 0
    assert daemon.admin("pardon", "--all").stdout == "pardoned: there was nothing to pardon\n"


def test_no_two_programs_share_a_digest_by_what_stands_beside_the_code():
    def digest(code, **about):
        return admission.digest(wire.Submit(request=1, job_id="j", **about), [code, b""]).code

    programs = [
        digest(b"x"),
        digest(b"x", pickled=True),
        digest(b"x", entry="x"),
        digest(b"", entry="xx"),
        digest(b"xx"),
        digest(b"0 x"),
        digest(b"\0x", pickled=True),
    ]
    assert len(set(programs)) == len(programs)
    assert digest(b"x", priority=3, seed=1) == programs[0]


def test_a_pardon_that_names_nothing_is_refused(daemon):
    with pytest.raises(InvalidJobError, match="no code is remembered that begins with 'feed'"):
        daemon.call("pardon", code="feed")
    with pytest.raises(InvalidJobError, match="pardon takes a code"):
        daemon.call("pardon")
    with pytest.raises(InvalidJobError, match="pardon takes a code"):
        daemon.call("pardon", code="feed", all=True)
    with pytest.raises(UnknownPoolError):
        daemon.call("pardon", all=True, pool="nowhere")
    assert daemon.admin("pardon").exit_code == 2
    assert daemon.admin("poison", "--pool", "nowhere").exit_code == 1

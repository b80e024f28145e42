"""`retries`: a further attempt after a fault that is not the job's, and after no other end."""

import os
import signal

import pytest

from pool.core import events as ev
from pool.core.policy import ADOPTION_S
from pool.model import JobState, Outcome
from tests.support.core import Core, every, only
from tests.support.daemons import DaemonProcess, pool_of

# ---- the core ----


def running(**job: object) -> Core:
    """Job `j` runs on the only worker, p-1."""
    core = Core(min_workers=1, max_workers=1, poison_kills=2).up()
    core.submit("j", **job)
    core.start("j")
    return core


def test_the_job_of_a_worker_that_vanished_is_dispatched_again_once_the_container_is_gone():
    core = running(retries=1)
    first = core.pool.workers["p-1"].epoch
    assert every(core.vanish("p-1"), ev.Finish) == []
    core.remove_stopped()
    assert core.pool.jobs["j"].state is JobState.QUEUED
    again = only(core.ready("p-2"), ev.Dispatch)
    assert (again.job_id, again.attempt) == ("j", 2)
    assert again.epoch > first
    core.start("j")
    end = only(core.end("j"), ev.Finish)
    assert (end.outcome, end.attempt, end.worker_id) == (Outcome.OK, 2, "p-2")
    assert any("attempt 1 is lost: worker p-1 vanished" in each.text for each in end.history)


def test_a_container_that_was_removed_from_outside_costs_an_attempt():
    core = running(retries=1)
    core.handle(ev.WorkerRemoved(worker_id="p-1"))
    core.all_ready()
    assert core.pool.jobs["j"].attempt == 2


def test_no_more_attempts_are_made_than_the_submitter_allows():
    core = running(retries=2)
    for attempt in (1, 2, 3):
        assert core.pool.jobs["j"].attempt == attempt
        core.handle(ev.WorkerRemoved(worker_id=core.worker_of("j")))
        core.all_ready()
    end = core.finishes()["j"]
    assert (end.outcome, end.attempt) == (Outcome.LOST, 3)


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.TIMEOUT, Outcome.MEMORY, Outcome.CRASH, Outcome.OUTPUT])
def test_what_the_job_itself_did_is_never_tried_again(outcome):
    core = running(retries=5)
    assert only(core.end("j", outcome), ev.Finish).attempt == 1


def test_a_job_that_is_killed_with_its_worker_at_its_deadline_is_not_tried_again():
    core = running(retries=5)
    core.pass_time(60)
    core.remove_stopped()
    assert (core.finishes()["j"].outcome, core.finishes()["j"].attempt) == (Outcome.TIMEOUT, 1)


def test_code_that_is_refused_because_it_kills_its_workers_is_not_tried_again():
    core = running(retries=9, code="wild")
    core.vanish("p-1")
    core.recover()
    core.start("j")
    assert only(core.vanish("p-2"), ev.Finish).outcome is Outcome.LOST
    assert core.finishes()["j"].attempt == 2


def test_a_job_that_waits_for_another_attempt_when_its_code_is_refused_is_lost_and_not_said_to_be_rejected():
    core = Core(min_workers=2, max_workers=2, poison_kills=2, reuse_scope="any").up()
    for job in ("j", "k"):
        core.submit(job, code="wild", retries=9)
        core.start(job)
    core.vanish(core.worker_of("j"))
    core.remove_stopped()
    assert core.pool.jobs["j"].state is JobState.QUEUED
    core.vanish(core.worker_of("k"))
    core.remove_stopped()
    ends = core.finishes()
    assert {name: end.outcome for name, end in ends.items()} == {"j": Outcome.LOST, "k": Outcome.LOST}


def test_a_cancelled_job_is_not_tried_again():
    core = running(retries=5)
    core.cancel("j")
    core.vanish("p-1")
    assert core.finishes()["j"].outcome is Outcome.LOST


def test_a_cancel_while_the_container_is_removed_ends_the_job_at_once():
    core = running(retries=5)
    core.vanish("p-1")
    core.cancel("j")
    assert core.finishes()["j"].outcome is Outcome.LOST
    core.recover()
    assert len(core.finishes()) == 1


def test_a_cancel_while_it_waits_for_another_attempt_tells_of_the_earlier_one():
    core = running(retries=5)
    core.vanish("p-1")
    core.remove_stopped()
    end = only(core.cancel("j"), ev.Finish)
    assert end.outcome is Outcome.CANCELLED
    assert "it was not run again after attempt 1; worker p-1 vanished" in end.reason


def test_the_queue_timeout_counts_from_the_lost_attempt():
    core = running(retries=1, queue_timeout_s=5.0)
    core.pass_time(8)
    core.vanish("p-1")
    core.remove_stopped()
    core.pass_time(4)
    assert core.finishes() == {}
    core.pass_time(2)
    end = core.finishes()["j"]
    assert end.outcome is Outcome.TIMEOUT
    assert "after attempt 1" in end.reason


def test_a_pool_that_shuts_down_tries_nothing_again():
    core = running(retries=5)
    core.handle(ev.ShutdownRequested(deadline=core.now + 60, keep_waiting=True))
    core.vanish("p-1")
    core.remove_stopped()
    assert core.finishes()["j"].outcome is Outcome.LOST


def test_a_late_answer_of_the_attempt_that_was_given_up_changes_nothing():
    core = running(retries=1)
    core.vanish("p-1")
    assert core.handle(ev.JobEnded(worker_id="p-1", outcome=Outcome.OK, attachment="late")) == []
    core.remove_stopped()
    assert core.handle(ev.JobEnded(worker_id="p-1", outcome=Outcome.OK, attachment="late")) == []
    core.all_ready()
    core.start("j")
    core.end("j")
    assert core.finishes()["j"].attachment == "the answer"


def left_to_p1(**job: object) -> Core:
    """An earlier daemon has left worker p-1 with job `j`, in its first attempt."""
    core = Core(min_workers=1, max_workers=1)
    core.handle(ev.WorkerFound(worker_id="p-1", started_at=core.now - 10, edition=1, client="ann"))
    left = ev.Lease("p-1", 7, core.now - 5)
    core.handle(
        ev.JobRestored(job_id="j", client="ann", wall_s=60, submitted_at=core.now - 6, attempt=1, left=left, **job)
    )
    return core


def test_a_worker_that_cannot_be_adopted_costs_an_attempt():
    core = left_to_p1(retries=1)
    core.pass_time(ADOPTION_S + 1)
    core.recover()
    assert core.pool.jobs["j"].attempt == 2


def test_a_runner_that_has_neither_the_job_nor_its_answer_costs_an_attempt():
    core = left_to_p1(retries=1)
    commands = core.handle(ev.WorkerAdopted(worker_id="p-1", jobs=1, epoch=7))
    assert (only(commands, ev.Dispatch).attempt, only(commands, ev.Dispatch).worker_id) == (2, "p-1")


def test_a_restored_job_whose_attempt_was_lost_waits_for_the_next_one():
    core = Core(min_workers=1, max_workers=1)
    core.handle(
        ev.JobRestored(job_id="j", client="ann", wall_s=60, submitted_at=0.0, attempt=2, retries=3, lost="it is gone")
    )
    core.tick()
    core.all_ready()
    assert core.pool.jobs["j"].attempt == 3


# ---- a daemon ----

POOL = pool_of(1)
#: Notes each of its runs; the last of them, counted, goes on to its end.
WAITS = """
import os, time
def main(directory, last):
    with open(directory + "/runs", "a") as runs: runs.write("x")
    print("it runs", flush=True)
    while os.path.getsize(directory + "/runs") < last: time.sleep(0.01)
    return os.path.getsize(directory + "/runs")
"""


def runs(home):
    return (home / "runs").stat().st_size if (home / "runs").exists() else 0


def test_a_job_outlives_its_worker_and_its_output_is_read_while_it_runs_through_several_attempts(home):
    with DaemonProcess({"default": POOL}, home=home) as daemon, daemon.client(timeout=60) as client:
        events = client.stream(client.submit(WAITS, entry="main", args=[str(home), 2], retries=2), 60)
        assert next(events).text == "it runs\n"
        (worker,) = daemon.workers(state="leased")
        os.kill(daemon.pid_of(worker), signal.SIGKILL)
        *_, result = events
        assert (result.value, result.attempt, result.stdout) == (2, 2, "it runs\n"), result.reason
        assert (daemon.pool()["retries"], daemon.pool()["jobs"]["lost"]) == (1, 0)


def test_attempts_are_counted_over_restarts_of_the_daemon(home):
    """Its worker dies with the first daemon, and again with the second; with one retry that is the end."""
    for attempt in (1, 2):
        with DaemonProcess({"default": POOL}, home=home, durability="crash") as daemon:
            if attempt == 1:
                with daemon.client(timeout=60) as client:
                    client.submit(WAITS, entry="main", args=[str(home), 9], job_id="j", retries=1)
            daemon.until(lambda n=attempt: runs(home) == n)
            (worker,) = daemon.workers(state="leased")
            daemon.kill()
            os.kill(daemon.pid_of(worker), signal.SIGKILL)
    with DaemonProcess({"default": POOL}, home=home, durability="crash") as third, third.client(timeout=60) as client:
        result = client.result("j")
        assert (result.outcome, result.attempt, runs(home)) == (Outcome.LOST, 2, 2), result.reason


#: Notes its process, and returns whether that of the attempt before is still there. One that waits to be reaped is not.
ALONE = """
import os, time
def runs(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
def main(path):
    with open(path, "a+") as pids:
        pids.seek(0)
        before = [int(line) for line in pids]
        pids.write(f"{os.getpid()}\\n")
    if not before: time.sleep(600)
    return [pid for pid in before if runs(pid)]
"""


def test_after_a_restart_an_attempt_begins_only_when_the_container_of_the_last_one_is_gone(home):
    pids = home / "pids"
    with DaemonProcess({"default": POOL}, home=home, durability="crash") as first, first.client() as client:
        client.submit(ALONE, entry="main", args=[str(pids)], job_id="j", retries=1)
        first.until(lambda: pids.exists() and pids.read_text())
        first.stop(signal.SIGKILL)
    for note in (home / "run" / "w").glob("*.json"):
        note.unlink()  # so that the next daemon cannot adopt the worker
    with (
        DaemonProcess({"default": POOL}, home=home, durability="crash", engine="slow_to_remove") as second,
        second.client(timeout=60) as client,
    ):
        result = client.result("j")
        assert (result.value, result.attempt) == ([], 2), result.reason

"""The core and workers that an earlier daemon has left: which are adopted, and how they count until then."""

import pytest

from pool.core import events as ev
from pool.core.machine import InvalidTransition
from pool.core.policy import ADOPTION_S, CLEANING_S
from pool.core.records import StopReason
from pool.model import Outcome
from tests.support.core import Core, every, only, started, stopped


def core_with(*found, client=None, edition=1, **policy):
    """A pool whose workers of these names were found, before its first Tick."""
    core = Core(**{"min_workers": len(found), "max_workers": max(2, len(found))} | policy)
    for worker_id in found:
        commands = core.handle(
            ev.WorkerFound(worker_id=worker_id, started_at=core.now - 10, edition=edition, client=client)
        )
        assert not every(commands, ev.StartWorker)
    return core


def adopt(core, worker_id, jobs=0, **facts):
    return core.handle(ev.WorkerAdopted(worker_id=worker_id, jobs=jobs, **facts))


def test_workers_that_were_found_count_before_they_have_proved_themselves():
    core = core_with("p-3", "p-4")
    assert not core.tick()
    adopt(core, "p-3")
    adopt(core, "p-4")
    assert core.states() == {"idle": 2}


def test_a_job_waits_for_the_proof_and_gets_the_worker():
    core = core_with("p-3")
    core.tick()
    assert not every(core.submit("early"), ev.Dispatch)
    assert only(adopt(core, "p-3"), ev.Dispatch).job_id == "early"


def test_a_worker_that_stays_silent_is_replaced_and_opens_no_breaker():
    core = core_with("p-3")
    core.tick()
    commands = core.tick(ADOPTION_S)
    assert stopped(commands) == {"p-3": "not_adopted"}
    assert started(commands) == ["p-4"]
    assert not core.pool.breaker.failures


@pytest.mark.parametrize("reason", [StopReason.OUTDATED, StopReason.UNKNOWN_JOB])
def test_a_worker_that_is_of_no_use_is_stopped_without_a_job(reason):
    core = core_with("p-3")
    core.tick()
    core.submit("early")
    commands = adopt(core, "p-3", unusable=reason)
    assert stopped(commands) == {"p-3": reason}
    assert not every(commands, ev.Dispatch)


def test_names_go_on_after_those_that_were_found():
    core = core_with("p-7", min_workers=2)
    assert started(core.tick()) == ["p-8"]


def test_a_worker_goes_on_serving_its_client_only():
    core = core_with("p-3", client="ann")
    core.tick()
    adopt(core, "p-3", jobs=1)
    assert not every(core.submit("b", "bob"), ev.Dispatch)
    assert only(core.submit("a", "ann"), ev.Dispatch).worker_id == "p-3"


def test_a_worker_that_has_served_somebody_unknown_serves_nobody_where_each_has_its_own():
    core = core_with("p-3")
    core.tick()
    assert stopped(adopt(core, "p-3", jobs=1)) == {"p-3": "foreign"}


def test_a_worker_that_is_not_isolated_makes_the_pool_serve_one_client_with_each():
    core = core_with("p-3", reuse_scope="any")
    core.tick()
    adopt(core, "p-3", shareable=False)
    assert core.pool.policy.reuse_scope == "client"


def test_the_jobs_before_the_restart_count():
    core = core_with("p-3", max_jobs=3, client="ann")
    core.tick()
    assert stopped(adopt(core, "p-3", jobs=3)) == {"p-3": "max_jobs"}


def test_the_age_before_the_restart_counts():
    core = core_with("p-3", max_age_s=12, max_workers=1)
    core.tick()
    adopt(core, "p-3")
    assert stopped(core.pass_time(2)) == {"p-3": "max_age"}


def test_a_worker_that_cleans_up_is_idle_after_that():
    core = core_with("p-3", client="ann")
    core.tick()
    adopt(core, "p-3", jobs=1, cleaning=True)
    assert core.states() == {"cleaning": 1}
    core.free("p-3")
    assert core.states() == {"idle": 1}


def test_a_worker_that_does_not_finish_cleaning_is_replaced():
    core = core_with("p-3", client="ann")
    core.tick()
    adopt(core, "p-3", jobs=1, cleaning=True)
    assert stopped(core.tick(CLEANING_S)) == {"p-3": "dirty"}


def test_more_workers_than_the_pool_may_have_now_are_stopped():
    core = core_with("p-1", "p-2", "p-3", min_workers=2, max_workers=2)
    assert core.states() == {"found": 2, "stopping": 1}


def test_workers_with_data_that_nobody_has_offered_serve_and_are_replaced_by_new_ones():
    core = core_with("p-3", edition=0, max_workers=2)
    core.tick()
    adopt(core, "p-3")
    assert only(core.submit("a"), ev.Dispatch).worker_id == "p-3"


def test_a_worker_that_is_known_is_not_found_again():
    core = core_with("p-3")
    with pytest.raises(InvalidTransition, match="it is known"):
        core.handle(ev.WorkerFound(worker_id="p-3", started_at=core.now, edition=1, client=None))


def test_a_shutdown_stops_workers_that_have_not_proved_themselves():
    core = core_with("p-3")
    core.tick()
    assert stopped(core.handle(ev.ShutdownRequested(deadline=core.now + 5))) == {"p-3": "shutdown"}


# ---- jobs that were left to them ----


def core_with_job(epoch=7, **policy):
    """A pool with one worker that was found, p-3, and the job of ann's that was left to it."""
    core = core_with("p-3", client="ann", **policy)
    core.handle(
        ev.JobRestored(
            job_id="j",
            client="ann",
            wall_s=10,
            submitted_at=core.now - 5,
            attempt=1,
            left=ev.Lease("p-3", epoch, core.now - 4),
        )
    )
    core.tick()
    return core


def end(core):
    """The one end of the job."""
    return core.finishes()["j"]


def test_a_job_goes_on_with_its_worker_and_ends_once():
    core = core_with_job()
    adopt(core, "p-3", jobs=1, has_job=True, epoch=7, elapsed_s=4)
    assert core.states() == {"leased": 1}
    core.handle(ev.JobEnded(worker_id="p-3", outcome=Outcome.OK, attachment="the answer"))
    assert (end(core).outcome, end(core).worker_id, end(core).attempt, end(core).attachment) == (
        Outcome.OK, "p-3", 1, "the answer",
    )  # fmt: skip
    core.free("p-3")
    assert core.states() == {"idle": 1}


def test_the_deadline_of_a_job_counts_from_its_start_and_not_from_the_restart():
    core = core_with_job(kill_grace_s=1)
    adopt(core, "p-3", jobs=1, has_job=True, epoch=7, elapsed_s=9)
    assert not core.pass_time(1.9)
    assert stopped(core.pass_time(0.2)) == {"p-3": "job_deadline"}
    core.remove_stopped()
    assert end(core).outcome is Outcome.TIMEOUT


def test_a_runner_cannot_stretch_the_deadline_beyond_one_more_wall_limit():
    core = core_with_job(kill_grace_s=1)
    adopt(core, "p-3", jobs=1, has_job=True, epoch=7, elapsed_s=0)
    assert stopped(core.pass_time(11.1)) == {"p-3": "job_deadline"}


def test_a_job_whose_worker_stays_silent_is_lost():
    core = core_with_job()
    core.tick(ADOPTION_S)
    assert (end(core).outcome, end(core).worker_id) == (Outcome.LOST, "p-3")
    assert "did not prove itself" in end(core).reason


def test_a_job_whose_worker_cannot_be_adopted_is_lost():
    core = core_with_job()
    core.vanish("p-3")
    assert end(core).outcome is Outcome.LOST


def test_a_job_that_its_worker_never_got_is_dispatched_as_if_for_the_first_time():
    core = core_with_job(epoch=7)
    dispatch = only(adopt(core, "p-3", jobs=1, epoch=6), ev.Dispatch)
    assert (dispatch.job_id, dispatch.attempt) == ("j", 1)


def test_a_job_that_its_worker_never_got_waits_until_the_worker_has_dropped_its_last_answer():
    core = core_with_job(epoch=7, max_workers=1)
    assert not every(adopt(core, "p-3", jobs=1, epoch=6, cleaning=True), ev.Dispatch)
    dispatch = only(core.free("p-3"), ev.Dispatch)
    assert (dispatch.job_id, dispatch.worker_id, dispatch.attempt) == ("j", "p-3", 1)


def test_a_job_that_its_worker_got_and_does_not_have_is_lost_and_not_run_again():
    core = core_with_job(epoch=7)
    commands = adopt(core, "p-3", jobs=1, epoch=7)
    assert end(core).outcome is Outcome.LOST
    assert not every(commands, ev.Dispatch)


def test_a_job_is_lost_when_its_worker_claims_another_one():
    core = core_with_job(epoch=7)
    assert stopped(adopt(core, "p-3", jobs=1, epoch=6, unusable=StopReason.UNKNOWN_JOB)) == {"p-3": "unknown_job"}
    assert end(core).outcome is Outcome.LOST


def test_an_outdated_worker_finishes_its_job_and_gets_no_other():
    core = core_with_job()
    adopt(core, "p-3", jobs=1, has_job=True, epoch=7, unusable=StopReason.OUTDATED)
    assert core.states()["draining"] == 1
    core.submit("next")
    assert stopped(core.handle(ev.JobEnded(worker_id="p-3", outcome=Outcome.OK))) == {"p-3": "outdated"}
    assert end(core).outcome is Outcome.OK


def test_a_job_that_is_cancelled_before_its_worker_is_adopted_is_killed_then():
    core = core_with_job()
    assert not every(core.cancel("j"), ev.KillJob)
    kill = only(adopt(core, "p-3", jobs=1, has_job=True, epoch=7), ev.KillJob)
    assert (kill.worker_id, kill.epoch) == ("p-3", 7)


def test_a_job_that_is_cancelled_and_was_never_sent_does_not_run():
    core = core_with_job(epoch=7)
    core.cancel("j")
    assert not every(adopt(core, "p-3", epoch=6), ev.Dispatch)
    assert end(core).outcome is Outcome.CANCELLED


def test_a_shutdown_before_the_adoption_leaves_the_job_its_time():
    core = core_with_job()
    core.handle(ev.ShutdownRequested(deadline=core.now + 5))
    adopt(core, "p-3", jobs=1, has_job=True, epoch=7)
    assert core.states() == {"draining": 1}
    core.handle(ev.JobEnded(worker_id="p-3", outcome=Outcome.OK))
    assert end(core).outcome is Outcome.OK
    core.remove_stopped()
    assert core.pool.state == "stopped"


def test_a_recycled_worker_is_stopped_after_the_job_that_was_left_to_it():
    core = core_with_job()
    core.handle(ev.RecycleRequested(worker_id="p-3"))
    adopt(core, "p-3", jobs=1, has_job=True, epoch=7)
    assert stopped(core.handle(ev.JobEnded(worker_id="p-3", outcome=Outcome.OK))) == {"p-3": "operator"}


def test_the_jobs_that_a_worker_had_before_do_not_count_for_how_long_jobs_take():
    core = core_with("p-3", client="ann", spare=None, miss_rate=0.05)
    adopt(core, "p-3", jobs=7)
    core.submit("a")
    assert core.pool._state.demand._busy_s == 0.0
    core.now += 2.0
    core.end("a")
    assert core.pool._state.demand._busy_s == pytest.approx(2.0, abs=0.1)

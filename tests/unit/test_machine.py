"""Jobs and workers, one transition after another: what the core says when something happens."""

from __future__ import annotations

import pytest

from pool.core import events, job_transitions, pool_transitions, worker_transitions
from pool.core.events import (
    BeatHeard,
    Dispatch,
    Event,
    Finish,
    JobEnded,
    JobForgotten,
    JobStarted,
    KillJob,
    ProbeWorker,
    WorkerFailed,
    WorkerFreed,
    WorkerReady,
    WorkerRemoved,
    WorkerVanished,
)
from pool.core.machine import ROUTES, InvalidTransition, PoolState
from pool.core.policy import CLEARING_S
from pool.core.records import MAX_ENTRIES, PoolPhase
from pool.core.table import Ignore, row
from pool.errors import PoolError
from pool.model import JobState, Outcome, StartKind, WorkerState
from tests.rehearsal import Rehearsal, every, only, started, stopped

# ---- the tables ----


@pytest.mark.parametrize(
    ("table", "states"),
    [(worker_transitions.TABLE, WorkerState), (job_transitions.TABLE, JobState), (pool_transitions.TABLE, PoolPhase)],
)
def test_every_pair_of_state_and_event_has_an_entry(table, states):
    kinds = {kind for _, kind in table}
    assert set(table) == {(state, kind) for state in states for kind in kinds}
    assert all(callable(entry) for entry in table.values())


def test_every_event_there_is_has_a_route_to_a_table_with_its_row():
    kinds = {each for each in vars(events).values() if isinstance(each, type) and issubclass(each, Event)}
    kinds = {kind for kind in kinds if not issubclass(kind, events.Decision)} - {Event}
    assert set(ROUTES) == kinds
    rows = {
        kind for table in (worker_transitions.TABLE, job_transitions.TABLE, pool_transitions.TABLE) for _, kind in table
    }
    assert kinds <= rows


def test_a_row_without_an_entry_for_a_state_cannot_be_made():
    with pytest.raises(TypeError, match="exactly one entry for each of queued, leased, running, done"):
        row(JobStarted, JobState, queued=Ignore("why"), leased=Ignore("why"), running=Ignore("why"))


def shape(pool: PoolState) -> tuple[object, ...]:
    """All that an event may change."""
    records = [*pool.workers.values(), *pool.jobs.values()]
    return (
        [[repr(getattr(record, name)) for name in record.__slots__] for record in records],
        (pool.state, pool.target, pool.backlog_length, pool.running, pool.breaker, pool.next_deadline()),
        pool.story(pool.name),
    )


@pytest.mark.parametrize(
    "event",
    [WorkerReady(worker_id="p-1"), WorkerReady(worker_id="p-2"), JobForgotten(job_id="j")],
)
def test_an_illegal_event_raises_with_the_story_and_changes_nothing(event):
    play = Rehearsal(min_workers=2, max_workers=2).up()
    play.submit("j")
    before = shape(play.pool)
    with pytest.raises(InvalidTransition, match="Nothing was changed") as caught:
        play.play(event)
    assert shape(play.pool) == before
    assert isinstance(caught.value, PoolError)
    assert caught.value.story == tuple(play.pool.story(caught.value.fields["record"]))
    assert play.end("j")


# ---- the life of a job ----


def test_a_job_that_finds_an_idle_worker_is_dispatched_at_once_as_parked():
    play = Rehearsal(min_workers=1).up()
    dispatch = only(play.submit("j"), Dispatch)
    assert (dispatch.worker_id, dispatch.job_id, dispatch.attempt, dispatch.start) == ("p-1", "j", 1, StartKind.PARKED)
    assert play.pool.jobs["j"].state is JobState.LEASED
    play.start("j")
    assert play.pool.jobs["j"].state is JobState.RUNNING
    assert play.pool.running == 1


def test_a_job_that_waits_for_a_container_to_start_is_cold():
    play = Rehearsal(min_workers=1, max_workers=1)
    play.tick()
    play.submit("early")
    assert only(play.ready("p-1"), Dispatch).start is StartKind.COLD


def test_a_worker_that_clears_up_gets_no_job_until_it_is_free():
    play = Rehearsal(min_workers=1, max_workers=1).up()
    play.submit("first")
    first = play.pool.jobs["first"]
    ended = play.play(JobEnded(worker_id="p-1", job_id="first", epoch=first.epoch, outcome=Outcome.OK))
    assert only(ended, Finish).from_worker
    assert not every(play.submit("second"), Dispatch)
    assert only(play.play(WorkerFreed(worker_id="p-1", epoch=first.epoch)), Dispatch).job_id == "second"


def test_a_worker_that_does_not_come_free_is_replaced_and_its_job_stays_ended():
    play = Rehearsal(min_workers=1, max_workers=1).up()
    play.submit("first")
    first = play.pool.jobs["first"]
    play.play(JobEnded(worker_id="p-1", job_id="first", epoch=first.epoch, outcome=Outcome.OK))
    assert stopped(play.tick(CLEARING_S)) == {"p-1": "dirty"}
    play.clear_away()
    assert play.finishes()["first"].outcome is Outcome.OK


def test_a_worker_that_vanishes_while_it_clears_up_loses_no_job():
    play = Rehearsal(min_workers=1, max_workers=1).up()
    play.submit("first")
    first = play.pool.jobs["first"]
    play.play(JobEnded(worker_id="p-1", job_id="first", epoch=first.epoch, outcome=Outcome.OK))
    play.play(WorkerVanished(worker_id="p-1", reason="killed"))
    assert play.finishes()["first"].outcome is Outcome.OK


def test_a_job_that_waits_for_another_job_is_dispatched_when_its_worker_is_free_as_warm():
    play = Rehearsal(min_workers=1, max_workers=1).up()
    play.submit("first")
    assert not every(play.submit("second"), Dispatch)
    assert play.pool.backlog_length == 1
    dispatch = only(play.end("first"), Dispatch)
    assert (dispatch.job_id, dispatch.start) == ("second", StartKind.WARM)


def test_the_workers_answer_ends_the_job():
    play = Rehearsal(min_workers=1).up()
    play.submit("j")
    finish = only(play.end("j", Outcome.MEMORY), Finish)
    assert (finish.outcome, finish.from_worker, finish.worker_id) == (Outcome.MEMORY, True, "p-1")
    assert play.pool.jobs["j"].state is JobState.DONE
    assert play.pool.workers["p-1"].state is WorkerState.IDLE


def test_every_dispatch_has_an_epoch_of_its_own():
    play = Rehearsal(min_workers=1).up()
    for number in range(5):
        play.run(f"j{number}")
    epochs = [command.epoch for command in every(play.log, Dispatch)]
    assert epochs == sorted(set(epochs))


def test_an_answer_of_another_epoch_or_for_another_job_is_ignored():
    play = Rehearsal(min_workers=1).up()
    play.submit("j")
    epoch = play.pool.jobs["j"].epoch
    for job_id, told in [("j", epoch - 1), ("j", epoch + 1), ("k", epoch)]:
        assert play.play(JobEnded(worker_id="p-1", job_id=job_id, epoch=told, outcome=Outcome.OK)) == []
        assert play.play(JobStarted(worker_id="p-1", job_id=job_id, epoch=told)) == []
    assert play.pool.jobs["j"].state is JobState.LEASED
    assert "is not its lease" in play.pool.story("p-1")[-1].text


def test_late_and_repeated_events_are_ignored_and_told_in_the_story():
    play = Rehearsal(min_workers=1, max_workers=1).up()
    play.submit("j")
    epoch = play.pool.jobs["j"].epoch
    play.start("j")
    play.start("j")
    play.end("j")
    for event in [
        JobEnded(worker_id="p-1", job_id="j", epoch=epoch, outcome=Outcome.ERROR),
        JobStarted(worker_id="p-1", job_id="j", epoch=epoch),
        WorkerRemoved(worker_id="p-99"),
        BeatHeard(worker_id="p-99"),
        JobForgotten(job_id="unheard-of"),
    ]:
        assert play.play(event) == []
    assert play.cancel("j") == []
    assert play.submit("j") == []
    assert "no such worker" in play.pool.story("p-99")[0].text
    assert "no such job" in play.pool.story("unheard-of")[0].text
    assert len(play.finishes()) == 1


def test_a_done_job_is_kept_until_it_is_forgotten_and_its_story_a_while_longer():
    play = Rehearsal(min_workers=1).up()
    play.run("j")
    play.play(JobForgotten(job_id="j", cause="kept its hour"))
    assert "j" not in play.pool.jobs
    story = play.pool.story("j")
    assert [entry.state for entry in story] == ["queued", "leased", "running", "done", "done"]
    assert story[-1].cause == "kept its hour"


def test_the_cause_of_an_event_is_carried_by_its_commands_and_its_story():
    play = Rehearsal(min_workers=1).up()
    commands = play.submit("j", cause="submit 17")
    assert {command.cause for command in commands} == {"submit 17"}
    assert {entry.cause for entry in play.pool.story("j")} == {"submit 17"}


def test_a_story_is_bounded():
    play = Rehearsal(min_workers=1, max_workers=1, max_jobs=10_000).up()
    for number in range(100):
        play.run(f"j{number}")
    assert len(play.pool.story("p-1")) == MAX_ENTRIES


def test_workers_and_jobs_cannot_be_changed_from_outside():
    play = Rehearsal(min_workers=1).up()
    with pytest.raises(TypeError):
        play.pool.workers["p-9"] = play.pool.workers["p-1"]


# ---- cancel and timeouts ----


def test_a_queued_job_that_is_cancelled_ends_at_once_and_did_not_run():
    play = Rehearsal(min_workers=1, max_workers=1).up()
    play.submit("first")
    play.submit("second")
    finish = only(play.cancel("second"), Finish)
    assert (finish.outcome, finish.from_worker, finish.worker_id) == (Outcome.CANCELLED, False, None)
    assert "did not run" in finish.reason
    assert not every(play.end("first"), Dispatch)


def test_a_running_job_is_killed_once_however_often_it_is_cancelled():
    play = Rehearsal(min_workers=1).up()
    play.submit("j")
    kill = only(play.cancel("j"), KillJob)
    assert (kill.worker_id, kill.epoch) == ("p-1", play.pool.jobs["j"].epoch)
    assert play.cancel("j") == []
    assert only(play.end("j", Outcome.CANCELLED), Finish).from_worker
    assert play.pool.workers["p-1"].state is WorkerState.IDLE


def test_a_job_that_ended_before_the_kill_arrived_keeps_its_own_outcome():
    play = Rehearsal(min_workers=1).up()
    play.submit("j")
    play.cancel("j")
    assert only(play.end("j", Outcome.OK), Finish).outcome is Outcome.OK


def test_a_worker_that_does_not_answer_a_cancel_is_killed_and_only_then_the_job_is_cancelled():
    play = Rehearsal(min_workers=1, kill_grace_s=2.0).up()
    play.submit("j", wall_s=1000)
    play.cancel("j")
    assert not stopped(play.pass_time(1.9))
    commands = play.pass_time(0.2)
    assert stopped(commands) == {"p-1": "job_deadline"}
    assert not every(commands, Finish)
    assert play.cancel("j") == []
    assert play.play(WorkerVanished(worker_id="p-1", reason="link closed")) == []
    finish = only(play.clear_away(), Finish)
    assert (finish.outcome, finish.from_worker) == (Outcome.CANCELLED, False)


def test_a_worker_silent_past_the_wall_limit_is_killed_and_only_then_the_job_times_out():
    play = Rehearsal(min_workers=1, kill_grace_s=2.0).up()
    play.submit("j", wall_s=10)
    play.pass_time(5)
    play.start("j")
    assert not stopped(play.pass_time(11.9))
    commands = play.pass_time(0.2)
    assert stopped(commands) == {"p-1": "job_deadline"}
    assert not every(commands, Finish)
    assert play.end("j") == []
    finish = only(play.clear_away(), Finish)
    assert finish.outcome is Outcome.TIMEOUT
    assert "wall limit of 10 s" in finish.reason
    assert "killed" in finish.reason


def test_a_job_that_never_starts_times_out_as_well():
    play = Rehearsal(min_workers=1, kill_grace_s=2.0).up()
    play.submit("j", wall_s=10)
    assert stopped(play.pass_time(12.1)) == {"p-1": "job_deadline"}


def test_a_job_that_waits_over_its_queue_timeout_times_out_and_did_not_run():
    play = Rehearsal(min_workers=1, max_workers=1).up()
    play.submit("first", wall_s=1000)
    play.submit("second", queue_timeout_s=5.0)
    finish = only(play.pass_time(5.1), Finish)
    assert (finish.job_id, finish.outcome, finish.worker_id) == ("second", Outcome.TIMEOUT, None)
    assert "waited 5 s in the backlog" in finish.reason
    assert "did not run" in finish.reason


# ---- workers that die ----


@pytest.mark.parametrize("began", [False, True])
def test_the_job_of_a_worker_that_vanishes_is_lost_at_once_and_says_that_its_effect_is_unknown(began):
    play = Rehearsal(min_workers=1).up()
    play.submit("j")
    if began:
        play.start("j")
    commands = play.play(WorkerVanished(worker_id="p-1", reason="link closed"))
    finish = only(commands, Finish)
    assert (finish.outcome, finish.worker_id) == (Outcome.LOST, "p-1")
    assert "link closed" in finish.reason
    assert "unknown" in finish.reason
    assert stopped(commands) == {"p-1": "vanished"}
    assert started(commands) == ["p-2"]


def test_the_job_of_a_container_that_is_removed_from_outside_is_lost():
    play = Rehearsal(min_workers=1).up()
    play.submit("j")
    commands = play.play(WorkerRemoved(worker_id="p-1"))
    assert only(commands, Finish).outcome is Outcome.LOST
    assert stopped(commands) == {}
    assert "p-1" not in play.pool.workers


def test_a_start_reported_as_failed_after_the_worker_was_ready_is_a_worker_that_vanished():
    play = Rehearsal(min_workers=1).up()
    play.submit("j")
    commands = play.play(WorkerFailed(worker_id="p-1", reason="the engine gave up"))
    assert only(commands, Finish).outcome is Outcome.LOST
    assert play.pool.breaker.failures == 0


def test_a_dirty_worker_is_not_used_again():
    play = Rehearsal(min_workers=1).up()
    play.submit("j")
    commands = play.end("j", dirty="a process was left")
    assert only(commands, Finish).outcome is Outcome.OK
    assert stopped(commands) == {"p-1": "dirty"}


def test_a_worker_that_is_gone_has_no_record_but_a_story():
    play = Rehearsal(min_workers=1).up()
    play.play(WorkerVanished(worker_id="p-1", reason="killed"))
    play.clear_away()
    assert "p-1" not in play.pool.workers
    assert play.pool.story("p-1")[-1].state == "gone"
    assert play.play(WorkerRemoved(worker_id="p-1")) == []


def test_a_silent_idle_worker_is_probed_and_forgiven_if_it_answers():
    play = Rehearsal(min_workers=1, heartbeat_s=1.0).up()
    play.pass_time(2)
    play.play(BeatHeard(worker_id="p-1"))
    assert play.pass_time(2.9) == []
    assert only(play.pass_time(0.2), ProbeWorker).worker_id == "p-1"
    assert play.pool.workers["p-1"].state is WorkerState.SUSPECT
    play.play(BeatHeard(worker_id="p-1"))
    assert play.pool.workers["p-1"].state is WorkerState.IDLE


def test_a_suspect_gets_no_job_and_is_stopped_if_it_stays_silent():
    play = Rehearsal(min_workers=1, max_workers=1, heartbeat_s=1.0).up()
    play.pass_time(3.1)
    assert not every(play.submit("j"), Dispatch)
    assert stopped(play.pass_time(2)) == {"p-1": "heartbeat"}
    assert only(play.ready("p-2"), Dispatch).job_id == "j"


def test_a_daemon_that_slept_for_long_only_asks_its_workers():
    play = Rehearsal(min_workers=4, max_workers=8, heartbeat_s=1.0).up()
    commands = play.tick(after=3600)
    assert len(every(commands, ProbeWorker)) == 4
    assert stopped(commands) == {}
    assert started(commands) == []


def test_a_busy_worker_is_never_judged_by_its_beats():
    play = Rehearsal(min_workers=1, heartbeat_s=1.0).up()
    play.submit("j", wall_s=500)
    play.start("j")
    assert not every(play.pass_time(400), ProbeWorker)
    assert play.pool.workers["p-1"].state is WorkerState.LEASED


# ---- workers that are not isolated in full ----


def test_once_a_worker_is_not_isolated_in_full_no_worker_serves_a_second_client_for_good():
    play = Rehearsal(min_workers=2, max_workers=2, reuse_scope="any")
    play.tick()
    play.play(WorkerReady(worker_id="p-1", shareable=False))
    assert play.pool.policy.reuse_scope == "client"
    play.play(WorkerReady(worker_id="p-2", shareable=True))
    assert play.pool.policy.reuse_scope == "client"
    anns = play.run("a", "ann")
    bobs = play.run("b", "bob")
    assert anns != bobs
    assert [play.run(f"a{number}", "ann") for number in range(3)] == [anns] * 3
    assert any("one client only" in entry.text and "p-1" in entry.text for entry in play.pool.story("p"))


def test_workers_that_are_isolated_serve_any_client_where_the_template_says_so():
    play = Rehearsal(min_workers=1, max_workers=1, reuse_scope="any").up()
    assert play.run("a", "ann") == play.run("b", "bob")
    assert play.pool.policy.reuse_scope == "any"


def test_where_a_worker_serves_one_client_anyway_nothing_is_said_of_it():
    play = Rehearsal(min_workers=1, max_workers=1, reuse_scope="client")
    play.tick()
    play.play(WorkerReady(worker_id="p-1", shareable=False))
    assert play.pool.policy.reuse_scope == "client"
    assert not any("one client only" in entry.text for entry in play.pool.story("p"))

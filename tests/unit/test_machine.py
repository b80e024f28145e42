"""One transition after another: how the core answers each event about a job or a worker."""

import pytest

from pool.core import events as ev
from pool.core import job_transitions, pool_transitions, worker_transitions
from pool.core.machine import InvalidTransition, PoolState
from pool.core.policy import CLEANING_S
from pool.core.records import MAX_ENTRIES, MAX_PAST_ENTRIES
from pool.core.state import Ignore, row
from pool.errors import PoolError
from pool.model import JobState, Outcome, StartKind, WorkerState
from tests.support.core import Core, every, only, started, stopped

# ---- the tables ----

TABLES = (worker_transitions, job_transitions, pool_transitions)


@pytest.mark.parametrize("module", TABLES)
def test_every_pair_of_state_and_event_has_an_entry(module):
    kinds = {kind for _, kind in module.TABLE}
    assert set(module.TABLE) == {(state, kind) for state in module.STATES for kind in kinds}
    assert all(callable(entry) for entry in module.TABLE.values())


def test_every_event_has_a_row_in_a_table():
    kinds = {each for each in vars(ev).values() if isinstance(each, type) and issubclass(each, ev.Event)}
    abstract = {ev.Event, ev.WorkerEvent, ev.JobEvent, ev.NewJob}
    assert {kind for module in TABLES for _, kind in module.TABLE} == kinds - abstract


def test_a_row_without_an_entry_for_a_state_cannot_be_made():
    with pytest.raises(TypeError, match="exactly one entry for each of queued, leased, running, done"):
        row(ev.JobStarted, JobState, queued=Ignore("why"), leased=Ignore("why"), running=Ignore("why"))


def everything(pool: PoolState) -> tuple[object, ...]:
    """All that an event may change."""
    return (
        repr([*pool.workers.values(), *pool.jobs.values()]),
        (pool.state, pool.target, pool.backlog_length, pool.running, repr(pool.breaker), pool.next_deadline()),
        pool.history(pool.name),
    )


@pytest.mark.parametrize(
    "event",
    [
        ev.WorkerConnected(worker_id="p-1"),
        ev.WorkerReady(worker_id="p-1"),
        ev.WorkerReady(worker_id="p-2"),
        ev.WorkerFreed(worker_id="p-1"),
        ev.WorkerFreed(worker_id="p-2"),
        ev.JobStarted(worker_id="p-1"),
        ev.JobStarted(worker_id="p-2"),
        ev.JobEnded(worker_id="p-2", outcome=Outcome.OK),
    ],
)
def test_an_illegal_event_raises_with_the_history_and_changes_nothing(event):
    core = Core(min_workers=2, max_workers=2).up()
    core.submit("j")
    core.start("j")
    before = everything(core.pool)
    with pytest.raises(InvalidTransition, match="Nothing was changed") as caught:
        core.handle(event)
    assert everything(core.pool) == before
    assert isinstance(caught.value, PoolError)
    assert caught.value.history == tuple(core.pool.history(caught.value.fields["record"]))
    assert core.end("j")


@pytest.mark.parametrize(
    "event",
    [
        ev.JobStarted(worker_id="p-1"),
        ev.JobEnded(worker_id="p-1", outcome=Outcome.ERROR),
        ev.WorkerReady(worker_id="p-1"),
    ],
)
def test_what_a_worker_says_of_its_job_after_the_end_of_the_job_is_illegal(event):
    core = Core(min_workers=1).up()
    core.submit("j")
    core.report("j")
    with pytest.raises(InvalidTransition):
        core.handle(event)


# ---- the life of a job ----


def test_a_submitted_job_is_accepted_first_and_then_dispatched_to_the_idle_worker_as_parked():
    core = Core(min_workers=1).up()
    accept, dispatch = core.submit("j", attachment="reply to 7")
    assert isinstance(accept, ev.Accept)
    assert (accept.job_id, accept.attachment) == ("j", "reply to 7")
    assert (dispatch.worker_id, dispatch.job_id, dispatch.attempt, dispatch.start) == ("p-1", "j", 1, StartKind.PARKED)
    assert core.pool.jobs["j"].state is JobState.LEASED
    core.start("j")
    assert core.pool.jobs["j"].state is JobState.RUNNING
    assert core.pool.running == 1


def test_a_job_that_waits_for_a_container_to_start_is_cold():
    core = Core(min_workers=1, max_workers=1)
    core.tick()
    assert isinstance(only(core.submit("early"), ev.Accept), ev.Accept)
    assert only(core.ready("p-1"), ev.Dispatch).start is StartKind.COLD


def test_a_worker_that_cleans_up_gets_no_job_until_it_is_free():
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("first")
    assert only(core.report("first"), ev.Finish).outcome is Outcome.OK
    assert core.states() == {"cleaning": 1}
    assert not every(core.submit("second"), ev.Dispatch)
    assert only(core.free("p-1"), ev.Dispatch).job_id == "second"


@pytest.mark.parametrize(
    ("happens", "reason"),
    [(lambda core: core.tick(CLEANING_S), "dirty"), (lambda core: core.vanish("p-1", "killed"), "vanished")],
    ids=["it does not become free", "it vanishes"],
)
def test_a_worker_that_fails_while_it_cleans_up_is_replaced_and_its_job_stays_ended(happens, reason):
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("first")
    core.report("first")
    assert stopped(happens(core)) == {"p-1": reason}
    core.remove_stopped()
    assert core.finishes()["first"].outcome is Outcome.OK


def test_a_job_that_waits_for_another_job_is_dispatched_as_warm_when_its_worker_is_free():
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("first")
    assert not every(core.submit("second"), ev.Dispatch)
    assert core.pool.backlog_length == 1
    dispatch = only(core.end("first"), ev.Dispatch)
    assert (dispatch.job_id, dispatch.start) == ("second", StartKind.WARM)


def test_the_workers_answer_ends_the_job_and_is_handed_over_unread_with_its_history():
    core = Core(min_workers=1).up()
    core.submit("j")
    core.start("j")
    answer = object()
    finish = only(core.handle(ev.JobEnded(worker_id="p-1", outcome=Outcome.MEMORY, attachment=answer)), ev.Finish)
    assert (finish.outcome, finish.worker_id, finish.attempt, finish.started_at) == ("memory", "p-1", 1, core.now)
    assert finish.attachment is answer
    assert [(entry.state, entry.text) for entry in finish.history] == [
        ("queued", "accepted from uid ann"),
        ("leased", "leased by p-1 (parked)"),
        ("running", "started by p-1"),
        ("done", "memory, reported by the worker"),
    ]
    assert "j" not in core.pool.jobs
    core.free("p-1")
    assert core.pool.workers["p-1"].state is WorkerState.IDLE


def test_a_short_job_ends_without_a_word_of_its_start():
    core = Core(min_workers=1).up()
    core.submit("j")
    finish = only(core.report("j"), ev.Finish)
    assert (finish.outcome, finish.started_at, finish.attachment) == ("ok", None, "the answer")
    assert [entry.state for entry in finish.history] == ["queued", "leased", "done"]
    assert core.pool.workers["p-1"].state is WorkerState.CLEANING
    core.free("p-1")
    assert core.pool.workers["p-1"].state is WorkerState.IDLE


def test_a_client_at_its_quota_gets_another_worker_when_one_of_its_jobs_has_ended():
    core = Core(min_workers=2, max_workers=2, running_per_client=1).up()
    core.submit("a")
    core.submit("b")
    assert every(core.log, ev.Dispatch)[-1].job_id == "a"
    core.end("a")
    assert every(core.log, ev.Dispatch)[-1].job_id == "b"


def test_a_client_whose_job_took_long_waits_until_others_have_had_as_much_time():
    core = Core(min_workers=1, max_workers=1, reuse_scope="any", max_jobs=100).up()
    for job_id, client in (("a0", "ann"), ("a1", "ann"), ("b0", "bob"), ("b1", "bob"), ("b2", "bob")):
        core.submit(job_id, client, wall_s=1000.0)
    for job_id, took_s in (("a0", 100.0), ("b0", 1.0), ("b1", 1.0), ("b2", 1.0), ("a1", 1.0)):
        assert every(core.log, ev.Dispatch)[-1].job_id == job_id
        core.start(job_id)
        core.now += took_s
        core.end(job_id)


def test_every_dispatch_has_its_own_epoch():
    core = Core(min_workers=1).up()
    for number in range(5):
        core.run(f"j{number}")
    epochs = [command.epoch for command in every(core.log, ev.Dispatch)]
    assert epochs == sorted(set(epochs))


def test_events_about_what_is_gone_or_unknown_are_ignored_and_noted_in_the_history():
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("waits")
    assert core.submit("waits") == [], "the same job again"
    core.end("waits")
    for event in [
        ev.WorkerRemoved(worker_id="p-99"),
        ev.Heartbeat(worker_id="p-99"),
        ev.JobEnded(worker_id="p-99", outcome=Outcome.ERROR),
        ev.CancelRequested(job_id="unheard-of"),
        ev.CancelRequested(job_id="waits"),
    ]:
        assert core.handle(event) == []
    assert "no such worker" in core.pool.history("p-99")[0].text
    assert "no such job" in core.pool.history("unheard-of")[0].text
    assert len(core.finishes()) == 1


def test_a_worker_that_is_being_stopped_is_not_heard_any_more():
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("j")
    core.vanish("p-1")
    assert core.pool.workers["p-1"].state is WorkerState.STOPPING
    for event in [
        ev.WorkerReady(worker_id="p-1"),
        ev.WorkerFailed(worker_id="p-1", reason="late"),
        ev.Heartbeat(worker_id="p-1"),
        ev.JobStarted(worker_id="p-1"),
        ev.JobEnded(worker_id="p-1", outcome=Outcome.OK),
        ev.WorkerFreed(worker_id="p-1"),
    ]:
        assert core.handle(event) == []
    assert core.finishes()["j"].outcome is Outcome.LOST


def test_an_id_can_be_used_again_when_its_job_is_done():
    core = Core(min_workers=1).up()
    core.run("j")
    assert only(core.submit("j"), ev.Dispatch).job_id == "j"


def test_the_cause_of_an_event_is_carried_by_its_commands_and_its_history():
    core = Core(min_workers=1).up()
    commands = core.submit("j", cause="submit 17")
    assert {command.cause for command in commands} == {"submit 17"}
    assert {entry.cause for entry in core.pool.history("j")} == {"submit 17"}


def test_histories_are_bounded():
    core = Core(min_workers=1, max_workers=1, max_jobs=10_000).up()
    for number in range(100):
        core.run(f"j{number}")
    assert len(core.pool.history("p-1")) == MAX_ENTRIES
    for number in range(MAX_PAST_ENTRIES + 1):
        core.pool.handle(ev.CancelRequested(job_id=f"unknown {number}"), core.now)
        core.pool.handle(ev.CancelRequested(job_id="asked again and again"), core.now)
    assert core.pool.history("unknown 0") == []
    assert len(core.pool.history("asked again and again")) == MAX_ENTRIES


def test_the_history_of_a_job_does_not_grow_with_the_requests_of_its_client():
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("j")
    for _ in range(100):
        core.cancel("j")
        core.handle(ev.JobSubmitted(job_id="j", client="ann", wall_s=1.0))
    assert len(core.pool.history("j")) == 3


def test_workers_and_jobs_cannot_be_changed_from_outside():
    core = Core(min_workers=1).up()
    with pytest.raises(TypeError):
        core.pool.workers["p-9"] = core.pool.workers["p-1"]


# ---- cancel and timeouts ----


def test_a_queued_job_that_is_cancelled_ends_at_once_and_did_not_run():
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("first")
    core.submit("second")
    finish = only(core.cancel("second"), ev.Finish)
    assert (finish.outcome, finish.attachment, finish.worker_id) == (Outcome.CANCELLED, None, None)
    assert "did not run" in finish.reason
    assert not every(core.end("first"), ev.Dispatch)


def test_a_running_job_is_killed_once_however_often_it_is_cancelled():
    core = Core(min_workers=1).up()
    core.submit("j")
    kill = only(core.cancel("j"), ev.KillJob)
    assert (kill.worker_id, kill.epoch) == ("p-1", core.pool.workers["p-1"].epoch)
    assert core.cancel("j") == []
    assert only(core.end("j", Outcome.CANCELLED), ev.Finish).attachment == "the answer"
    assert core.pool.workers["p-1"].state is WorkerState.IDLE


def test_a_job_that_ended_before_the_kill_arrived_keeps_its_own_outcome():
    core = Core(min_workers=1).up()
    core.submit("j")
    core.cancel("j")
    assert only(core.end("j", Outcome.OK), ev.Finish).outcome is Outcome.OK


def test_a_worker_that_does_not_answer_a_cancel_is_killed_and_only_then_the_job_is_cancelled():
    core = Core(min_workers=1, kill_grace_s=2.0).up()
    core.submit("j", wall_s=1000)
    core.cancel("j")
    assert not stopped(core.pass_time(1.9))
    commands = core.pass_time(0.2)
    assert stopped(commands) == {"p-1": "job_deadline"}
    assert not every(commands, ev.Finish)
    assert core.cancel("j") == []
    assert core.vanish("p-1") == []
    finish = only(core.remove_stopped(), ev.Finish)
    assert (finish.outcome, finish.attachment) == (Outcome.CANCELLED, None)


def test_a_worker_silent_past_the_wall_limit_is_killed_and_only_then_its_job_times_out():
    core = Core(min_workers=1, kill_grace_s=2.0).up()
    core.submit("j", wall_s=10)
    core.pass_time(5)
    core.start("j")
    assert not stopped(core.pass_time(11.9))
    commands = core.pass_time(0.2)
    assert stopped(commands) == {"p-1": "job_deadline"}
    assert not every(commands, ev.Finish)
    assert core.end("j") == []
    finish = only(core.remove_stopped(), ev.Finish)
    assert finish.outcome is Outcome.TIMEOUT
    assert "wall limit of 10 s" in finish.reason
    assert "killed" in finish.reason


def test_a_job_that_never_starts_times_out_as_well():
    core = Core(min_workers=1, kill_grace_s=2.0).up()
    core.submit("j", wall_s=10)
    assert stopped(core.pass_time(12.1)) == {"p-1": "job_deadline"}


def test_a_job_that_waits_longer_than_its_queue_timeout_times_out_and_did_not_run():
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("first", wall_s=1000)
    core.submit("second", queue_timeout_s=5.0)
    finish = only(core.pass_time(5.1), ev.Finish)
    assert (finish.job_id, finish.outcome, finish.worker_id) == ("second", Outcome.TIMEOUT, None)
    assert "waited 5 s in the backlog" in finish.reason
    assert "did not run" in finish.reason


# ---- workers that die ----


@pytest.mark.parametrize("began", [False, True])
def test_the_job_of_a_worker_that_vanishes_is_lost_at_once_with_the_reason_that_its_effect_is_unknown(began):
    core = Core(min_workers=1).up()
    core.submit("j")
    if began:
        core.start("j")
    commands = core.vanish("p-1")
    finish = only(commands, ev.Finish)
    assert (finish.outcome, finish.worker_id) == (Outcome.LOST, "p-1")
    assert "link closed" in finish.reason
    assert "unknown" in finish.reason
    assert stopped(commands) == {"p-1": "vanished"}
    assert started(commands) == ["p-2"]


def test_a_frozen_worker_is_replaced_and_its_job_is_lost_and_not_blamed():
    core = Core(min_workers=1, poison_kills=1).up()
    core.submit("j", code="innocent")
    core.start("j")
    commands = core.handle(ev.WorkerFrozen(worker_id="p-1", reason="it was paused"))
    finish = only(commands, ev.Finish)
    assert (finish.outcome, finish.worker_id) == (Outcome.LOST, "p-1")
    assert "it was paused" in finish.reason
    assert stopped(commands) == {"p-1": "frozen"}
    assert started(commands) == ["p-2"]
    assert core.pool.poison(core.now) == []


def test_the_boot_timeout_judges_a_worker_that_is_frozen_while_it_starts():
    core = Core(min_workers=1)
    core.tick()
    assert core.handle(ev.WorkerFrozen(worker_id="p-1", reason="it was paused")) == []
    assert core.states() == {"starting": 1}


def test_the_job_of_a_container_that_is_removed_from_outside_is_lost():
    core = Core(min_workers=1).up()
    core.submit("j")
    commands = core.handle(ev.WorkerRemoved(worker_id="p-1"))
    assert only(commands, ev.Finish).outcome is Outcome.LOST
    assert stopped(commands) == {}
    assert "p-1" not in core.pool.workers


def test_a_start_reported_as_failed_after_the_worker_was_ready_is_a_worker_that_vanished():
    core = Core(min_workers=1).up()
    core.submit("j")
    commands = core.handle(ev.WorkerFailed(worker_id="p-1", reason="the engine gave up"))
    assert only(commands, ev.Finish).outcome is Outcome.LOST
    assert core.pool.breaker.failures == 0


def test_a_worker_with_residue_of_a_job_is_not_used_again():
    core = Core(min_workers=1).up()
    core.submit("j")
    commands = core.end("j", residue="a process was left")
    assert only(commands, ev.Finish).outcome is Outcome.OK
    assert stopped(commands) == {"p-1": "dirty"}


def test_a_worker_that_is_gone_has_no_record_but_a_history():
    core = Core(min_workers=1).up()
    core.vanish("p-1", "killed")
    core.remove_stopped()
    assert "p-1" not in core.pool.workers
    assert core.pool.history("p-1")[-1].state == "gone"
    assert core.handle(ev.WorkerRemoved(worker_id="p-1")) == []


def test_a_silent_idle_worker_is_probed_and_stays_if_it_answers():
    core = Core(min_workers=1, heartbeat_s=1.0).up()
    core.pass_time(2)
    core.handle(ev.Heartbeat(worker_id="p-1"))
    assert core.pass_time(2.9) == []
    assert only(core.pass_time(0.2), ev.ProbeWorker).worker_id == "p-1"
    assert core.pool.workers["p-1"].state is WorkerState.SUSPECT
    core.handle(ev.Heartbeat(worker_id="p-1"))
    assert core.pool.workers["p-1"].state is WorkerState.IDLE


def test_a_suspect_gets_no_job_and_is_stopped_if_it_stays_silent():
    core = Core(min_workers=1, max_workers=1, heartbeat_s=1.0).up()
    core.pass_time(3.1)
    assert not every(core.submit("j"), ev.Dispatch)
    assert stopped(core.pass_time(2)) == {"p-1": "heartbeat"}
    assert only(core.ready("p-2"), ev.Dispatch).job_id == "j"


def test_a_daemon_that_was_suspended_for_long_probes_its_workers_and_replaces_none():
    core = Core(min_workers=4, max_workers=8, heartbeat_s=1.0).up()
    commands = core.tick(after=3600)
    assert len(every(commands, ev.ProbeWorker)) == 4
    assert stopped(commands) == {}
    assert started(commands) == []


def test_a_busy_worker_is_never_judged_by_its_heartbeats():
    core = Core(min_workers=1, heartbeat_s=1.0).up()
    core.submit("j", wall_s=500)
    core.start("j")
    assert not every(core.pass_time(400), ev.ProbeWorker)
    assert core.pool.workers["p-1"].state is WorkerState.LEASED


# ---- workers whose isolation is incomplete ----


def test_after_one_worker_with_incomplete_isolation_no_worker_serves_two_clients_for_good():
    core = Core(min_workers=2, max_workers=2, reuse_scope="any")
    core.tick()
    core.ready("p-1", shareable=False)
    assert core.pool.policy.reuse_scope == "client"
    core.ready("p-2", shareable=True)
    assert core.pool.policy.reuse_scope == "client"
    anns = core.run("a", "ann")
    bobs = core.run("b", "bob")
    assert anns != bobs
    assert [core.run(f"a{number}", "ann") for number in range(3)] == [anns] * 3
    assert any("one client only" in entry.text and "p-1" in entry.text for entry in core.pool.history("p"))


def test_isolated_workers_serve_any_client_if_the_template_says_so():
    core = Core(min_workers=1, max_workers=1, reuse_scope="any").up()
    assert core.run("a", "ann") == core.run("b", "bob")
    assert core.pool.policy.reuse_scope == "any"


def test_incomplete_isolation_is_not_noted_where_a_worker_serves_one_client_anyway():
    core = Core(min_workers=1, max_workers=1, reuse_scope="client")
    core.tick()
    core.ready("p-1", shareable=False)
    assert core.pool.policy.reuse_scope == "client"
    assert not any("one client only" in entry.text for entry in core.pool.history("p"))

"""Jobs that a pool does not take, and a pool that drains or shuts down."""

from __future__ import annotations

from pool.core.events import (
    Dispatch,
    DrainRequested,
    Finish,
    RecycleRequested,
    Refuse,
    ResumeRequested,
    ShutdownRequested,
)
from pool.model import Outcome
from tests.rehearsal import Rehearsal, every, only, stopped

# ---- refusals ----


def test_a_full_backlog_refuses_and_says_when_to_come_again():
    play = Rehearsal(min_workers=1, max_workers=1, backlog_max=2, backlog_per_client=1, reuse_scope="any").up()
    play.submit("running")
    play.submit("a", "ann")
    refusal = only(play.submit("a2", "ann"), Refuse)
    assert (refusal.code, refusal.job_id) == ("backlog_full", "a2")
    assert refusal.retry_after_s > 0
    play.submit("b", "bob")
    assert only(play.submit("c", "cid"), Refuse).code == "backlog_full"
    assert "a2" not in play.pool.jobs
    assert "refused" in play.pool.story("a2")[0].text


def test_a_job_that_needs_not_wait_is_taken_even_by_a_pool_without_backlog():
    play = Rehearsal(min_workers=1, max_workers=1, backlog_max=0).up()
    assert only(play.submit("j"), Dispatch)
    assert only(play.submit("k"), Refuse).code == "backlog_full"


def test_a_draining_pool_refuses_new_jobs_finishes_the_others_and_keeps_its_workers():
    play = Rehearsal(min_workers=1, max_workers=1).up()
    play.submit("running")
    play.submit("queued")
    play.play(DrainRequested())
    assert play.pool.state == "draining"
    assert only(play.submit("late"), Refuse).code == "draining"
    assert only(play.end("running"), Dispatch).job_id == "queued"
    play.end("queued")
    assert play.states() == {"idle": 1}
    play.play(ResumeRequested())
    assert only(play.submit("late"), Dispatch)


# ---- shutdown ----


def test_a_shutdown_cancels_the_queued_stops_the_idle_and_lets_the_running_finish():
    play = Rehearsal(min_workers=2, max_workers=2, reuse_scope="client").up()
    play.submit("running")
    play.submit("queued", "bob")
    play.submit("queued2", "cid")
    commands = play.play(ShutdownRequested(deadline=play.now + 30))
    assert {each.job_id: each.outcome for each in every(commands, Finish)} == {"queued2": Outcome.CANCELLED}
    assert "shut down" in only(commands, Finish).reason
    assert only(play.submit("late"), Refuse).code == "draining"
    assert list(stopped(play.end("running")).values()) == ["shutdown"]
    play.end("queued")
    assert play.pool.state == "stopping"
    play.clear_away()
    assert play.pool.state == "stopped"
    assert play.pool.next_deadline() is None


def test_a_shutdown_without_jobs_stops_every_worker_at_once():
    play = Rehearsal(min_workers=2, max_workers=3).up()
    play.submit("j")
    play.end("j")
    commands = play.play(ShutdownRequested(deadline=play.now))
    assert set(stopped(commands).values()) == {"shutdown"}
    play.clear_away()
    assert play.pool.state == "stopped"


def test_what_still_runs_at_the_deadline_of_a_shutdown_is_cancelled_with_its_worker():
    play = Rehearsal(min_workers=1).up()
    play.submit("j", wall_s=1000)
    play.start("j")
    play.play(ShutdownRequested(deadline=play.now + 30))
    assert play.pass_time(29) == []
    assert stopped(play.pass_time(2)) == {"p-1": "shutdown"}
    finish = only(play.clear_away(), Finish)
    assert finish.outcome is Outcome.CANCELLED
    assert "shut down" in finish.reason
    assert play.pool.state == "stopped"


def test_a_second_shutdown_can_only_bring_the_deadline_forward():
    play = Rehearsal(min_workers=1).up()
    play.submit("j", wall_s=1000)
    play.play(ShutdownRequested(deadline=play.now + 30))
    play.play(ShutdownRequested(deadline=play.now + 60))
    play.play(ShutdownRequested(deadline=play.now + 5))
    assert stopped(play.pass_time(5)) == {"p-1": "shutdown"}


def test_a_pool_that_has_not_started_yet_stops_at_once():
    play = Rehearsal(min_workers=1)
    play.play(ShutdownRequested(deadline=play.now))
    assert play.pool.state == "stopped"
    assert play.tick() == []


def test_the_wishes_of_an_operator_come_too_late_in_a_pool_that_stops():
    play = Rehearsal(min_workers=1).up()
    play.play(ShutdownRequested(deadline=play.now))
    for event in (DrainRequested(), ResumeRequested(), RecycleRequested(), ShutdownRequested(deadline=play.now)):
        assert play.play(event) == []
    play.clear_away()
    for event in (DrainRequested(), ResumeRequested(), RecycleRequested(), ShutdownRequested(deadline=play.now)):
        assert play.play(event) == []
    assert play.pool.state == "stopped"

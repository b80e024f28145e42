"""Jobs that a pool refuses, and a pool that drains or shuts down."""

from math import inf

from pool.core import events as ev
from pool.model import Outcome
from tests.support.core import Core, every, only, refusal, stopped

# ---- refusals ----

MOST = 1 << 30


def test_a_full_backlog_refuses_a_job_and_says_when_to_try_again():
    core = Core(min_workers=1, max_workers=1, backlog_max=2, backlog_per_client=1, reuse_scope="any").up()
    core.submit("running")
    core.submit("a", "ann")
    error = refusal(core.submit("a2", "ann"))
    assert error.code == "backlog_full"
    assert error.fields["retry_after_s"] > 0
    core.submit("b", "bob")
    assert refusal(core.submit("c", "cid")).code == "backlog_full"
    assert "a2" not in core.pool.jobs
    assert "refused" in core.pool.history("a2")[0].text


def test_a_job_that_gets_a_worker_at_once_is_accepted_without_a_backlog():
    core = Core(min_workers=1, max_workers=1, backlog_max=0).up()
    assert only(core.submit("j"), ev.Dispatch)
    assert refusal(core.submit("k")).code == "backlog_full"


def test_a_client_whose_unfinished_jobs_hold_too_many_bytes_is_refused_but_one_job_of_any_size_is_accepted():
    core = Core(min_workers=2, max_workers=2).up()
    assert refusal(core.submit("huge", size_bytes=2 * MOST)) is None
    assert refusal(core.submit("fits", size_bytes=100, held_bytes=MOST - 100)) is None
    error = refusal(core.submit("over", size_bytes=101, held_bytes=MOST - 100))
    assert error.code == "backlog_full"
    assert error.fields["retry_after_s"] > 0
    assert "hold 1024 MiB" in error.message


def test_a_refusal_carries_the_attachment_of_its_submission():
    core = Core(min_workers=1, max_workers=1, backlog_max=0).up()
    core.submit("running")
    refused = only(core.submit("j", attachment="reply to 7"), ev.Refuse)
    assert (refused.job_id, refused.attachment) == ("j", "reply to 7")


def test_a_draining_pool_refuses_new_jobs_finishes_the_accepted_ones_and_keeps_its_workers():
    core = Core(min_workers=1, max_workers=1).up()
    core.submit("running")
    core.submit("queued")
    core.handle(ev.DrainRequested())
    assert core.pool.state == "draining"
    assert refusal(core.submit("late")).code == "draining"
    assert only(core.end("running"), ev.Dispatch).job_id == "queued"
    core.end("queued")
    assert core.states() == {"idle": 1}
    core.handle(ev.ResumeRequested())
    assert only(core.submit("late"), ev.Dispatch)


# ---- shutdown ----


def test_a_shutdown_cancels_the_queued_stops_the_idle_and_lets_the_running_finish():
    core = Core(min_workers=2, max_workers=2, reuse_scope="client").up()
    core.submit("running")
    core.submit("queued", "bob")
    core.submit("queued2", "cid")
    commands = core.handle(ev.ShutdownRequested(deadline=core.now + 30))
    assert {each.job_id: each.outcome for each in every(commands, ev.Finish)} == {"queued2": Outcome.CANCELLED}
    assert "shut down" in only(commands, ev.Finish).reason
    assert refusal(core.submit("late")).code == "draining"
    assert list(stopped(core.end("running")).values()) == ["shutdown"]
    core.end("queued")
    assert core.pool.state == "stopping"
    core.remove_stopped()
    assert core.pool.state == "stopped"
    assert core.pool.next_deadline() == inf


def test_a_shutdown_without_jobs_stops_every_worker_at_once():
    core = Core(min_workers=2, max_workers=3).up()
    core.submit("j")
    core.end("j")
    commands = core.handle(ev.ShutdownRequested(deadline=core.now))
    assert set(stopped(commands).values()) == {"shutdown"}
    core.remove_stopped()
    assert core.pool.state == "stopped"


def test_what_still_runs_at_the_deadline_of_a_shutdown_is_cancelled_with_its_worker():
    core = Core(min_workers=1).up()
    core.submit("j", wall_s=1000)
    core.start("j")
    core.handle(ev.ShutdownRequested(deadline=core.now + 30))
    assert core.pass_time(29) == []
    assert stopped(core.pass_time(2)) == {"p-1": "shutdown"}
    finish = only(core.remove_stopped(), ev.Finish)
    assert finish.outcome is Outcome.CANCELLED
    assert "shut down" in finish.reason
    assert core.pool.state == "stopped"


def test_a_second_shutdown_can_only_bring_the_deadline_forward():
    core = Core(min_workers=1).up()
    core.submit("j", wall_s=1000)
    core.handle(ev.ShutdownRequested(deadline=core.now + 30))
    core.handle(ev.ShutdownRequested(deadline=core.now + 60))
    core.handle(ev.ShutdownRequested(deadline=core.now + 5))
    assert stopped(core.pass_time(5)) == {"p-1": "shutdown"}


def test_a_pool_that_has_not_started_yet_stops_at_once():
    core = Core(min_workers=1)
    core.handle(ev.ShutdownRequested(deadline=core.now))
    assert core.pool.state == "stopped"
    assert core.tick() == []


def test_a_pool_that_stops_ignores_the_requests_of_an_operator():
    core = Core(min_workers=1).up()
    core.handle(ev.ShutdownRequested(deadline=core.now))
    for event in (
        ev.DrainRequested(),
        ev.ResumeRequested(),
        ev.RecycleRequested(),
        ev.ShutdownRequested(deadline=core.now),
    ):
        assert core.handle(event) == []
    core.remove_stopped()
    for event in (
        ev.DrainRequested(),
        ev.ResumeRequested(),
        ev.RecycleRequested(),
        ev.ShutdownRequested(deadline=core.now),
    ):
        assert core.handle(event) == []
    assert core.pool.state == "stopped"

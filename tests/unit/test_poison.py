"""Code that has cost its pool worker after worker is refused for a while; nothing else is."""

from __future__ import annotations

import pytest

from pool.core.events import (
    DrainRequested,
    JobEnded,
    JobForgotten,
    PardonRequested,
    RecycleRequested,
    Refuse,
    ShutdownRequested,
    WorkerFailed,
    WorkerFreed,
    WorkerRemoved,
    WorkerVanished,
)
from pool.core.poison import MAX_CODES, TOLD_CHARS, Poison
from pool.core.policy import CLEARING_S
from pool.errors import JobRefusedError, from_code
from pool.model import Outcome
from tests.rehearsal import Rehearsal, every, only

BAD = "bad-code"


def pool(**policy):
    rules = {"min_workers": 1, "max_workers": 1, "poison_kills": 2, "poison_window_s": 100.0, "poison_refuse_s": 50.0}
    return Rehearsal(**(rules | policy)).up()


def running(play, job_id, code=BAD, **rest):
    """A job that runs; its worker. The pool has one that is idle."""
    play.submit(job_id, code=code, **rest)
    play.start(job_id)
    return play.pool.jobs[job_id].worker_id


def recovered(play):
    """The engine removes what is lost and starts the next ones."""
    play.clear_away()
    for worker_id in play.ids("starting"):
        play.ready(worker_id)


def kill(play, job_id, **rest):
    """The worker breaks down while the job runs."""
    commands = play.play(WorkerVanished(worker_id=running(play, job_id, **rest), reason="link closed"))
    recovered(play)
    return commands


def refused(play, job_id, code=BAD):
    """The refusal of a job of this code, or None: then it was taken, and has ended."""
    refusals = every(play.submit(job_id, code=code), Refuse)
    if refusals:
        return refusals[0]
    play.start(job_id)
    play.end(job_id)
    return None


# ---- the memory by itself ----


@pytest.fixture
def memory():
    return Poison(kills=3, window_s=100, refuse_s=50)


def test_the_kth_kill_within_the_window_makes_it_refused_for_its_time(memory):
    assert [memory.killed(BAD, "w", "died", now=at) for at in (0, 40, 90)] == [False, False, True]
    assert memory.refused_s(BAD, 100) == 40
    assert memory.refused_s(BAD, 140) is None
    assert memory.refused_s("other", 100) is None


def test_kills_further_apart_than_the_window_do_not_add_up(memory):
    assert not any(memory.killed(BAD, "w", "died", now=at) for at in (0, 60, 120, 180, 240))


def test_one_more_kill_after_the_refusal_is_enough_while_the_others_are_within_the_window(memory):
    for at in (0, 1, 2):
        memory.killed(BAD, "w", "died", now=at)
    assert memory.refused_s(BAD, 60) is None
    assert memory.killed(BAD, "w", "died", now=60)
    assert memory.refused_s(BAD, 60) == 50


def test_what_was_long_ago_is_forgotten(memory):
    memory.killed(BAD, "w", "died", now=0)
    memory.killed("other", "w", "died", now=50)
    assert [each.code for each in memory.view(60)] == ["other", BAD]
    assert [each.code for each in memory.view(120)] == ["other"]
    assert memory.view(200) == []


def test_kills_zero_remembers_and_refuses_nothing():
    memory = Poison(kills=0, window_s=100, refuse_s=50)
    assert not any(memory.killed(BAD, "w", "died", now=0) for _ in range(10))
    assert (memory.view(0), memory.refused_s(BAD, 0)) == ([], None)


def test_the_memory_is_bounded_and_the_oldest_killers_go_first(memory):
    for number in range(MAX_CODES + 10):
        memory.killed(f"c{number}", "w", "x" * 10_000, now=1)
    seen = memory.view(1)
    assert len(seen) == MAX_CODES
    assert {each.code for each in seen}.isdisjoint(f"c{number}" for number in range(10))
    assert {len(each.kills[0].what) for each in seen} == {TOLD_CHARS}
    for _ in range(100):
        memory.killed("again", "w", "died", now=2)
    assert len(memory.view(2)[0].kills) == 3


# ---- what counts ----


def vanishes_while_it_runs(play, job_id):
    kill(play, job_id)


def vanishes_while_it_clears_up(play, job_id):
    worker, job = running(play, job_id), play.pool.jobs[job_id]
    play.play(JobEnded(worker_id=worker, job_id=job_id, epoch=job.epoch, outcome=Outcome.OK))
    play.play(WorkerVanished(worker_id=worker, reason="the zygote has died"))


def is_left_dirty(play, job_id):
    running(play, job_id)
    play.end(job_id, dirty="a process that will not go")


def does_not_come_free(play, job_id):
    worker, job = running(play, job_id), play.pool.jobs[job_id]
    play.play(JobEnded(worker_id=worker, job_id=job_id, epoch=job.epoch, outcome=Outcome.ERROR))
    play.tick(CLEARING_S)


def does_not_answer_at_the_deadline(play, job_id):
    running(play, job_id)
    play.tick(20.0)


def is_dirty_and_its_job_forgotten(play, job_id):
    worker, job = running(play, job_id), play.pool.jobs[job_id]
    play.play(JobEnded(worker_id=worker, job_id=job_id, epoch=job.epoch, outcome=Outcome.OK))
    play.play(JobForgotten(job_id=job_id))
    play.play(WorkerFreed(worker_id=worker, epoch=job.epoch, dirty="a file"))


@pytest.mark.parametrize(
    "loses",
    [
        vanishes_while_it_runs,
        vanishes_while_it_clears_up,
        is_left_dirty,
        does_not_come_free,
        does_not_answer_at_the_deadline,
        is_dirty_and_its_job_forgotten,
    ],
)
def test_a_worker_that_is_lost_to_its_job_counts(loses):
    play = pool()
    for number in range(2):
        assert refused(play, f"before {number}") is None
        loses(play, f"j{number}")
        recovered(play)
    refusal = refused(play, "after")
    assert refusal.code == "poisoned_code"
    assert refusal.retry_after_s <= 50
    assert refused(play, "another", code="good-code") is None


def ends(outcome):
    def act(play, job_id):
        running(play, job_id)
        play.end(job_id, outcome)

    return act


def vanishes_idle(play, job_id):
    play.run(job_id)
    play.play(WorkerVanished(worker_id="p-1", reason="link closed"))


def vanishes_before_it_began(play, job_id):
    play.submit(job_id, code=BAD)
    play.play(WorkerVanished(worker_id=play.pool.jobs[job_id].worker_id, reason="it did not take a job"))


def did_not_begin_by_the_deadline(play, job_id):
    play.submit(job_id, code=BAD)
    play.tick(20.0)


def is_cancelled_and_vanishes(play, job_id):
    worker = running(play, job_id)
    play.cancel(job_id)
    play.play(WorkerVanished(worker_id=worker, reason="link closed"))


def is_cancelled_before_it_begins_and_vanishes(play, job_id):
    play.submit(job_id, code=BAD)
    play.cancel(job_id)
    play.start(job_id)
    play.play(WorkerVanished(worker_id=play.pool.jobs[job_id].worker_id, reason="link closed"))


def is_cancelled_and_does_not_answer(play, job_id):
    running(play, job_id)
    play.cancel(job_id)
    play.tick(5.0)


def is_removed(play, job_id):
    play.play(WorkerRemoved(worker_id=running(play, job_id)))


def is_said_to_have_failed(play, job_id):
    play.play(WorkerFailed(worker_id=running(play, job_id), reason="engine"))


def is_recycled(play, job_id):
    worker = running(play, job_id)
    play.play(RecycleRequested(worker_id=worker))
    play.end(job_id)


@pytest.mark.parametrize(
    "happens",
    [
        *(ends(outcome) for outcome in Outcome if outcome is not Outcome.LOST),
        vanishes_idle,
        vanishes_before_it_began,
        did_not_begin_by_the_deadline,
        is_cancelled_and_vanishes,
        is_cancelled_before_it_begins_and_vanishes,
        is_cancelled_and_does_not_answer,
        is_removed,
        is_said_to_have_failed,
        is_recycled,
    ],
)
def test_what_is_not_the_doing_of_the_code_does_not_count(happens):
    play = pool(poison_kills=1)
    happens(play, "j")
    recovered(play)
    assert play.pool.poison(play.now) == []
    assert refused(play, "after") is None


def test_a_shutdown_counts_nothing():
    play = pool(poison_kills=1)
    worker = running(play, "j")
    play.play(ShutdownRequested(deadline=play.now + 1))
    play.play(WorkerVanished(worker_id=worker, reason="killed"))
    assert play.pool.poison(play.now) == []


def test_a_job_that_was_leased_to_a_fresh_worker_is_not_blamed_for_the_one_before():
    play = pool(poison_kills=1)
    play.run("other")
    running(play, "j", code="good-code")
    play.play(WorkerVanished(worker_id=play.pool.jobs["j"].worker_id, reason="link closed"))
    assert [each.code for each in play.pool.poison(play.now)] == ["good-code"]


def test_code_without_a_digest_is_not_remembered():
    play = pool(poison_kills=1)
    kill(play, "j", code="")
    assert play.pool.poison(play.now) == []
    assert refused(play, "after", code="") is None


# ---- what follows ----


def test_a_refusal_tells_which_workers_when_and_how_and_what_to_do():
    play = pool()
    kill(play, "j1")
    play.now += 30
    kill(play, "j2")
    play.now += 10
    refusal = refused(play, "after")
    assert refusal.message.startswith(
        "This code has cost 2 workers and is refused for 40 s more: 10 s ago p-2 vanished"
    )
    assert "40 s ago p-1 vanished (link closed)" in refusal.message
    assert refusal.message.endswith(f"pool-admin pardon {BAD}")
    error = from_code(refusal.code, refusal.message, {**refusal.fields, "retry_after_s": refusal.retry_after_s})
    assert isinstance(error, JobRefusedError)
    assert (error.fields["digest"], error.fields["kills"], error.fields["retry_after_s"]) == (BAD, 2, 40)
    assert "p-1" in error.fields["history"]


def test_jobs_of_that_code_that_wait_are_rejected_and_others_go_on():
    play = pool()
    kill(play, "j1")
    worker = running(play, "j2")
    play.submit("waits", code=BAD, queue_timeout_s=1000.0)
    play.submit("of-another-client", "bob", code=BAD)
    play.submit("good", code="good-code")
    play.play(WorkerVanished(worker_id=worker, reason="link closed"))
    for job_id in ("waits", "of-another-client"):
        finish = play.finishes()[job_id]
        assert (finish.outcome, finish.worker_id, finish.attempt) == (Outcome.REJECTED, None, 0)
        assert finish.reason.startswith(
            "This code has cost 2 workers and is refused for 50 s more: 0 s ago p-2 vanished"
        )
    recovered(play)
    play.start("good")
    play.end("good")
    play.pass_time(2000)
    assert {job_id: finish.outcome for job_id, finish in play.finishes().items()} == {
        "j1": "lost", "j2": "lost", "waits": "rejected", "of-another-client": "rejected", "good": "ok",
    }  # fmt: skip


def test_jobs_of_that_code_that_run_go_on():
    play = pool(min_workers=2, max_workers=2, poison_kills=1)
    running(play, "lucky")
    play.play(WorkerVanished(worker_id=running(play, "killer"), reason="link closed"))
    play.end("lucky")
    assert play.finishes()["lucky"].outcome is Outcome.OK


def test_after_its_time_it_may_run_again():
    play = pool(poison_kills=1)
    kill(play, "j")
    play.now += 49
    assert refused(play, "too early")
    play.now += 1
    assert refused(play, "in time") is None


def test_a_pardon_lets_it_run_at_once_and_forgets_its_history():
    play = pool()
    for number in range(2):
        kill(play, f"j{number}")
    play.play(PardonRequested(code="another"))
    assert refused(play, "not pardoned")
    play.play(PardonRequested(code=BAD))
    assert refused(play, "pardoned") is None
    kill(play, "first again")
    assert refused(play, "still taken") is None


def test_a_pardon_of_everything_works_while_the_pool_drains():
    play = pool(poison_kills=1)
    kill(play, "j")
    kill(play, "k", code="more")
    play.play(DrainRequested())
    play.play(PardonRequested())
    assert play.pool.poison(play.now) == []


def test_the_same_job_again_is_not_refused_but_known():
    play = pool(poison_kills=1)
    kill(play, "j")
    assert not every(play.submit("j", code=BAD), Refuse)


def test_the_stories_of_pool_and_code_tell_what_happened():
    play = pool(poison_kills=1)
    kill(play, "j")
    assert only(play.submit("after", code=BAD), Refuse)
    play.play(PardonRequested())
    of_code = [entry.text for entry in play.pool.story(BAD)]
    assert of_code[0] == "cost p-1: vanished (link closed)"
    assert of_code[1].startswith("is refused for 50 s")
    assert of_code[2] == "pardoned"
    of_pool = " ".join(entry.text for entry in play.pool.story("p"))
    assert "code bad-code has cost p-1, 1 of 1" in of_pool
    assert "refused: poisoned_code" in play.pool.story("after")[0].text

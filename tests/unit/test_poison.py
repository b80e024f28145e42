"""Code that has cost its pool several workers is refused for a while; nothing else is."""

import pytest

from pool.core import events as ev
from pool.core.poison import LISTED_CHARS, MAX_CODES, Poison
from pool.core.policy import CLEANING_S
from pool.errors import JobRefusedError
from pool.model import Outcome
from tests.support.core import Core, refusal

BAD = "bad-code"


def pool(**policy):
    rules = {"min_workers": 1, "max_workers": 1, "poison_kills": 2, "poison_window_s": 100.0, "poison_refuse_s": 50.0}
    return Core(**(rules | policy)).up()


def running(core, job_id, code=BAD, **rest):
    """A job that runs; its worker. The pool has one that is idle."""
    core.submit(job_id, code=code, **rest)
    core.start(job_id)
    return core.worker_of(job_id)


def kill(core, job_id, **rest):
    """The worker breaks down while the job runs."""
    commands = core.vanish(running(core, job_id, **rest))
    core.recover()
    return commands


def refused(core, job_id, code=BAD):
    """Why a job of this code is refused; None: it is accepted, and runs to its end."""
    error = refusal(core.submit(job_id, code=code))
    if error is None:
        core.start(job_id)
        core.end(job_id)
    return error


# ---- the memory by itself ----


@pytest.fixture
def memory():
    return Poison(kills=3, window_s=100, refuse_s=50)


def test_the_kth_kill_within_the_window_refuses_the_code_for_a_while(memory):
    assert [memory.killed(BAD, "w", "died", now=at) for at in (0, 40, 90)] == [False, False, True]
    assert memory.refused_s(BAD, 100) == 40
    assert memory.refused_s(BAD, 140) is None
    assert memory.refused_s("other", 100) is None


def test_kills_further_apart_than_the_window_do_not_add_up(memory):
    assert not any(memory.killed(BAD, "w", "died", now=at) for at in (0, 60, 120, 180, 240))


def test_after_a_refusal_one_more_kill_is_enough_while_the_others_are_within_the_window(memory):
    for at in (0, 1, 2):
        memory.killed(BAD, "w", "died", now=at)
    assert memory.refused_s(BAD, 60) is None
    assert memory.killed(BAD, "w", "died", now=60)
    assert memory.refused_s(BAD, 60) == 50


def test_kills_older_than_the_window_are_forgotten(memory):
    memory.killed(BAD, "w", "died", now=0)
    memory.killed("other", "w", "died", now=50)
    assert [each.code for each in memory.view(60)] == ["other", BAD]
    assert [each.code for each in memory.view(120)] == ["other"]
    assert memory.view(200) == []


def test_with_kills_0_nothing_is_remembered_or_refused():
    memory = Poison(kills=0, window_s=100, refuse_s=50)
    assert not any(memory.killed(BAD, "w", "died", now=0) for _ in range(10))
    assert (memory.view(0), memory.refused_s(BAD, 0)) == ([], None)


def test_the_memory_is_bounded_and_the_code_that_killed_longest_ago_goes_first(memory):
    for number in range(MAX_CODES + 10):
        memory.killed(f"c{number}", "w", "x" * 10_000, now=1)
    seen = memory.view(1)
    assert len(seen) == MAX_CODES
    assert {each.code for each in seen}.isdisjoint(f"c{number}" for number in range(10))
    assert {len(each.kills[0].what) for each in seen} == {LISTED_CHARS}
    for _ in range(100):
        memory.killed("again", "w", "died", now=2)
    assert len(memory.view(2)[0].kills) == 3


# ---- what counts ----


def vanishes_while_it_runs(core, job_id):
    kill(core, job_id)


def vanishes_while_it_cleans_up(core, job_id):
    worker = running(core, job_id)
    core.report(job_id)
    core.vanish(worker, "the zygote has died")


def is_not_clean(core, job_id):
    running(core, job_id)
    core.end(job_id, residue="a process that cannot be killed")


def does_not_become_free(core, job_id):
    running(core, job_id)
    core.report(job_id, Outcome.ERROR)
    core.tick(CLEANING_S)


def does_not_answer_at_the_deadline(core, job_id):
    running(core, job_id)
    core.tick(20.0)


@pytest.mark.parametrize(
    "loses",
    [
        vanishes_while_it_runs,
        vanishes_while_it_cleans_up,
        is_not_clean,
        does_not_become_free,
        does_not_answer_at_the_deadline,
    ],
)
def test_a_worker_that_is_lost_because_of_its_job_counts(loses):
    core = pool()
    for number in range(2):
        assert refused(core, f"before {number}") is None
        loses(core, f"j{number}")
        core.recover()
    error = refused(core, "after")
    assert error.code == "poisoned_code"
    assert error.fields["retry_after_s"] <= 50
    assert refused(core, "another", code="good-code") is None


def ends(outcome):
    def act(core, job_id):
        running(core, job_id)
        core.end(job_id, outcome)

    return act


def vanishes_idle(core, job_id):
    core.run(job_id)
    core.vanish("p-1")


def vanishes_before_it_began(core, job_id):
    core.submit(job_id, code=BAD)
    core.vanish(core.worker_of(job_id), "it did not take a job")


def did_not_begin_by_the_deadline(core, job_id):
    core.submit(job_id, code=BAD)
    core.tick(20.0)


def is_cancelled_and_vanishes(core, job_id):
    worker = running(core, job_id)
    core.cancel(job_id)
    core.vanish(worker)


def is_cancelled_before_it_begins_and_vanishes(core, job_id):
    core.submit(job_id, code=BAD)
    core.cancel(job_id)
    core.start(job_id)
    core.vanish(core.worker_of(job_id))


def is_cancelled_before_it_begins_and_vanishes_with_it(core, job_id):
    core.submit(job_id, code=BAD)
    core.cancel(job_id)
    core.handle(ev.WorkerVanished(worker_id=core.worker_of(job_id), reason="link closed", has_job=True))


def is_cancelled_and_leaves_something_behind(core, job_id):
    core.submit(job_id, code=BAD)
    core.cancel(job_id)
    core.end(job_id, Outcome.CANCELLED, residue="files: a")


def is_cancelled_and_does_not_answer(core, job_id):
    running(core, job_id)
    core.cancel(job_id)
    core.tick(5.0)


def is_removed(core, job_id):
    core.handle(ev.WorkerRemoved(worker_id=running(core, job_id)))


def is_said_to_have_failed(core, job_id):
    core.handle(ev.WorkerFailed(worker_id=running(core, job_id), reason="engine"))


def is_recycled(core, job_id):
    worker = running(core, job_id)
    core.handle(ev.RecycleRequested(worker_id=worker))
    core.end(job_id)


@pytest.mark.parametrize(
    "happens",
    [
        *(ends(outcome) for outcome in Outcome if outcome is not Outcome.LOST),
        vanishes_idle,
        vanishes_before_it_began,
        did_not_begin_by_the_deadline,
        is_cancelled_and_vanishes,
        is_cancelled_before_it_begins_and_vanishes,
        is_cancelled_before_it_begins_and_vanishes_with_it,
        is_cancelled_and_leaves_something_behind,
        is_cancelled_and_does_not_answer,
        is_removed,
        is_said_to_have_failed,
        is_recycled,
    ],
)
def test_a_failure_that_is_not_due_to_the_code_does_not_count(happens):
    core = pool(poison_kills=1)
    happens(core, "j")
    core.recover()
    assert core.pool.poison(core.now) == []
    assert refused(core, "after") is None


def test_a_worker_that_vanishes_with_a_job_counts_also_if_it_has_not_said_that_the_job_started():
    core = pool(poison_kills=1)
    core.submit("j", code=BAD)
    core.handle(ev.WorkerVanished(worker_id=core.worker_of("j"), reason="link closed", has_job=True))
    core.recover()
    assert refused(core, "after")


def test_a_worker_that_is_not_clean_after_a_short_job_counts():
    core = pool(poison_kills=1)
    core.submit("j", code=BAD)
    core.end("j", residue="files: a")
    core.recover()
    assert refused(core, "after")


def test_a_shutdown_counts_nothing():
    core = pool(poison_kills=1)
    worker = running(core, "j")
    core.handle(ev.ShutdownRequested(deadline=core.now + 1))
    core.vanish(worker, "killed")
    assert core.pool.poison(core.now) == []


def test_a_failure_counts_against_the_latest_job_and_not_against_the_one_before():
    core = pool(poison_kills=1)
    core.run("other")
    running(core, "j", code="good-code")
    core.vanish(core.worker_of("j"))
    assert [each.code for each in core.pool.poison(core.now)] == ["good-code"]


def test_code_without_a_digest_is_not_remembered():
    core = pool(poison_kills=1)
    kill(core, "j", code="")
    assert core.pool.poison(core.now) == []
    assert refused(core, "after", code="") is None


# ---- what follows ----


def test_a_refusal_names_the_workers_and_how_and_when_they_were_lost_and_what_to_do():
    core = pool()
    kill(core, "j1")
    core.now += 30
    kill(core, "j2")
    core.now += 10
    error = refused(core, "after")
    assert isinstance(error, JobRefusedError)
    assert error.message.startswith("This code has cost 2 workers and is refused for 40 s more: 10 s ago p-2 vanished")
    assert "40 s ago p-1 vanished (link closed)" in error.message
    assert error.message.endswith(f"pool-admin pardon {BAD}")
    assert (error.fields["digest"], error.fields["kills"], error.fields["retry_after_s"]) == (BAD, 2, 40)
    assert "p-1" in error.fields["history"]


def test_jobs_of_that_code_that_wait_are_rejected_and_others_go_on():
    core = pool()
    kill(core, "j1")
    worker = running(core, "j2")
    core.submit("waits", code=BAD, queue_timeout_s=1000.0)
    core.submit("of-another-client", "bob", code=BAD)
    core.submit("good", code="good-code")
    core.vanish(worker)
    assert refusal(core.submit("late", code=BAD)), "new jobs are refused at once"
    core.remove_stopped()
    for job_id in ("waits", "of-another-client"):
        finish = core.finishes()[job_id]
        assert (finish.outcome, finish.worker_id, finish.attempt) == (Outcome.REJECTED, None, 0)
        assert finish.reason.startswith(
            "This code has cost 2 workers and is refused for 50 s more: 0 s ago p-2 vanished"
        )
    core.recover()
    core.start("good")
    core.end("good")
    core.pass_time(2000)
    assert {job_id: finish.outcome for job_id, finish in core.finishes().items()} == {
        "j1": "lost", "j2": "lost", "waits": "rejected", "of-another-client": "rejected", "good": "ok",
    }  # fmt: skip


def vanish_with_the_engine(core, *workers):
    for worker in workers:
        core.vanish(worker)
    for worker in workers:
        core.handle(ev.WorkerRemoved(worker_id=worker, engine_away=True))


def test_workers_that_vanish_while_the_engine_is_away_do_not_count_and_waiting_jobs_of_their_code_run():
    core = pool(min_workers=2, max_workers=2)
    workers = [running(core, job_id) for job_id in ("j1", "j2")]
    core.submit("waits", code=BAD, queue_timeout_s=1000.0)
    vanish_with_the_engine(core, *workers)
    assert core.pool.poison(core.now) == []
    core.recover()
    core.start("waits")
    core.end("waits")
    assert core.finishes()["waits"].outcome is Outcome.OK
    assert refused(core, "after") is None


def test_what_counted_before_the_engine_was_away_still_counts():
    core = pool()
    kill(core, "j1")
    vanish_with_the_engine(core, running(core, "j2"))
    core.recover()
    assert refused(core, "not yet") is None
    kill(core, "j3")
    assert refused(core, "after")


def test_a_waiting_job_of_refused_code_is_not_dispatched_before_the_engine_has_removed_the_worker():
    core = pool(min_workers=2, max_workers=2, poison_kills=1, reuse_scope="any")
    running(core, "other", code="good-code")
    worker = running(core, "killer")
    core.submit("waits", code=BAD, queue_timeout_s=1000.0)
    core.vanish(worker)
    core.end("other")
    assert core.finishes()["waits"].outcome is Outcome.REJECTED


def test_jobs_of_that_code_that_run_go_on():
    core = pool(min_workers=2, max_workers=2, poison_kills=1)
    running(core, "lucky")
    core.vanish(running(core, "killer"))
    core.end("lucky")
    assert core.finishes()["lucky"].outcome is Outcome.OK


def test_after_the_refusal_time_the_code_may_run_again():
    core = pool(poison_kills=1)
    kill(core, "j")
    core.now += 49
    assert refused(core, "too early")
    core.now += 1
    assert refused(core, "in time") is None


def test_a_pardon_lets_it_run_at_once_and_forgets_its_history():
    core = pool()
    for number in range(2):
        kill(core, f"j{number}")
    core.handle(ev.PardonRequested(code="another"))
    assert refused(core, "not pardoned")
    core.handle(ev.PardonRequested(code=BAD))
    assert refused(core, "pardoned") is None
    kill(core, "first again")
    assert refused(core, "still taken") is None


def test_a_pardon_of_everything_works_while_the_pool_drains():
    core = pool(poison_kills=1)
    kill(core, "j")
    kill(core, "k", code="more")
    core.handle(ev.DrainRequested())
    core.handle(ev.PardonRequested())
    assert core.pool.poison(core.now) == []


def test_a_known_job_that_is_submitted_again_is_not_refused():
    core = pool(min_workers=2, max_workers=2, poison_kills=1)
    running(core, "lucky")
    core.vanish(running(core, "killer"))
    assert core.submit("lucky", code=BAD) == []
    assert refusal(core.submit("another", code=BAD)) is not None


def test_the_histories_of_pool_and_code_show_what_happened():
    core = pool(poison_kills=1)
    kill(core, "j")
    assert refusal(core.submit("after", code=BAD))
    core.handle(ev.PardonRequested())
    of_code = [entry.text for entry in core.pool.history(BAD)]
    assert of_code[0] == "cost p-1: vanished (link closed)"
    assert of_code[1].startswith("is refused for 50 s")
    assert of_code[2] == "pardoned"
    of_pool = " ".join(entry.text for entry in core.pool.history("p"))
    assert "code bad-code has cost p-1, 1 of 1" in of_pool
    assert "refused: poisoned_code" in core.pool.history("after")[0].text

"""How many workers a pool has, when it replaces them, and whom it serves."""

from __future__ import annotations

import pytest

from pool.core.breaker import OPEN_AFTER
from pool.core.events import (
    Dispatch,
    Finish,
    RecycleRequested,
    Refuse,
    ResizeRequested,
    ResumeRequested,
    WorkerFailed,
    WorkerRemoved,
    WorkerVanished,
)
from pool.core.policy import CLIENT_PAUSE_S, CLIENT_TURN_S, IDLE_HOLD_S, REPLACE_AFTER_S
from pool.errors import ConfigError
from pool.model import WorkerState
from tests.rehearsal import Rehearsal, every, only, started, stopped

# ---- growing and shrinking ----


def test_a_new_pool_asks_for_a_tick_at_once_and_starts_its_minimum():
    play = Rehearsal(min_workers=3, max_workers=8)
    assert play.pool.next_deadline() <= play.now
    assert started(play.tick()) == ["p-1", "p-2", "p-3"]


def test_starts_go_only_so_many_at_the_same_time():
    play = Rehearsal(min_workers=5, max_workers=8, start_concurrency=2)
    assert started(play.tick()) == ["p-1", "p-2"]
    assert started(play.ready("p-1")) == ["p-3"]


def test_a_backlog_makes_the_pool_grow_up_to_its_maximum():
    play = Rehearsal(min_workers=1, max_workers=3).up()
    for number in range(10):
        play.submit(f"j{number}")
    assert play.states() == {"leased": 1, "starting": 2}
    assert only(play.ready("p-2"), Dispatch).job_id == "j1"


def test_an_idle_spare_is_held_beyond_those_that_are_leased():
    play = Rehearsal(min_workers=1, max_workers=8, spare=2).up()
    assert play.states() == {"idle": 2}
    assert started(play.submit("j")) == ["p-3"]


def test_surplus_workers_go_after_an_idle_hold_but_never_below_the_minimum():
    play = Rehearsal(min_workers=1, max_workers=4).up()
    for number in range(4):
        play.submit(f"j{number}")
    play.up()
    for number in range(4):
        play.end(f"j{number}")
        play.pass_time(1)
    assert play.states() == {"idle": 4}
    assert stopped(play.pass_time(IDLE_HOLD_S - 5)) == {}
    assert set(stopped(play.pass_time(10)).values()) == {"surplus"}
    play.clear_away()
    assert play.ids() == ["p-4"], "the one used last stays"
    play.pass_time(1000)
    assert play.states() == {"idle": 1}


def test_a_pool_with_a_minimum_of_none_starts_for_a_job_and_goes_back_to_none():
    play = Rehearsal(min_workers=0, max_workers=2, spare=None)
    assert started(play.tick()) == []
    assert started(play.submit("j")) == ["p-1"]
    play.ready("p-1")
    play.end("j")
    assert "surplus" in stopped(play.pass_time(IDLE_HOLD_S + 1)).values()


def test_a_resize_stops_what_is_above_the_new_maximum_the_cheapest_first():
    play = Rehearsal(min_workers=4, max_workers=4).up()
    play.submit("j")
    busy = play.pool.jobs["j"].worker_id
    commands = play.play(ResizeRequested(min_workers=1, max_workers=1))
    assert set(stopped(commands).values()) == {"resize"}
    assert len(stopped(commands)) == 3
    assert busy not in stopped(commands)
    play.clear_away()
    assert started(play.play(ResizeRequested(min_workers=3, max_workers=3))) == ["p-5", "p-6"]


def test_a_busy_worker_above_the_new_maximum_finishes_its_job_first():
    play = Rehearsal(min_workers=2, max_workers=2).up()
    play.submit("j")
    play.submit("k")
    assert stopped(play.play(ResizeRequested(min_workers=1, max_workers=1))) == {}
    assert play.states() == {"leased": 1, "draining": 1}
    draining = play.pool.workers[play.ids(WorkerState.DRAINING)[0]].job_id
    assert list(stopped(play.end(draining)).values()) == ["resize"]


def test_a_resize_that_makes_no_sense_is_refused_and_changes_nothing():
    play = Rehearsal(min_workers=1, max_workers=2).up()
    with pytest.raises(ConfigError):
        play.play(ResizeRequested(min_workers=3, max_workers=2))
    assert play.pool.policy.max_workers == 2


# ---- wear by jobs ----


def test_with_max_jobs_one_every_job_gets_a_worker_that_nobody_has_used():
    play = Rehearsal(min_workers=2, max_workers=2, max_jobs=1).up()
    used = []
    for number in range(10):
        play.submit(f"j{number}")
        play.up()
        used.append(play.pool.jobs[f"j{number}"].worker_id)
        commands = play.end(f"j{number}")
        assert stopped(commands) == {used[-1]: "max_jobs"}
        assert len(started(commands)) == 1, "the replacement is asked for in the same breath"
        play.up()
        play.clear_away()
    assert len(set(used)) == 10


def test_a_full_pool_of_single_use_workers_still_works_through_its_backlog():
    play = Rehearsal(min_workers=2, max_workers=2, max_jobs=1).up()
    for number in range(6):
        play.submit(f"j{number}")
    for number in range(6):
        play.end(f"j{number}")
        play.clear_away()
        play.up()
    assert all(job.outcome == "ok" for job in play.pool.jobs.values())


def test_the_replacement_of_a_worker_is_started_while_its_last_job_runs_but_not_at_once():
    play = Rehearsal(min_workers=1, max_workers=2, max_jobs=1).up()
    assert started(play.submit("j")) == []
    assert play.pool.next_deadline() == pytest.approx(play.now + REPLACE_AFTER_S)
    assert started(play.tick(REPLACE_AFTER_S)) == ["p-2"]
    play.ready("p-2")
    assert started(play.end("j")) == []


def test_the_replacement_of_a_worker_whose_last_job_is_short_is_started_after_it():
    play = Rehearsal(min_workers=1, max_workers=2, max_jobs=1).up()
    assert started(play.submit("j")) == []
    assert started(play.end("j")) == ["p-2"]


def test_a_worker_serves_its_share_and_no_more():
    play = Rehearsal(min_workers=1, max_workers=1, max_jobs=20).up()
    limit = play.pool.workers["p-1"].jobs_limit
    served = {play.run(f"j{number}") for number in range(limit)}
    assert served == {"p-1"}
    assert stopped(play.log) == {"p-1": "max_jobs"}


def test_workers_that_share_the_load_evenly_do_not_wear_out_at_the_same_time():
    play = Rehearsal(min_workers=8, max_workers=8, max_jobs=100).up()
    limits = [worker.jobs_limit for worker in play.pool.workers.values()]
    ages = [worker.retire_at for worker in play.pool.workers.values()]
    assert len(set(limits)) >= 6
    assert len(set(ages)) == 8


def test_two_pools_of_the_same_seed_decide_the_same():
    one, other = (Rehearsal(min_workers=8, max_workers=8, seed=3).up() for _ in range(2))
    limits = [[worker.jobs_limit for worker in each.pool.workers.values()] for each in (one, other)]
    assert limits[0] == limits[1]


# ---- wear by age, and recycling on request ----


def test_an_old_worker_is_replaced_before_it_goes_where_there_is_room():
    play = Rehearsal(min_workers=1, max_workers=2, max_age_s=100).up()
    commands = play.pass_time(101)
    assert started(commands) == ["p-2"]
    assert stopped(commands) == {}
    assert stopped(play.ready("p-2")) == {"p-1": "max_age"}


def test_an_old_worker_goes_first_where_there_is_no_room():
    play = Rehearsal(min_workers=1, max_workers=1, max_age_s=100).up()
    commands = play.pass_time(101)
    assert stopped(commands) == {"p-1": "max_age"}
    assert started(commands) == ["p-2"]


def test_an_old_worker_finishes_its_job_first():
    play = Rehearsal(min_workers=1, max_workers=1, max_age_s=100).up()
    play.submit("j", wall_s=1000)
    assert stopped(play.pass_time(101)) == {}
    assert play.states() == {"draining": 1}
    assert stopped(play.end("j")) == {"p-1": "max_age"}


@pytest.mark.parametrize("max_workers", [4, 6])
def test_only_one_worker_at_a_time_is_replaced_for_its_age(max_workers):
    play = Rehearsal(min_workers=4, max_workers=max_workers, max_age_s=100).up()
    play.tick(after=1000)
    for _ in range(4):
        assert sum(worker.leaving is not None for worker in play.pool.workers.values()) <= 1
        play.up()
        assert sum(worker.leaving is not None for worker in play.pool.workers.values()) <= 1
        play.clear_away()
    play.up()
    assert play.ids(WorkerState.IDLE) == ["p-5", "p-6", "p-7", "p-8"]


def test_a_pool_that_cannot_start_workers_keeps_the_old_ones():
    play = Rehearsal(min_workers=1, max_workers=1, max_age_s=100, boot_timeout_s=5).up()
    play.play(ResizeRequested(min_workers=2, max_workers=2))
    for _ in range(OPEN_AFTER):
        play.pass_time(60)
    assert play.pool.breaker.open
    play.pass_time(1000)
    assert "p-1" in play.ids(WorkerState.IDLE)
    assert only(play.submit("j"), Dispatch).worker_id == "p-1"


def test_recycling_one_worker_replaces_it_at_once_or_after_its_job():
    play = Rehearsal(min_workers=2, max_workers=2).up()
    play.submit("j")
    busy = play.pool.jobs["j"].worker_id
    (idle,) = play.ids(WorkerState.IDLE)
    assert stopped(play.play(RecycleRequested(worker_id=idle))) == {idle: "operator"}
    assert stopped(play.play(RecycleRequested(worker_id=busy))) == {}
    assert stopped(play.end("j")) == {busy: "operator"}


def test_recycling_all_goes_round_one_after_another_and_the_pool_serves_all_the_while():
    play = Rehearsal(min_workers=3, max_workers=3).up()
    play.play(RecycleRequested())
    for number in range(3):
        assert play.states() == {"idle": 2, "starting": 1, "stopping": 1}
        assert only(play.submit(f"j{number}"), Dispatch)
        play.end(f"j{number}")
        play.ready(f"p-{4 + number}")
        play.clear_away()
    assert play.ids() == ["p-4", "p-5", "p-6"]
    assert play.states() == {"idle": 3}


# ---- failed starts ----


def fail(play: Rehearsal, *, permanent: bool = False) -> float:
    """Let the start that is under way fail; seconds until the next try."""
    (worker_id,) = play.ids(WorkerState.STARTING)
    commands = play.play(WorkerFailed(worker_id=worker_id, reason="engine says no", permanent=permanent))
    assert stopped(commands) == {worker_id: "start_failed"}
    assert started(commands) == []
    play.clear_away()
    return play.pool.breaker.retry_at - play.now


def test_failed_starts_back_off_and_open_the_breaker():
    play = Rehearsal(min_workers=1, max_workers=1)
    play.tick()
    for failures, expected in enumerate([1, 2, 4, 8, 16, 32, 60, 60], start=1):
        assert fail(play) == expected
        assert play.pool.breaker.open == (failures >= OPEN_AFTER)
        assert len(started(play.pass_time(expected))) == 1
    assert play.pool.breaker.last_reason == "engine says no"


def test_after_a_failure_one_start_tries_and_a_success_lets_the_others_follow():
    play = Rehearsal(min_workers=3, max_workers=3, start_concurrency=3)
    play.tick()
    for worker_id in play.ids():
        play.play(WorkerFailed(worker_id=worker_id, reason="engine says no"))
    play.clear_away()
    assert play.pool.breaker.open
    assert len(started(play.pass_time(4))) == 1
    assert len(started(play.ready(play.ids(WorkerState.STARTING)[0]))) == 2
    assert not play.pool.breaker.open
    assert play.pool.breaker.failures == 0


def test_a_permanent_failure_opens_the_breaker_at_once_for_the_longest_wait():
    play = Rehearsal(min_workers=1, max_workers=1)
    play.tick()
    assert fail(play, permanent=True) == 60
    assert play.pool.breaker.open


@pytest.mark.parametrize("event", [WorkerVanished(worker_id="p-1", reason="died"), WorkerRemoved(worker_id="p-1")])
def test_a_worker_that_dies_before_it_is_ready_is_a_failed_start(event):
    play = Rehearsal(min_workers=1, max_workers=1)
    play.tick()
    play.play(event)
    assert play.pool.breaker.failures == 1


def test_a_worker_that_is_not_ready_in_time_is_a_failed_start():
    play = Rehearsal(min_workers=1, max_workers=1, boot_timeout_s=30)
    play.tick()
    assert stopped(play.pass_time(30)) == {"p-1": "boot_timeout"}
    assert play.pool.breaker.failures == 1
    assert play.ready("p-1") == []


def test_jobs_are_refused_while_the_breaker_is_open_and_no_worker_lives():
    play = Rehearsal(min_workers=1, max_workers=1)
    play.tick()
    play.submit("waits", queue_timeout_s=30)
    fail(play, permanent=True)
    refusal = only(play.submit("j"), Refuse)
    assert refusal.code == "pool_unavailable"
    assert "engine says no" in refusal.message
    assert refusal.retry_after_s == 60
    assert only(play.pass_time(31), Finish).job_id == "waits"


def test_jobs_are_taken_while_the_breaker_is_open_as_long_as_a_worker_lives():
    play = Rehearsal(min_workers=2, max_workers=2, start_concurrency=1)
    play.tick()
    play.ready("p-1")
    fail(play, permanent=True)
    assert only(play.submit("j"), Dispatch)
    assert not every(play.submit("k"), Refuse)


def test_a_resume_closes_the_breaker_and_tries_at_once():
    play = Rehearsal(min_workers=1, max_workers=1)
    play.tick()
    fail(play, permanent=True)
    assert started(play.play(ResumeRequested())) == ["p-2"]
    assert not play.pool.breaker.open


def test_a_worker_that_vanishes_again_and_again_is_no_reason_to_start_more_than_the_pool_may_have():
    play = Rehearsal(min_workers=2, max_workers=2).up()
    for _ in range(10):
        for worker_id in play.ids(WorkerState.IDLE):
            play.play(WorkerVanished(worker_id=worker_id, reason="killed"))
        for worker_id in play.ids(WorkerState.STARTING):
            play.ready(worker_id)
    assert len(play.pool.workers) <= 4, "as many being removed as may live, and no more"


# ---- one client's worker is not another's ----


def test_in_client_scope_no_worker_serves_two_clients():
    play = Rehearsal(min_workers=2, max_workers=2, reuse_scope="client").up()
    assert play.run("a", "ann") != play.run("b", "bob")
    assert play.run("a2", "ann") == play.pool.jobs["a"].worker_id


def test_in_any_scope_one_worker_serves_all():
    play = Rehearsal(min_workers=1, max_workers=1, reuse_scope="any").up()
    assert play.run("a", "ann") == play.run("b", "bob")


def test_a_job_that_finds_only_foreign_workers_gets_a_fresh_one_where_there_is_room():
    play = Rehearsal(min_workers=1, max_workers=2, reuse_scope="client").up()
    play.run("a", "ann")
    commands = play.submit("b", "bob")
    assert started(commands) == ["p-2"]
    assert stopped(commands) == {}


def test_in_a_full_pool_the_foreign_worker_that_was_idle_the_longest_makes_room():
    play = Rehearsal(min_workers=2, max_workers=2, reuse_scope="client").up()
    oldest = play.run("a", "ann")
    play.pass_time(0.1)
    play.run("b", "bob")
    play.submit("c", "cid")
    commands = play.pass_time(CLIENT_PAUSE_S)
    assert stopped(commands) == {oldest: "foreign"}
    assert only(play.ready(started(commands)[0]), Dispatch).job_id == "c"


def test_a_client_that_keeps_every_worker_busy_cannot_keep_another_one_out():
    play = Rehearsal(min_workers=2, max_workers=2, reuse_scope="client", max_jobs=100_000).up()
    play.submit("a0", "ann")
    play.submit("a1", "ann")
    play.submit("b", "bob")
    for number in range(2, 100):  # ann always has the next job waiting when one ends
        play.submit(f"a{number}", "ann")
        play.end(f"a{number - 2}")
        play.pass_time(CLIENT_TURN_S / 20)
        play.clear_away()
        for worker_id in play.ids(WorkerState.STARTING):
            play.ready(worker_id)
        if "b" not in play.pool._books.backlog:
            break
    assert play.pool.jobs["b"].worker_id is not None
    assert number < 60


def test_no_worker_is_taken_from_its_client_while_no_start_can_be_tried():
    play = Rehearsal(min_workers=1, max_workers=2, reuse_scope="client").up()
    play.run("a", "ann")
    play.submit("b", "bob")
    fail(play, permanent=True)
    play.play(ResizeRequested(min_workers=1, max_workers=1))
    assert stopped(play.pass_time(50)) == {}
    assert stopped(play.pass_time(20)) == {"p-1": "foreign"}

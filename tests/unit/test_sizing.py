"""How many workers a pool has, when it replaces them, and whom it serves."""

from random import Random

import pytest

from pool.core import events as ev
from pool.core.breaker import OPEN_AFTER
from pool.core.policy import CLIENT_PAUSE_S, CLIENT_TURN_S, IDLE_HOLD_S, JITTER, REPLACE_AFTER_S
from pool.errors import ConfigError
from pool.model import WorkerState
from tests.support.core import Core, only, refusal, started, stopped

# ---- growing and shrinking ----


def test_a_new_pool_wants_a_tick_at_once_and_starts_its_minimum():
    core = Core(min_workers=3, max_workers=8)
    assert core.pool.next_deadline() <= core.now
    assert started(core.tick()) == ["p-1", "p-2", "p-3"]


def test_only_so_many_starts_are_under_way_at_the_same_time():
    core = Core(min_workers=5, max_workers=8, start_concurrency=2)
    assert started(core.tick()) == ["p-1", "p-2"]
    assert started(core.ready("p-1")) == ["p-3"]


def test_a_backlog_makes_the_pool_grow_up_to_its_maximum():
    core = Core(min_workers=1, max_workers=3).up()
    for number in range(10):
        core.submit(f"j{number}")
    assert core.states() == {"leased": 1, "starting": 2}
    assert only(core.ready("p-2"), ev.Dispatch).job_id == "j1"


def test_an_idle_spare_is_held_beyond_those_that_are_leased():
    core = Core(min_workers=1, max_workers=8, spare=2).up()
    assert core.states() == {"idle": 2}
    assert started(core.submit("j")) == ["p-3"]


def test_the_target_of_a_full_pool_follows_the_jobs_that_its_idle_workers_get():
    core = Core(min_workers=1, max_workers=3, spare=0).up()
    for number in range(3):
        core.submit(f"j{number}")
    core.up()
    for number in range(3):
        core.end(f"j{number}")
    assert (core.states(), core.pool.target) == ({"idle": 3}, 1)
    core.submit("k0")
    core.submit("k1")
    assert core.pool.target == 2


def test_a_worker_that_is_being_stopped_leaves_room_for_the_next_one():
    core = Core(min_workers=1, max_workers=2, spare=1).up()
    core.submit("j")
    core.up()
    core.end("j")
    core.pass_time(IDLE_HOLD_S + 1)
    assert core.states() == {"idle": 1, "stopping": 1}
    assert started(core.submit("k")) == ["p-3"]


def test_surplus_workers_are_stopped_after_an_idle_time_but_never_below_the_minimum():
    core = Core(min_workers=1, max_workers=4).up()
    for number in range(4):
        core.submit(f"j{number}")
    core.up()
    for number in range(4):
        core.end(f"j{number}")
        core.pass_time(1)
    assert core.states() == {"idle": 4}
    assert stopped(core.pass_time(IDLE_HOLD_S - 5)) == {}
    assert set(stopped(core.pass_time(10)).values()) == {"surplus"}
    core.remove_stopped()
    assert core.ids() == ["p-4"], "the one used last stays"
    core.pass_time(1000)
    assert core.states() == {"idle": 1}


def test_a_pool_with_a_minimum_of_0_starts_a_worker_for_a_job_and_shrinks_to_0_again():
    core = Core(min_workers=0, max_workers=2, spare=None)
    assert started(core.tick()) == []
    assert started(core.submit("j")) == ["p-1"]
    core.ready("p-1")
    core.end("j")
    assert "surplus" in stopped(core.pass_time(IDLE_HOLD_S + 1)).values()


def test_a_resize_stops_what_is_above_the_new_maximum_the_cheapest_first():
    core = Core(min_workers=4, max_workers=4).up()
    core.submit("j")
    busy = core.worker_of("j")
    commands = core.handle(ev.ResizeRequested(min_workers=1, max_workers=1))
    assert set(stopped(commands).values()) == {"resize"}
    assert len(stopped(commands)) == 3
    assert busy not in stopped(commands)
    core.remove_stopped()
    assert started(core.handle(ev.ResizeRequested(min_workers=3, max_workers=3))) == ["p-5", "p-6"]


def test_a_busy_worker_above_the_new_maximum_finishes_its_job_first():
    core = Core(min_workers=2, max_workers=2).up()
    core.submit("j")
    core.submit("k")
    assert stopped(core.handle(ev.ResizeRequested(min_workers=1, max_workers=1))) == {}
    assert core.states() == {"leased": 1, "draining": 1}
    (draining,) = core.ids(WorkerState.DRAINING)
    assert stopped(core.end("j" if core.worker_of("j") == draining else "k")) == {draining: "resize"}


def test_an_impossible_resize_is_refused_and_changes_nothing():
    core = Core(min_workers=1, max_workers=2).up()
    with pytest.raises(ConfigError):
        core.handle(ev.ResizeRequested(min_workers=3, max_workers=2))
    assert core.pool.policy.max_workers == 2


# ---- replacement after max_jobs ----


def _jobs_until_a_start(core, *, every_s):
    """Jobs come one after the other until a worker is started: how many the first worker has had, and its limit."""
    for number in range(100):
        core.now += every_s
        core.submit(f"j{number}")
        if started(core.end(f"j{number}")):
            break
    worker = core.pool.workers["p-1"]
    return worker.jobs, worker.jobs_limit


def _up_after(seconds, **policy):
    core = Core(min_workers=1, **policy)
    core.tick()
    core.now += seconds
    core.all_ready()
    return core


def test_a_busy_worker_is_replaced_before_its_last_job_so_that_the_next_one_is_ready_in_time():
    core = _up_after(0.5, max_workers=2, max_jobs=100)
    jobs, limit = _jobs_until_a_start(core, every_s=0.1)
    assert limit - 14 <= jobs <= limit - 8, "it has ten jobs in the time of two starts"
    core.submit("more")
    assert core.worker_of("more") == "p-1", "it serves until the next one is ready"
    core.end("more")
    assert stopped(core.ready("p-2")) == {"p-1": "max_jobs"}


def test_a_worker_that_has_little_to_do_has_all_its_jobs():
    core = _up_after(0.5, max_workers=2, max_jobs=20)
    jobs, limit = _jobs_until_a_start(core, every_s=60.0)
    assert jobs == limit


def test_where_a_start_takes_long_a_worker_has_half_of_its_jobs_at_least():
    core = _up_after(30.0, max_workers=2, max_jobs=40)
    jobs, limit = _jobs_until_a_start(core, every_s=0.1)
    assert jobs == -(-limit // 2)


def test_in_a_full_pool_a_worker_has_all_its_jobs():
    core = _up_after(0.5, max_workers=1, max_jobs=20)
    jobs, limit = _jobs_until_a_start(core, every_s=0.1)
    assert jobs == limit


def test_with_max_jobs_one_every_job_gets_a_worker_that_nobody_has_used():
    core = Core(min_workers=2, max_workers=2, max_jobs=1).up()
    used = []
    for number in range(10):
        core.submit(f"j{number}")
        core.up()
        used.append(core.worker_of(f"j{number}"))
        commands = core.end(f"j{number}")
        assert stopped(commands) == {used[-1]: "max_jobs"}
        assert len(started(commands)) == 1, "the replacement is started at once"
        core.up()
        core.remove_stopped()
    assert len(set(used)) == 10


def test_a_full_pool_of_single_use_workers_still_works_through_its_backlog():
    core = Core(min_workers=2, max_workers=2, max_jobs=1).up()
    for number in range(6):
        core.submit(f"j{number}")
    for number in range(6):
        core.end(f"j{number}")
        core.recover()
    assert {job_id: finish.outcome for job_id, finish in core.finishes().items()} == {
        f"j{number}": "ok" for number in range(6)
    }


def test_the_replacement_of_a_worker_is_started_while_its_last_job_runs_but_not_at_once():
    core = Core(min_workers=1, max_workers=2, max_jobs=1).up()
    assert started(core.submit("j")) == []
    assert core.pool.next_deadline() == pytest.approx(core.now + REPLACE_AFTER_S)
    assert started(core.tick(REPLACE_AFTER_S)) == ["p-2"]
    core.ready("p-2")
    assert started(core.end("j")) == []


def test_the_replacement_of_a_worker_whose_last_job_is_short_is_started_after_it():
    core = Core(min_workers=1, max_workers=2, max_jobs=1).up()
    assert started(core.submit("j")) == []
    assert started(core.end("j")) == ["p-2"]


def test_a_worker_serves_its_limit_of_jobs_and_no_more():
    core = Core(min_workers=1, max_workers=1, max_jobs=20).up()
    limit = core.pool.workers["p-1"].jobs_limit
    served = {core.run(f"j{number}") for number in range(limit)}
    assert served == {"p-1"}
    assert stopped(core.log) == {"p-1": "max_jobs"}


def test_workers_that_share_the_load_evenly_are_not_replaced_at_the_same_time():
    core = Core(min_workers=8, max_workers=8, max_jobs=100).up()
    limits = [worker.jobs_limit for worker in core.pool.workers.values()]
    ages = [worker.retire_at for worker in core.pool.workers.values()]
    assert len(set(limits)) >= 6
    assert len(set(ages)) == 8


def test_two_pools_of_the_same_seed_decide_the_same():
    one, other = (Core(min_workers=8, max_workers=8, seed=3).up() for _ in range(2))
    limits = [[worker.jobs_limit for worker in each.pool.workers.values()] for each in (one, other)]
    assert limits[0] == limits[1]


# ---- replacement for age or on request ----


def test_an_old_worker_is_replaced_before_it_goes_where_there_is_room():
    core = Core(min_workers=1, max_workers=2, max_age_s=100).up()
    commands = core.pass_time(101)
    assert started(commands) == ["p-2"]
    assert stopped(commands) == {}
    assert stopped(core.ready("p-2")) == {"p-1": "max_age"}


def test_an_old_worker_goes_before_its_replacement_starts_where_there_is_no_room():
    core = Core(min_workers=1, max_workers=1, max_age_s=100).up()
    commands = core.pass_time(101)
    assert stopped(commands) == {"p-1": "max_age"}
    assert started(commands) == ["p-2"]


def test_an_old_worker_finishes_its_job_first():
    core = Core(min_workers=1, max_workers=1, max_age_s=100).up()
    core.submit("j", wall_s=1000)
    assert stopped(core.pass_time(101)) == {}
    assert core.states() == {"draining": 1}
    assert stopped(core.end("j")) == {"p-1": "max_age"}


@pytest.mark.parametrize("max_workers", [4, 6])
def test_only_one_worker_at_a_time_is_replaced_for_its_age(max_workers):
    core = Core(min_workers=4, max_workers=max_workers, max_age_s=100).up()
    core.tick(after=1000)
    for _ in range(4):
        assert sum(worker.leaving is not None for worker in core.pool.workers.values()) <= 1
        core.up()
        assert sum(worker.leaving is not None for worker in core.pool.workers.values()) <= 1
        core.remove_stopped()
    core.up()
    assert core.ids(WorkerState.IDLE) == ["p-5", "p-6", "p-7", "p-8"]


def test_a_pool_that_cannot_start_workers_keeps_the_old_ones():
    core = Core(min_workers=1, max_workers=1, max_age_s=100, boot_timeout_s=5).up()
    core.handle(ev.ResizeRequested(min_workers=2, max_workers=2))
    for _ in range(OPEN_AFTER):
        core.pass_time(60)
    assert core.pool.breaker.open
    core.pass_time(1000)
    assert "p-1" in core.ids(WorkerState.IDLE)
    assert only(core.submit("j"), ev.Dispatch).worker_id == "p-1"


def test_recycling_one_worker_replaces_it_at_once_or_after_its_job():
    core = Core(min_workers=2, max_workers=2).up()
    core.submit("j")
    busy = core.worker_of("j")
    (idle,) = core.ids(WorkerState.IDLE)
    assert stopped(core.handle(ev.RecycleRequested(worker_id=idle))) == {idle: "operator"}
    assert stopped(core.handle(ev.RecycleRequested(worker_id=busy))) == {}
    assert stopped(core.end("j")) == {busy: "operator"}


def test_recycling_all_replaces_one_worker_after_another_and_the_pool_serves_meanwhile():
    core = Core(min_workers=3, max_workers=3).up()
    core.handle(ev.RecycleRequested())
    for number in range(3):
        assert core.states() == {"idle": 2, "starting": 1, "stopping": 1}
        assert only(core.submit(f"j{number}"), ev.Dispatch)
        core.end(f"j{number}")
        core.ready(f"p-{4 + number}")
        core.remove_stopped()
    assert core.ids() == ["p-4", "p-5", "p-6"]
    assert core.states() == {"idle": 3}


# ---- failed starts ----


def fail(core: Core, *, permanent: bool = False) -> float:
    """Let the start that is under way fail; seconds until the next try."""
    (worker_id,) = core.ids(WorkerState.STARTING)
    commands = core.handle(ev.WorkerFailed(worker_id=worker_id, reason="engine says no", permanent=permanent))
    assert stopped(commands) == {worker_id: "start_failed"}
    assert started(commands) == []
    core.remove_stopped()
    return core.pool.breaker.retry_at - core.now


def test_failed_starts_back_off_and_open_the_breaker():
    core = Core(min_workers=1, max_workers=1)
    core.tick()
    for failures, expected in enumerate([1, 2, 4, 8, 16, 32, 60, 60], start=1):
        wait_s = fail(core)
        assert expected * (1 - JITTER) <= wait_s <= expected
        assert core.pool.breaker.open == (failures >= OPEN_AFTER)
        assert len(started(core.pass_time(wait_s))) == 1
    assert core.pool.breaker.last_reason == "engine says no"


def test_after_a_failure_one_start_tries_and_a_success_lets_the_others_follow():
    core = Core(min_workers=3, max_workers=3, start_concurrency=3)
    core.tick()
    for worker_id in core.ids():
        core.handle(ev.WorkerFailed(worker_id=worker_id, reason="engine says no"))
    core.remove_stopped()
    assert core.pool.breaker.open
    assert len(started(core.pass_time(4))) == 1
    assert len(started(core.ready(core.ids(WorkerState.STARTING)[0]))) == 2
    assert not core.pool.breaker.open
    assert core.pool.breaker.failures == 0


def test_a_permanent_failure_opens_the_breaker_at_once_for_the_longest_wait():
    core = Core(min_workers=1, max_workers=1)
    core.tick()
    assert 60 * (1 - JITTER) <= fail(core, permanent=True) <= 60
    assert core.pool.breaker.open


def test_the_waits_of_pools_that_fail_together_differ_and_follow_from_the_random_source():
    def waits(source):
        core = Core(min_workers=1, max_workers=1, jitter=source)
        core.tick()
        return [(wait_s := fail(core), core.pass_time(wait_s))[0] for _ in range(6)]

    assert waits(Random(1)) == waits(Random(1))
    assert set(waits(Random(1))).isdisjoint(waits(Random(2)))


@pytest.mark.parametrize(
    "event", [ev.WorkerVanished(worker_id="p-1", reason="died"), ev.WorkerRemoved(worker_id="p-1")]
)
def test_a_worker_that_dies_before_it_is_ready_is_a_failed_start(event):
    core = Core(min_workers=1, max_workers=1)
    core.tick()
    core.handle(event)
    assert core.pool.breaker.failures == 1


def test_a_worker_that_is_not_ready_in_time_is_a_failed_start():
    core = Core(min_workers=1, max_workers=1, boot_timeout_s=30)
    core.tick()
    assert stopped(core.pass_time(30)) == {"p-1": "boot_timeout"}
    assert core.pool.breaker.failures == 1
    assert core.pool.breaker.last_reason == "p-1 was not ready within 30 s: its runner has not connected"
    assert core.ready("p-1") == []


def test_the_runner_of_a_start_that_took_too_long_is_said_to_have_connected_if_it_has():
    core = Core(min_workers=1, max_workers=1, boot_timeout_s=30)
    core.tick()
    core.handle(ev.WorkerConnected(worker_id="p-1"))
    core.pass_time(30)
    assert core.pool.breaker.last_reason.endswith("its runner connected and did not become ready")


def test_jobs_are_refused_while_the_breaker_is_open_and_there_is_no_worker():
    core = Core(min_workers=1, max_workers=1)
    core.tick()
    core.submit("waits", queue_timeout_s=30)
    wait_s = fail(core, permanent=True)
    error = refusal(core.submit("j"))
    assert (error.code, error.fields["retry_after_s"]) == ("pool_unavailable", wait_s)
    assert "engine says no" in error.message
    assert only(core.pass_time(31), ev.Finish).job_id == "waits"


def test_jobs_are_accepted_while_the_breaker_is_open_as_long_as_there_is_a_worker():
    core = Core(min_workers=2, max_workers=2, start_concurrency=1)
    core.tick()
    core.ready("p-1")
    fail(core, permanent=True)
    assert only(core.submit("j"), ev.Dispatch)
    assert refusal(core.submit("k")) is None


def test_a_resume_closes_the_breaker_and_tries_at_once():
    core = Core(min_workers=1, max_workers=1)
    core.tick()
    fail(core, permanent=True)
    assert started(core.handle(ev.ResumeRequested())) == ["p-2"]
    assert not core.pool.breaker.open


def test_workers_that_vanish_again_and_again_do_not_make_the_pool_exceed_its_size():
    core = Core(min_workers=2, max_workers=2).up()
    for _ in range(10):
        for worker_id in core.ids(WorkerState.IDLE):
            core.vanish(worker_id, "killed")
        core.all_ready()
    assert len(core.pool.workers) <= 4, "as many being removed as may live, and no more"


# ---- one client's worker is not another's ----


def test_in_client_scope_no_worker_serves_two_clients():
    core = Core(min_workers=2, max_workers=2, reuse_scope="client").up()
    assert core.run("a", "ann") != core.run("b", "bob")
    assert core.run("a2", "ann") == core.worker_of("a")


def test_a_job_that_finds_only_foreign_workers_gets_a_fresh_one_where_there_is_room():
    core = Core(min_workers=1, max_workers=2, reuse_scope="client").up()
    core.run("a", "ann")
    commands = core.submit("b", "bob")
    assert started(commands) == ["p-2"]
    assert stopped(commands) == {}


def test_in_a_full_pool_the_foreign_worker_that_was_idle_the_longest_makes_room():
    core = Core(min_workers=2, max_workers=2, reuse_scope="client").up()
    oldest = core.run("a", "ann")
    core.pass_time(0.1)
    core.run("b", "bob")
    core.submit("c", "cid")
    commands = core.pass_time(CLIENT_PAUSE_S)
    assert stopped(commands) == {oldest: "foreign"}
    assert only(core.ready(started(commands)[0]), ev.Dispatch).job_id == "c"


def test_a_client_that_keeps_every_worker_busy_cannot_keep_another_client_out():
    core = Core(min_workers=2, max_workers=2, reuse_scope="client", max_jobs=100_000).up()
    core.submit("a0", "ann")
    core.submit("a1", "ann")
    core.submit("b", "bob")
    for number in range(2, 100):  # ann always has the next job waiting when one ends
        core.submit(f"a{number}", "ann")
        core.end(f"a{number - 2}")
        core.pass_time(CLIENT_TURN_S / 20)
        core.recover()
        if core.pool.jobs["b"].worker_id is not None:
            break
    assert number < 60


def test_no_worker_is_taken_from_its_client_while_no_start_can_be_tried():
    core = Core(min_workers=1, max_workers=2, reuse_scope="client").up()
    core.run("a", "ann")
    core.submit("b", "bob")
    fail(core, permanent=True)
    core.handle(ev.ResizeRequested(min_workers=1, max_workers=1))
    assert stopped(core.pass_time(40)) == {}
    assert stopped(core.pass_time(30)) == {"p-1": "foreign"}

"""The decisions as pure functions, without a pool."""

from random import Random
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from pool.core import policy
from pool.core.job_transitions import choose_worker
from pool.core.policy import PoolPolicy
from pool.errors import ConfigError
from pool.model import WorkerState


class Worker(NamedTuple):
    name: str
    last_used: float
    client: str | None = None
    edition: int = 1
    state: WorkerState = WorkerState.IDLE


class Job(NamedTuple):
    wall_s: float = 60
    started_at: float | None = 10
    cancelled_at: float | None = None


def chosen(workers, *, reuse_scope, edition=0):
    """The worker for a job of ann, who has seen this edition of the data sets."""
    pool = SimpleNamespace(
        workers=dict(enumerate(workers)),
        policy=PoolPolicy(reuse_scope=reuse_scope),
        editions=SimpleNamespace(seen={"ann": edition}),
    )
    return choose_worker(pool, "ann")


def test_the_most_recently_used_worker_is_chosen():
    idle = [Worker("old", 1), Worker("new", 3), Worker("middle", 2)]
    assert chosen(idle, reuse_scope="any").name == "new"
    assert chosen(idle, reuse_scope="client").name == "new"


def test_a_worker_of_another_client_is_never_chosen_in_client_scope():
    idle = [Worker("bobs", 9, "bob"), Worker("fresh", 1)]
    assert chosen(idle, reuse_scope="client").name == "fresh"
    assert chosen(idle[:1], reuse_scope="client") is None
    assert chosen(idle, reuse_scope="any").name == "bobs"


def test_a_client_gets_a_worker_it_used_already_before_a_fresh_one():
    idle = [Worker("anns", 1, "ann"), Worker("fresh", 9)]
    assert chosen(idle, reuse_scope="client").name == "anns"


@pytest.mark.parametrize("reuse_scope", ["any", "client"])
def test_only_an_idle_worker_is_chosen(reuse_scope):
    workers = [Worker(state, 1, state=state) for state in WorkerState if state is not WorkerState.IDLE]
    assert chosen(workers, reuse_scope=reuse_scope) is None
    assert chosen([*workers, Worker("idle", 0)], reuse_scope=reuse_scope).name == "idle"


@pytest.mark.parametrize("reuse_scope", ["any", "client"])
def test_a_worker_with_older_data_sets_than_asked_for_is_not_chosen(reuse_scope):
    workers = [Worker("new", 1, edition=2), Worker("old", 9, edition=1)]
    assert chosen(workers, reuse_scope=reuse_scope, edition=2).name == "new"
    assert chosen(workers[1:], reuse_scope=reuse_scope, edition=2) is None


@pytest.mark.parametrize(
    ("spare", "min_workers", "expected"), [(None, 1, 1), (None, 2, 1), (None, 8, 4), (None, 0, 0), (0, 8, 0), (3, 0, 3)]
)
def test_the_default_spare_is_half_of_the_minimum_and_0_for_a_pool_that_may_be_empty(spare, min_workers, expected):
    rules = PoolPolicy(spare=spare, min_workers=min_workers, max_workers=100)
    assert policy.target_size(rules, busy=20, waiting=0) == 20 + expected


@pytest.mark.parametrize(
    ("busy", "waiting", "spare", "expected"),
    [(0, 0, 1, 2), (2, 0, 1, 3), (3, 2, 1, 6), (8, 50, 1, 8), (0, 0, 5, 5), (0, 0, 50, 8)],
)
def test_the_target_follows_the_demand_between_min_and_max(busy, waiting, spare, expected):
    rules = PoolPolicy(spare=spare, min_workers=2, max_workers=8)
    assert policy.target_size(rules, busy=busy, waiting=waiting) == expected


@pytest.mark.parametrize(
    ("live", "stopping", "room"), [(0, 0, 4), (4, 0, 0), (3, 4, 1), (2, 5, 1), (0, 8, 0), (5, 0, 0)]
)
def test_containers_being_removed_count_only_above_max_of_them(live, stopping, room):
    assert policy.room_for_starts(live=live, stopping=stopping, max_workers=4) == room


@pytest.mark.parametrize(
    ("target", "supply", "room", "starting", "expected"),
    [(4, 1, 9, 0, 2), (4, 1, 1, 0, 1), (4, 1, 9, 1, 1), (4, 1, 9, 2, 0), (1, 4, 9, 0, 0), (4, 4, 0, 0, 0)],
)
def test_starts_are_bounded_by_need_room_and_concurrency(target, supply, room, starting, expected):
    count = policy.workers_to_start(target=target, supply=supply, room=room, starting=starting, start_concurrency=2)
    assert count == expected


def test_a_worn_worker_goes_when_its_replacement_is_ready_or_the_pool_is_full():
    assert policy.may_retire(ready=2, target=2, starting=0, full=False)
    assert not policy.may_retire(ready=1, target=2, starting=0, full=False)
    assert not policy.may_retire(ready=1, target=2, starting=1, full=True)
    assert policy.may_retire(ready=1, target=2, starting=0, full=True)


@pytest.mark.parametrize("young", [True, False])
@pytest.mark.parametrize("max_jobs", [1, 2, 3, 10, 100])
def test_max_jobs_is_a_hard_upper_bound_and_one_stays_one(max_jobs, young):
    rng = Random(0)
    limits = {policy.jobs_limit(max_jobs, rng, young=young) for _ in range(500)}
    assert min(limits) >= 1
    assert max(limits) <= max_jobs


def test_workers_started_together_are_not_replaced_together():
    rng = Random(0)
    jobs = [policy.jobs_limit(100, rng, young=True) for _ in range(8)]
    ages = [policy.age_limit_s(3600, rng, young=True) for _ in range(8)]
    assert max(jobs) - min(jobs) > 30
    assert max(ages) - min(ages) > 1000
    assert max(ages) <= 3600


def test_later_workers_serve_nearly_their_whole_share():
    rng = Random(0)
    assert min(policy.jobs_limit(100, rng, young=False) for _ in range(100)) >= 90


def test_an_idle_worker_may_be_claimed_after_a_pause_and_a_busy_one_after_a_turn():
    assert policy.claimable_at(bound_at=100, idle_since=100.1) == 100.1 + policy.CLIENT_PAUSE_S
    assert policy.claimable_at(bound_at=100, idle_since=None) == 100 + policy.CLIENT_TURN_S
    assert policy.claimable_at(bound_at=100, idle_since=200) == 100 + policy.CLIENT_TURN_S


def test_the_answer_is_due_at_the_earliest_of_wall_limit_cancel_and_shutdown():
    def due(shutdown_at=None, **facts):
        return policy.answer_deadline(Job(**facts), leased_at=9, kill_grace_s=2, shutdown_at=shutdown_at)

    assert due(started_at=None) == 71
    assert due() == 72
    assert due(cancelled_at=20) == 22
    assert due(cancelled_at=71.5) == 72
    assert due(cancelled_at=20, shutdown_at=21) == 21


def test_a_policy_that_makes_no_sense_is_refused_with_all_problems():
    with pytest.raises(ConfigError) as caught:
        PoolPolicy(min_workers=3, max_workers=2, max_jobs=0, heartbeat_s=0)
    assert len(caught.value.problems) == 3
    assert "min_workers (3)" in str(caught.value)

"""Drain, resume and resize under load: every accepted job runs once, and all have ended after a bounded number of steps."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pool.core.policy import PoolPolicy
from pool.model import Outcome
from tests.property.world import World

ORDERS = st.lists(
    st.tuples(st.sampled_from([World.drain, World.resume, World.resize]), st.integers(0, 100)), max_size=8
)


@settings(max_examples=150, deadline=None)
@given(
    jobs=st.integers(1, 15),
    orders=ORDERS,
    low=st.integers(0, 3),
    more=st.integers(1, 3),
    max_jobs=st.sampled_from([1, 3, 100]),
    scope=st.sampled_from(["client", "any"]),
)
def test_a_pool_that_drains_and_changes_its_size_under_load_loses_nothing_and_is_done_soon(
    jobs, orders, low, more, max_jobs, scope
):
    policy = PoolPolicy(min_workers=low, max_workers=low + more, max_jobs=max_jobs, reuse_scope=scope)
    world = World(policy)
    for number in range(jobs):
        world.submit(number % 27)  # without a queue timeout
        world.answer_all()
    for act, number in orders:
        act(world, number)
        world.answer_all()
    accepted = len(world.accepted)
    world.drain(0)
    rounds = 0
    while world.open_jobs():
        world.answer_all()
        world.wait(2)  # a second: a worker of another client may be taken
        rounds += 1
        # For each job on one worker: its end, the cleaning, the removal and a start; twice, as workers belong to clients.
        assert rounds <= 8 * (jobs + len(orders)) + 10, world.pool.jobs
    assert len(world.finished) == accepted
    assert {end.outcome for end in world.finished.values()} == {Outcome.OK}
    assert {end.attempt for end in world.finished.values()} == {1}

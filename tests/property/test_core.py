"""Any events in any order: the invariants of a pool hold, and every job ends."""

from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from pool.core.policy import PoolPolicy
from tests.property.world import ACTIONS, World

#: 200 runs of 120 random steps each; some steps find nothing to do, the others are an event each.
RANDOM_RUNS = settings(
    max_examples=200, stateful_step_count=120, deadline=None, suppress_health_check=list(HealthCheck)
)
#: Seeds of the long walks, and the events of each.
WALKS, WALK_EVENTS = 4, 2500

POLICIES = st.builds(
    lambda low, more, **rest: PoolPolicy(min_workers=low, max_workers=max(1, low + more), **rest),
    low=st.integers(0, 3),
    more=st.integers(0, 3),
    spare=st.sampled_from([None, 0, 2]),
    miss_rate=st.sampled_from([None, 0.01]),
    max_jobs=st.sampled_from([1, 2, 5, 100]),
    max_age_s=st.sampled_from([20.0, 1000.0]),
    reuse_scope=st.sampled_from(["client", "any"]),
    backlog_max=st.sampled_from([2, 50]),
    backlog_per_client=st.sampled_from([1, 20]),
    boot_timeout_s=st.sampled_from([5.0, 60.0]),
    heartbeat_s=st.sampled_from([1.0, 30.0]),
    start_concurrency=st.integers(1, 3),
    first_starts=st.sampled_from([None, 1]),
    poison_kills=st.integers(0, 3),
    poison_window_s=st.sampled_from([10.0, 1000.0]),
    poison_refuse_s=st.sampled_from([5.0, 1000.0]),
)
NUMBERS = st.integers(0, 10_000)


class AnyOrder(RuleBasedStateMachine):
    """The actions of the world as rules; each checks the invariants after each event."""

    events = 0

    @initialize(policy=POLICIES, seed=st.integers(0, 3))
    def begin(self, policy, seed):
        self.world = World(policy, seed=seed)

    @rule(number=NUMBERS, again=st.booleans())
    def clients(self, number, again):
        (World.submit_again if again and number % 4 == 0 else World.submit)(self.world, number)

    @rule(number=NUMBERS)
    def cancel(self, number):
        self.world.cancel(number)

    @rule(number=NUMBERS, act=st.sampled_from([World.ready, World.remove, World.heartbeat]))
    def engine(self, number, act):
        act(self.world, number)

    @rule(number=NUMBERS, act=st.sampled_from([World.job_starts, World.job_ends, World.freed]))
    def workers(self, number, act):
        act(self.world, number)

    @rule(
        number=NUMBERS,
        act=st.sampled_from(
            [
                World.fail,
                World.withdraw,
                World.restore,
                World.vanish,
                World.freeze,
                World.remove_unasked,
                World.remove_again,
            ]
        ),
    )
    def faults(self, number, act):
        act(self.world, number)

    @rule(number=NUMBERS)
    def illegal(self, number):
        self.world.illegal(number)

    @rule(
        number=NUMBERS,
        act=st.sampled_from([World.drain, World.resume, World.recycle, World.resize, World.offer, World.pardon]),
    )
    def operator(self, number, act):
        act(self.world, number)

    @rule(number=NUMBERS, act=st.sampled_from([World.wait, World.wait_for_deadline]))
    def clock(self, number, act):
        act(self.world, number)

    @precondition(lambda self: self.world.events > 40)
    @rule(number=NUMBERS)
    def shut_down(self, number):
        if number % 10 == 0:
            self.world.shut_down(number)

    def teardown(self):
        type(self).events += self.world.events
        self.world.come_to_rest()


def test_in_any_order_of_events_the_invariants_hold_and_every_job_ends_once():
    AnyOrder.events = 0
    run_state_machine_as_test(AnyOrder, settings=RANDOM_RUNS)
    assert AnyOrder.events >= 10_000


@pytest.mark.parametrize("seed", range(WALKS))
def test_on_a_long_random_walk_the_invariants_hold_and_every_job_ends_once(seed):
    rng = Random(seed)
    policy = PoolPolicy(
        min_workers=rng.randint(0, 3),
        max_workers=rng.randint(3, 6),
        spare=rng.choice([None, 0, 2]),
        miss_rate=rng.choice([None, 0.01]),
        max_jobs=rng.choice([1, 3, 20]),
        max_age_s=rng.choice([20.0, 500.0]),
        reuse_scope="client" if seed % 2 else "any",
        backlog_max=rng.choice([5, 100]),
        boot_timeout_s=20.0,
        heartbeat_s=5.0,
        poison_kills=1 + seed % 2,
    )
    world = World(policy, seed=seed)
    actions, weights = list(ACTIONS), list(ACTIONS.values())
    while world.events < WALK_EVENTS:
        rng.choices(actions, weights)[0](world, rng.randrange(10_000))
    if seed >= WALKS - 2:
        world.shut_down(rng.randrange(10))
    world.come_to_rest()

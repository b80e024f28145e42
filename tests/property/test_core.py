"""Any events in any order: the invariants of a pool hold, and every job ends."""

from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pool.core.policy import PoolPolicy
from tests.property.world import ACTIONS, World

#: Random walks, and the events of each. A walk is no simpler with another seed, so none is looked for.
WALKS, EVENTS = 40, 800
RANDOM_WALKS = settings(
    max_examples=WALKS,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def any_policy(rng: Random) -> PoolPolicy:
    low = rng.randint(0, 3)
    return PoolPolicy(
        min_workers=low,
        max_workers=max(1, low + rng.randint(0, 3)),
        spare=rng.choice([None, 0, 2]),
        miss_rate=rng.choice([None, 0.01]),
        max_jobs=rng.choice([1, 2, 5, 100]),
        max_age_s=rng.choice([20.0, 1000.0]),
        reuse_scope=rng.choice(["client", "any"]),
        backlog_max=rng.choice([2, 50]),
        backlog_per_client=rng.choice([1, 20]),
        boot_timeout_s=rng.choice([5.0, 60.0]),
        heartbeat_s=rng.choice([1.0, 30.0]),
        start_concurrency=rng.randint(1, 3),
        first_starts=rng.choice([None, 1]),
        poison_kills=rng.randint(0, 3),
        poison_window_s=rng.choice([10.0, 1000.0]),
        poison_refuse_s=rng.choice([5.0, 1000.0]),
    )


@RANDOM_WALKS
@given(seed=st.integers(0, 1 << 32))
def test_in_any_order_of_events_the_invariants_hold_and_every_job_ends_once(seed):
    rng = Random(seed)
    world = World(any_policy(rng), seed=seed)
    actions, weights = list(ACTIONS), list(ACTIONS.values())
    while world.events < EVENTS:
        rng.choices(actions, weights)[0](world, rng.randrange(10_000))
    if rng.random() < 0.5:
        world.shut_down(rng.randrange(10))
    world.come_to_rest()

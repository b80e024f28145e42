"""The number of workers that may start at the same time follows how long starts take, by `start_concurrency: auto`."""

import heapq
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.core.policy import PoolPolicy
from pool.core.start_limit import StartLimit
from pool.errors import ConfigError
from pool.model import WorkerState
from tests.support.core import Core


def _refill(limit, *, starts, seconds, begin=0.0):
    """So many starts, always as many at the same time as the limit allows. `seconds(n)` is what one of n takes."""
    now, ready_at, numbers = begin, [], count(int(begin))
    for _ in range(starts):
        while len(ready_at) < limit.limit:
            number = next(numbers)
            limit.began(f"w-{number}", now)
            heapq.heappush(ready_at, (now + seconds(len(ready_at) + 1), number))
        now, number = heapq.heappop(ready_at)
        limit.ready(f"w-{number}", now)
    for _, number in ready_at:
        limit.failed(f"w-{number}", now)
    return now


def test_starts_that_do_not_slow_each_other_down_use_all_that_is_allowed():
    limit = StartLimit(16, first=4)
    _refill(limit, starts=200, seconds=lambda _: 1.0)
    assert limit.limit == 16


def test_starts_that_share_one_core_come_one_after_the_other():
    limit = StartLimit(16, first=4)
    _refill(limit, starts=200, seconds=float)
    assert limit.limit == 1


def test_the_limit_is_where_more_starts_give_hardly_more_workers():
    """Four cores: up to four starts do not disturb each other."""
    limit = StartLimit(16, first=8)
    _refill(limit, starts=400, seconds=lambda together: max(1.0, together / 4))
    assert limit.limit == 4


def test_an_engine_that_gets_slower_lowers_the_limit_and_a_faster_one_raises_it():
    limit = StartLimit(8, first=8)
    now = _refill(limit, starts=100, seconds=lambda _: 1.0)
    assert limit.limit == 8
    now = _refill(limit, starts=400, seconds=float, begin=now + 4000)
    assert limit.limit == 1
    _refill(limit, starts=400, seconds=lambda _: 1.0, begin=now + 4000)
    assert limit.limit == 8


def test_a_number_that_was_set_is_never_changed():
    limit = StartLimit(3)
    _refill(limit, starts=100, seconds=float)
    assert limit.limit == 3


def test_a_single_start_now_and_then_says_nothing_about_many_at_the_same_time():
    limit = StartLimit(8, first=4)
    for number in range(50):
        limit.began(f"w-{number}", number * 10.0)
        assert not limit.ready(f"w-{number}", number * 10.0 + 1)
    assert limit.limit == 4


@given(
    st.integers(1, 64).flatmap(lambda most: st.tuples(st.just(most), st.integers(1, most))),
    st.lists(
        st.tuples(st.sampled_from(["began", "ready", "failed"]), st.integers(0, 9), st.floats(0, 100)), max_size=80
    ),
)
def test_the_limit_stays_between_one_and_the_most_whatever_is_reported(numbers, reports):
    most, first = numbers
    limit, now = StartLimit(most, first=first), 0.0
    for report, worker, later in reports:
        now += later
        getattr(limit, report)(f"w-{worker}", now)
        assert 1 <= limit.limit <= most


def test_a_pool_starts_more_workers_together_when_that_was_worth_it_and_notes_it():
    core = Core(min_workers=40, max_workers=40, start_concurrency=4, first_starts=1)
    core.tick()
    together = []
    while starting := core.ids(WorkerState.STARTING):
        together.append(len(starting))
        core.now += 1.0
        core.ready(starting[0])
    assert together[0] == 1
    assert max(together) > 1
    assert any("start at the same time" in entry.text for entry in core.pool.history("p"))


def test_a_first_number_above_the_most_is_refused():
    with pytest.raises(ConfigError, match="first_starts"):
        PoolPolicy(start_concurrency=2, first_starts=3)

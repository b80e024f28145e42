"""What pools of other sizes would have done: the replay, and the spare for a rate of arrivals."""

from math import exp, factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.core.advice import Arrival, base_stock, enough, rate_of, replay

JOBS = st.lists(st.builds(Arrival, st.floats(0, 1000), st.floats(0, 100)), max_size=40)
SIZES = st.integers(1, 12)


def tail(mean, least):
    """The probability of at least so many arrivals."""
    return 1 - sum(exp(-mean) * mean**k / factorial(k) for k in range(least))


@given(rate=st.floats(0, 20), start_s=st.floats(0, 3), miss=st.floats(0.001, 0.5))
def test_the_spare_is_the_smallest_that_keeps_the_miss_target(rate, start_s, miss):
    spare, mean = base_stock(rate, start_s, miss=miss), rate * start_s
    assert tail(mean, spare) <= miss + 1e-9
    assert spare == 0 or tail(mean, spare - 1) > miss - 1e-9


@given(rate=st.floats(0, 1e6), start_s=st.floats(0, 1e4), miss=st.floats(0.0001, 0.5))
def test_more_arrivals_never_need_fewer_spare_workers(rate, start_s, miss):
    assert base_stock(rate, start_s, miss=miss) <= base_stock(rate * 1.5, start_s, miss=miss)


@pytest.mark.parametrize(("mean", "spare"), [(0.0, 1), (0.005, 1), (0.1, 2), (1.0, 5), (10.0, 19)])
def test_known_spares_for_one_miss_in_a_hundred(mean, spare):
    assert base_stock(mean, 1.0, miss=0.01) == spare


@given(jobs=JOBS, size=SIZES)
def test_no_job_waits_on_as_many_workers_as_jobs(jobs, size):
    found = replay(jobs, max(size, len(jobs)))
    assert (found.hit_rate, found.mean_wait_s, found.p95_wait_s) == (1.0, 0.0, 0.0)


@given(jobs=JOBS, size=SIZES)
def test_a_larger_pool_never_waits_longer(jobs, size):
    one, other = replay(jobs, size), replay(jobs, size + 1)
    assert other.mean_wait_s <= one.mean_wait_s + 1e-9
    assert 0 <= one.hit_rate <= 1


@given(jobs=JOBS, size=SIZES)
def test_the_order_in_which_jobs_are_told_does_not_matter(jobs, size):
    assert replay(jobs, size) == replay(list(reversed(jobs)), size)


def test_a_job_that_finds_all_workers_busy_waits_for_the_first_that_is_free():
    jobs = [Arrival(0.0, 10.0), Arrival(1.0, 4.0), Arrival(2.0, 1.0)]
    assert replay(jobs, 2).mean_wait_s == pytest.approx(1.0)
    assert replay(jobs, 2).hit_rate == pytest.approx(2 / 3)


def test_a_worker_that_is_used_up_is_away_for_a_start():
    jobs = [Arrival(0.0, 1.0), Arrival(2.0, 1.0)]
    assert replay(jobs, 1, start_s=5.0, max_jobs=1).p95_wait_s == pytest.approx(4.0)
    assert replay(jobs, 1, start_s=5.0, max_jobs=2).p95_wait_s == 0.0


def test_the_smallest_size_with_few_enough_misses_is_named_if_there_is_one():
    jobs = [Arrival(0.0, 10.0)] * 4
    assert enough([replay(jobs, size) for size in range(1, 8)], miss=0.01) == 4
    assert enough([replay(jobs, size) for size in range(1, 4)], miss=0.01) is None


def test_a_rate_takes_two_jobs():
    assert rate_of([]) == rate_of([Arrival(1.0, 1.0)]) == rate_of([Arrival(1.0, 1.0)] * 3) == 0.0
    assert rate_of([Arrival(at, 0.0) for at in (0.0, 1.0, 2.0)]) == 1.0

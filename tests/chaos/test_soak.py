"""How a soak distinguishes growth from noise."""

from random import Random

import pytest

from tests.chaos.soak import MOST, Sample, trend, trends

NOISE_KIB = 200
BOUND = MOST["memory_kib"]


def memory(per_thousand, *, noise=NOISE_KIB, seed=1):
    """Forty samples of the second half of 50,000 jobs: jobs in thousands, and KiB."""
    rng = Random(seed)
    jobs = [25 + 25 * number / 40 for number in range(40)]
    return [(each, 45_000 + per_thousand * each + rng.uniform(-noise, noise)) for each in jobs]


@pytest.mark.parametrize("seed", range(5))
def test_growth_is_distinguished_from_noise(seed):
    assert trend(memory(0, seed=seed)).high < BOUND
    assert trend(memory(2 * BOUND, seed=seed)).high > BOUND
    assert trend(memory(2 * BOUND, seed=seed)).low > 0


def test_one_sample_that_is_far_off_is_no_growth():
    points = memory(0)
    points[-1] = (points[-1][0], points[-1][1] + 4_000)
    assert trend(points).high < BOUND


def test_growth_that_noise_may_hide_is_not_ruled_out():
    assert trend(memory(0, noise=3_000)).high > BOUND


def test_the_slope_of_a_line_is_exact():
    assert trend([(1, 5.0), (2, 7.0), (4, 11.0)]) == (2.0, 2.0, 2.0)


def test_only_the_second_half_counts():
    samples = [Sample(1000 * number, min(number, 20) * 500.0, 90, 6, 9_000.0) for number in range(41)]
    assert {name: each.slope for name, each in trends(samples).items()} == dict.fromkeys(MOST, 0.0)

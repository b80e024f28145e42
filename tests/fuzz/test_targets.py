"""Each contract on the seeds, on seeds that were bent, and on plain bytes; `./dev fuzz` does it a million times."""

import functools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import corpus
from tests.fuzz.frames import join, split
from tests.fuzz.target import NAMES, Target, load
from tests.fuzz.watch import BoundError, Watch

EXAMPLES = 150
SEEDS = st.integers(0, (1 << 64) - 1)
seeds = functools.cache(corpus.read)


@pytest.mark.parametrize("name", NAMES)
def test_a_contract_holds_for_every_seed(name):
    watch = Watch(load(name))
    for data in seeds(name):
        watch.run(data)


@pytest.mark.parametrize("name", NAMES)
def test_a_contract_holds_for_seeds_that_were_bent_and_for_any_bytes(name):
    target = load(name)
    watch = Watch(target)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds(name)), st.lists(SEEDS, max_size=4), st.none() | st.binary(max_size=200))
    def holds(data, bends, plain):
        for each in bends:
            data = target.mutate(data, random.Random(each))[: target.max_len]
        watch.run(data if plain is None else plain)

    holds()


@pytest.mark.parametrize("name", NAMES)
def test_the_seeds_are_few_and_small(name):
    assert seeds(name)
    assert sum(map(len, seeds(name))) < 30_000


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_frames_come_out_of_an_input_as_they_went_in(frames):
    assert split(join(frames)) == frames


def target(one, **bounds):
    return Target(
        contract="", one=one, mutate=lambda data, _: data, seeds=tuple, inputs=1,
        **{"base_bytes": 100_000, "per_byte": 0, "cpu_s": 0.001} | bounds,
    )  # fmt: skip


def test_an_input_that_takes_memory_out_of_proportion_is_a_failure():
    watch = Watch(target(lambda data: bytes(len(data) * 1_000_000)))
    with pytest.raises(BoundError, match="memory"):
        watch.run(b"x")


def test_an_input_that_takes_time_out_of_proportion_is_a_failure():
    watch = Watch(target(lambda data: sum(range(len(data) * 200_000))))
    with pytest.raises(BoundError, match="CPU"):
        watch.run(b"x")

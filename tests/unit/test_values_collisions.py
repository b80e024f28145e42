"""Keys and labels that collide in a hash table: too many, which make lookups slow, are refused; honest ones are not."""

import itertools
import sys
from decimal import Decimal
from fractions import Fraction
from time import thread_time

import msgpack
import numpy as np
import pandas as pd
import pytest

from pool.values import collisions, decode
from pool.values.codes import Code
from tests.support.coded import array, big, carried, index, marked, objects, rejected, scalar
from tests.support.same import same

PRIME = sys.hash_info.modulus


def colliding(count, make):
    return [make(3 + PRIME * at) for at in range(count)]


KEYS = {
    "ints": lambda number: number if number < 1 << 63 else big(number),
    "decimals": lambda number: msgpack.ExtType(Code.DECIMAL, str(number).encode()),
    "fractions": lambda number: marked(Code.FRACTION, KEYS["ints"](number), 1),
    "tuples of fractions": lambda number: marked(Code.TUPLE, *[marked(Code.FRACTION, 1, 3)] * 9, KEYS["fractions"](number)),
    "frozen sets": lambda number: marked(Code.FROZENSET, KEYS["ints"](number)),
    "tuples of numpy's numbers": lambda number: marked(Code.TUPLE, scalar("|i1", b"\1"), KEYS["ints"](number)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_more_than_a_few_keys_with_one_hash_are_refused(kind):
    keys = colliding(100, KEYS[kind])
    for value in (
        marked(Code.SET, *keys),
        marked(Code.FROZENSET, *keys),
        marked(Code.DICT, *itertools.chain.from_iterable((key, None) for key in keys)),
        index(objects(*keys)),
        marked(Code.CATEGORICAL, array("|i1", [1], b"\0"), index(objects(*keys)), False),
        marked(Code.MULTI_INDEX, [index(objects(*keys))], [array("|i1", [1], b"\0")], [None]),
    ):
        assert "collide" in rejected(value).message


def test_keys_of_several_types_with_one_hash_are_refused():
    keys = [msgpack.ExtType(Code.DECIMAL, b"3"), *colliding(6, KEYS["ints"])[1:]]
    assert "collide" in rejected(marked(Code.SET, *keys)).message


def test_the_other_limits_of_the_checks_do_not_hide_that_of_a_few():
    assert len(decode([msgpack.packb(marked(Code.SET, *colliding(collisions.MAX_ALIKE, KEYS["ints"])))])) == 36
    assert len(decode([msgpack.packb(marked(Code.SET, *colliding(collisions.MAX_ALIKE_DEAR, KEYS["decimals"])))])) == 4


def steps_in_a_dict(bits):
    """Ints with pairwise different hashes: half fill a run of slots of a dict of 2 ** bits, half end up at its beginning."""
    mask, slot, run = (1 << bits) - 1, 1, []
    for _ in range((2 << bits) // 6):
        run.append(slot)
        slot = (5 * slot + 1) & mask
    taken, late, number = set(run), [], 1 << bits
    while len(late) < len(run) - 20:
        number += 1
        at, perturb = number & mask, number
        while at in taken and perturb:
            perturb >>= 5
            at = (5 * at + perturb + 1) & mask
        if not perturb and at in taken:
            late.append(number)
    return run + late


def test_keys_with_different_hashes_whose_ways_through_a_table_end_alike_are_refused():
    keys = steps_in_a_dict(13)
    assert len(set(map(hash, keys))) == len(keys)
    value = marked(Code.DICT, *itertools.chain.from_iterable((key, None) for key in keys))
    assert "made a table" in rejected(value).message or "slow" in rejected(value).message
    assert "slow" in rejected(index(objects("a", *keys))).message


def colliding_ints(count):
    """int64 of which all have the hash 0 in pandas."""
    high = np.arange(1, count + 1, dtype=np.uint64)
    low = (high ^ (high << np.uint64(11)) ^ (high << np.uint64(22))) & np.uint64(0xFFFFFFFF)
    return ((high << np.uint64(33)) | low).view(np.int64)[::-1].copy()


def colliding_floats(count):
    factor, every = 0x5BD1E995, (1 << 32) - 1
    inverse, begun, found = pow(factor, -1, 1 << 32), (0xC70F6907 ^ 4) * factor & every, []
    for low in range(1, 3 * count):
        mixed = low * factor & every
        mixed = (mixed ^ mixed >> 24) * factor & every
        wanted = ((begun ^ mixed) * factor & every) * inverse & every
        high = (wanted ^ wanted >> 24) * inverse & every
        if high >> 20 & 0x7FF != 0x7FF:
            found.append(high << 32 | low)
    return np.array(found[:count], np.uint64).view(np.float64)


@pytest.mark.parametrize("make", [colliding_ints, colliding_floats])
def test_labels_that_collide_in_the_tables_of_pandas_are_refused_and_are_slow_elsewhere(make):
    labels = make(20_000)

    def cpu(values):
        began = thread_time()
        pd.Index(values).get_indexer([values[5]])
        return thread_time() - began

    assert cpu(labels) > 10 * min(
        cpu(np.random.default_rng(at).permutation(labels * 0 + np.arange(20_000))) for at in range(3)
    )
    payload = array(labels.dtype.str, [len(labels)], labels.tobytes())
    assert "collide" in rejected(index(payload)).message
    assert "collide" in rejected(marked(Code.CATEGORICAL, array("|i1", [1], b"\0"), index(payload), False)).message
    assert carried(pd.Series(labels)).shape == (20_000,)


def test_honest_labels_do_not_collide_in_the_tables_of_pandas():
    for honest in (
        pd.date_range("2000-01-01", periods=5000, freq="h")[::-1], pd.Index(np.arange(5000.0) / 7), pd.Index([7] * 5000),
        pd.Index(np.arange(5000) << 40), pd.Index(np.arange(5000) << 32), pd.Index(np.zeros(5000)), pd.Index(range(5000)),
        pd.array(range(5000), dtype="Int64"), pd.period_range("1900-01-01", periods=5000, freq="D"),
        pd.date_range("2000-01-01", periods=5000, freq="min", tz="Europe/Berlin"),
    ):  # fmt: skip
        assert same(carried(pd.Index(honest)), pd.Index(honest))


HONEST_KEYS = {
    "points around 0": list(itertools.product(range(-2, 3), repeat=5)),
    "powers of two": [2**power for power in range(2000)],
    "powers of two as floats": [2.0**power for power in range(-1074, 1024)],
    "midnights in nanoseconds": [day * 86_400 * 10**9 for day in range(30_000)],
    "thousandths": [number / 1024 for number in range(30_000)],
    "multiples of 2**40": [number << 40 for number in range(30_000)],
    "negative numbers": [-number for number in range(30_000)],
    "text and bytes": [str(number) for number in range(30_000)] + [b"%d" % number for number in range(30_000)],
    "decimals": [Decimal(number) / 100 for number in range(30_000)],
    "fractions": [Fraction(number, 7) for number in range(3_000)],
    "moments": list(pd.date_range("2000-01-01", periods=3_000, freq="h")),
    "not numbers": [float("nan") for _ in range(3_000)],
    "numbers of numpy": list(np.arange(3_000)),
}


@pytest.mark.parametrize("kind", HONEST_KEYS)
def test_honest_keys_do_not_collide(kind):
    keys = HONEST_KEYS[kind]
    assert len(carried(set(keys))) == len(keys)
    assert len(carried(dict.fromkeys(keys))) == len(keys)
    assert len(carried(pd.Index(keys, dtype=object))) == len(keys)


def test_labels_may_repeat():
    labels = pd.Index([None, (1, 2), pd.Timestamp("2020-01-01"), 1] * 100, dtype=object, tupleize_cols=False)
    assert same(carried(labels), labels)


def test_such_keys_are_slow_without_the_check():
    keys = steps_in_a_dict(15)

    def cpu(items):
        began = thread_time()
        dict.fromkeys(items)
        return thread_time() - began

    assert min(cpu(keys) for _ in range(2)) > 20 * min(cpu(list(range(len(keys)))) for _ in range(5))


@pytest.mark.parametrize("count", [3, 300, 5000])
def test_the_slots_that_are_counted_are_those_of_a_set_of_this_python(count):
    items = {(number * number * 7919) << 7 for number in range(count)}
    mask = (1 << (2 * len(items)).bit_length()) - 1  # of the table of a copy, which is filled in the order of the first
    taken, at = bytearray(mask + 1), {}
    for item in items:
        slot, _ = collisions.set_slot(taken, hash(item), mask, 1 << 40)
        taken[slot], at[slot] = 1, item
    assert list(set(items)) == [at[slot] for slot in sorted(at)]

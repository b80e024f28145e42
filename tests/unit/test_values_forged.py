"""Forged values that would crash, stall or misuse native code: each is refused, and the honest
value beside it is not.
"""

import itertools
import os
import pickle
from decimal import Decimal

import msgpack
import numpy as np
import pandas as pd
import pytest

from pool.values import decode
from pool.values.codes import (
    FREE_CHARGE,
    MAX_DECIMAL_DIGITS,
    MAX_EMPTY_ITEM_BYTES,
    MAX_INT_BYTES,
    OBJECT_CHARGE,
    Code,
)  # fmt: skip
from tests.support.coded import MIB, array, big, carried, index, marked, objects, refused, rejected, scalar
from tests.support.same import same


def rows(count, start=0):
    return marked(Code.RANGE_INDEX, start, start + count, 1, None)


def numbers(*items):
    return index(array("|i1", [len(items)], bytes(items)))


# ---- numpy ----


@pytest.mark.parametrize("unit", ["<M8[0s]", "<m8[0s]", "<M8[-1s]", "<M8[01s]", "<M8[1s]", "<M8[1000000000s]", "<M8[ss]", "<M8[]", "=M8[s]", "f8", "<f8 ", "<S01", "<S1000000000", "T", "|S5,i4"])  # fmt: skip
def test_a_dtype_has_a_name_from_the_list(unit):
    rejected(scalar(unit))


def test_units_of_time_have_every_multiplier_that_numpy_prints():
    for count, unit, kind in itertools.product((1, 2, 25, 999_999_999), ("Y", "W", "s", "as"), "mM"):
        made = np.array([7], "i8").view(f"{kind}8[{count}{unit}]")
        assert same(carried(made), made)
        assert same(carried(made[0]), made[0])


def test_a_moment_without_a_unit_can_only_be_missing():
    rejected(scalar("<M8"))
    assert np.isnat(decode([msgpack.packb(scalar("<M8", bytes(7) + b"\x80"))]))
    assert "without a unit" in refused(np.zeros(1, "i8").view("M8")).message


FIELDS = {
    "offsets that coincide": [1, ["a", "|b1", 0, None], ["b", "|b1", 0, None]],
    "offsets that overlap in part": [12, ["a", "<f8", 0, None], ["b", "<f8", 4, None]],
    "a field of no bytes": [1, ["a", "|S0", 0, None]],
    "a field of no bytes within another": [8, ["a", "<f8", 0, None], ["b", "|V0", 4, None]],
    "a field over the end": [8, ["a", "<f8", 1, None]],
    "a field before the beginning": [8, ["a", "<f8", -1, None]],
    "a sub-array over the end": [8, ["a", ["()", "<f8", [2]], 0, None]],
    "a sub-array of no items": [8, ["a", ["()", "<f8", [0]], 0, None]],
    "a sub-array of negative length": [8, ["a", ["()", "<f8", [-1]], 0, None]],
    "an item of negative size": [-8, ["a", "<f8", 0, None]],
    "a name twice": [2, ["a", "|b1", 0, None], ["a", "|b1", 1, None]],
}


@pytest.mark.parametrize("kind", FIELDS)
def test_fields_of_a_record_have_bytes_of_their_own(kind):
    dtype = FIELDS[kind]
    rejected(array(dtype, [1], bytes(max(dtype[0], 0))))
    rejected(array([100, ["outer", dtype, 0, None]], [1], bytes(100)))


def test_honest_fields_that_share_bytes_are_refused_with_advice():
    shared = np.zeros(1, np.dtype({"names": ["a", "b"], "formats": ["f8", "i4"], "offsets": [0, 4], "itemsize": 8}))
    assert "repack_fields" in refused(shared).message
    assert "of their own" in refused(np.zeros(1, [("a", "S0"), ("b", "i4")])).message


def test_fields_in_any_order_and_with_gaps_are_carried():
    mixed = np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["f8", "i4"], "offsets": [8, 1], "itemsize": 20}))
    assert same(carried(mixed), mixed)


def test_an_item_is_no_larger_than_the_frames_hold():
    for dtype in (
        "|V999999999",
        "<U99999999",
        [999_999_999],
        ["()", "<f8", [1 << 20]],
        [9, ["a", ["()", "|V99999", [99]], 0, None]],
    ):
        rejected(array(dtype, [0], b""))
    assert carried(np.zeros(0, f"S{MAX_EMPTY_ITEM_BYTES}")).dtype.itemsize == MAX_EMPTY_ITEM_BYTES
    assert "no items" in refused(np.zeros(0, f"S{MAX_EMPTY_ITEM_BYTES + 1}")).message
    assert carried(np.zeros(1, f"S{MAX_EMPTY_ITEM_BYTES + 1}")).dtype.itemsize == MAX_EMPTY_ITEM_BYTES + 1


def test_an_array_of_no_bytes_is_charged_for_its_other_dimensions():
    for shape in ([1 << 40, 0], [0, 1 << 40], [1 << 11, 1 << 11, 0]):
        rejected(array("<f8", shape, b""))
        rejected(marked(Code.OBJECTS, shape, []))
        rejected(marked(Code.TEXTS, shape, [], True, []))
    for dtype in ("|V0", "|S0", "<U0", [0]):
        rejected(array(dtype, [400_000], b""))
    rejected(array("<f8", [400_000, 0], b""))
    rejected(marked(Code.OBJECTS, [400_000, 0], []))
    rejected([array("<f8", [1 << 16, 0], b"")] * 6)
    assert carried(np.zeros((1 << 16, 0))).shape == (1 << 16, 0)
    assert "too many" in refused(np.zeros((1 << 22, 0))).message


def test_a_sub_array_has_a_record_around_it():
    rejected(array(["()", "<f8", [2]], [1], bytes(16)))
    rejected(marked(Code.SCALAR, ["()", "<f8", [2]], bytes(16)))


@pytest.mark.skipif(np.finfo(np.longdouble).nmant != 63, reason="long doubles of other machines have no such bits")
def test_a_long_double_is_a_number():
    for ten in (bytes(8) + b"\xff\x3f", b"\1" + bytes(7) + b"\xff\x7f", b"\xff" * 7 + b"\x7f\xfe\x7f"):
        little, order = ten + bytes(6), ("<", ">")
        for sign, payload in zip(order, (little, little[::-1]), strict=True):
            rejected(scalar(f"{sign}f16", payload))
            rejected(scalar(f"{sign}c32", payload + bytes(16)))
            rejected(array([16, ["a", f"{sign}f16", 0, None]], [1], payload))
    for number in (
        np.nextafter(np.longdouble(0), 1),
        np.longdouble("inf"),
        np.longdouble("nan"),
        np.longdouble(0),
        np.longdouble(1) / 3,
    ):
        assert same(carried(number), number)


def test_a_number_does_not_stand_for_missing_text():
    rejected(marked(Code.TEXTS, [1], ["a"], True, [1.5]))
    rejected(marked(Code.TEXTS, [1], ["a"], True, [None, None]))


# ---- numbers ----


def test_ints_and_decimals_are_of_a_length_that_arithmetic_can_bear():
    rejected(msgpack.ExtType(Code.BIG_INT, b"\x7f" * (MAX_INT_BYTES + 1)))
    for text in (b"1e6145", b"1e-6145", b"-1e999999", b"9" * (MAX_DECIMAL_DIGITS + 100), b"1e99999999999999999999"):
        rejected(msgpack.ExtType(Code.DECIMAL, text))
    largest = (1 << (8 * MAX_INT_BYTES - 1)) - 1
    for honest in (
        largest,
        -largest,
        Decimal("1e6144"),
        Decimal("-1e-6144"),
        Decimal("9" * MAX_DECIMAL_DIGITS),
        Decimal("NaN123"),
        Decimal("-Infinity"),
    ):
        assert same(carried(honest), honest)
    assert "int" in refused(largest + 1).message
    for decimal in (Decimal("1e6145"), Decimal("1e-6145"), Decimal("9" * (MAX_DECIMAL_DIGITS + 100))):
        assert "digits" in refused(decimal).message


def test_a_decimal_that_raises_when_it_is_compared_is_refused():
    for text in ("sNaN", "-sNaN", "sNaN123"):
        rejected(msgpack.ExtType(Code.DECIMAL, text.encode()))
        rejected(marked(Code.SERIES, objects(msgpack.ExtType(Code.DECIMAL, text.encode())), rows(1), None))
        assert "signaling" in refused([Decimal(text)]).message
    assert repr(carried(pd.Series([Decimal("NaN")]))).startswith("0    NaN")


def test_a_long_range_is_refused_since_comparing_it_with_an_array_makes_a_list_of_it():
    rejected(marked(Code.RANGE, 0, 1 << 40, 1))
    rejected(rows(1 << 40))
    rejected(marked(Code.RANGE_INDEX, 0, big(1 << 70), 1, None))
    for long in (
        range(1 << 40),
        range(0, -(1 << 80), -1),
        pd.RangeIndex(1 << 40),
        pd.DataFrame(index=pd.RangeIndex(1 << 40)),
    ):
        assert "start, stop and step" in refused(long).message
    for honest in (range(1_000_000), range(5, -100_000, -7), pd.RangeIndex(1_000_000), range(1 << 80, (1 << 80) + 4)):
        assert same(carried(honest), honest)


def test_a_long_range_of_rows_is_carried_where_columns_have_as_many_items():
    for honest in (
        pd.Series(np.ones(5_000_000, bool)),
        pd.DataFrame({"a": np.ones(3_000_000, bool)}),
        pd.DataFrame({"a": np.ones(3_000_000, bool), "b": np.ones(3_000_000, "i1")}),
        pd.DataFrame(np.ones((1, 1_500_000), "i1")),
        [pd.Series(np.ones(800_000, bool))] * 4,
    ):
        assert same(carried(honest), honest)
    rejected(marked(Code.FRAME, [], rows(3_000_000), rows(0)))
    rejected([rows(600_000)] * 2)
    rejected(marked(Code.SERIES, array("|b1", [1], b"\0"), rows(1 << 40), None))
    assert "start, stop and step" in refused([pd.Series(np.ones(2_000_000, bool)), pd.RangeIndex(2_000_000)]).message


def test_few_bytes_do_not_make_the_process_grow_when_they_are_used():
    """An input of the fuzzer: pandas makes an array of a range that it compares with anything."""
    rejected([rows(2), marked(Code.RANGE_INDEX, 2, -16_777_018, -1, "r"), rows(3)])


def test_columns_without_rows_are_charged_as_columns():
    rejected(marked(Code.MATRIX_FRAME, array("<f8", [0, 20_000], b""), rows(0), rows(20_000)))
    assert carried(pd.DataFrame(np.ones((0, 9_000)))).shape == (0, 9_000)
    assert "too many" in refused(pd.DataFrame(np.ones((0, 20_000)))).message


# ---- times ----


@pytest.mark.parametrize("zone", ["Europe/Berlin", "dateutil//etc/passwd", "tzlocal()", "+01:00", 7, b"UTC"])
def test_a_zone_is_a_zone_and_no_text_that_pandas_would_open_a_file_for(zone, monkeypatch):
    monkeypatch.setattr(os, "open", None)
    times = array("<M8[ns]", [1], bytes(8))
    for value in (
        marked(Code.STAMP, 0, "ns", zone, 0),
        marked(Code.ZONED, times, zone),
        marked(Code.DATETIME, zone, [2020, 1, 1, 0, 0, 0, 0, 0]),
        marked(Code.TIME, zone, [0, 0, 0, 0, 0]),
    ):
        assert "zone" in rejected(value).message


OUTSIDE = {
    "a moment": marked(Code.STAMP, 1 << 40, "s", None, 0),
    "a fold": marked(Code.STAMP, 0, "s", None, 2),
    "a span of time": marked(Code.STAMP_DELTA, 1 << 62, "D"),
    "a zoned moment": marked(Code.STAMP, (1 << 63) - 1, "ns", marked(Code.NAMED_ZONE, "Europe/Berlin"), 0),
    "a day": marked(Code.PERIOD, 1 << 40, "D"),
    "a month": marked(Code.PERIOD, -(1 << 40), "M"),
    "a period of no length": marked(Code.PERIOD, 0, "0D"),
    "a period of negative length": marked(Code.PERIOD, 0, "-1D"),
    "a period of an unknown length": marked(Code.PERIOD, 0, "C"),
    "days": marked(Code.PERIODS, array("<i8", [1], b"\xff" * 7 + b"\x7f"), "D"),
    "periods of another width": marked(Code.PERIODS, array("<i4", [1], bytes(4)), "D"),
    "zoned times": marked(Code.ZONED, array("<M8[s]", [1], b"\xff" * 7 + b"\x7f"), marked(Code.NAMED_ZONE, "UTC")),
    "zoned times in days": marked(Code.ZONED, array("<M8[D]", [1], bytes(8)), marked(Code.NAMED_ZONE, "UTC")),
    "a column of times in 25 seconds": index(array("<M8[25s]", [1], bytes(8))),
    "a column of times in another order": index(array(">M8[s]", [1], bytes(8))),
    "a frame of times in hours": marked(Code.MATRIX_FRAME, array("<M8[h]", [1, 1], bytes(8)), rows(1), rows(1)),
    "a calendar as a frequency": marked(Code.INDEX, array("<M8[ns]", [1], bytes(8)), None, "999999999RE-N-DEC-MON"),
    "a frequency of numbers": marked(Code.INDEX, array("<i8", [1], bytes(8)), None, "D"),
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_what_pandas_cannot_print_is_refused(kind):
    rejected(OUTSIDE[kind])


def test_what_pandas_could_not_print_is_refused_by_encode_as_well():
    far = np.array([1 << 40], "M8[s]")
    for value in (
        pd.Timestamp(far[0]),
        pd.DatetimeIndex(far).tz_localize("UTC"),
        pd.Period(ordinal=1 << 40, freq="M"),
        pd.PeriodIndex.from_ordinals([1 << 40], freq="D"),
    ):
        assert "year 9999" in refused(value).message


def test_the_first_and_the_last_moments_are_carried():
    for honest in (
        pd.Timestamp("0001-01-02"), pd.Timestamp("9999-12-30 23:59:59"), pd.Period("0001-01", "M"), pd.Period("9999-12-31", "D"),
        pd.Period("9999Q4", "Q-DEC"), pd.Period("2020-01-01", "W-SUN"), pd.Period("2020-01-01", "3h"),
    ):  # fmt: skip
        assert same(carried(honest), honest)


# ---- pandas ----


MISSHAPEN = {
    "intervals between ranges": marked(Code.INTERVALS, rows(2), rows(2, 1), "left"),
    "codes beyond the categories": marked(Code.CATEGORICAL, array("|i1", [1], b"\5"), rows(2), False),
    "codes below -1": marked(Code.CATEGORICAL, array("|i1", [1], b"\xfe"), rows(2), False),
    "categories twice": marked(Code.CATEGORICAL, array("|i1", [1], b"\0"), index(array("<i8", [2], bytes(16))), False),
    "categories without a hash": marked(Code.CATEGORICAL, array("|i1", [0], b""), index(objects([])), False),
    "categories of categories": marked(
        Code.CATEGORICAL, array("|i1", [1], b"\0"),
        index(marked(Code.CATEGORICAL, array("|i1", [1], b"\0"), rows(1), False)), False),
    "codes of another order": marked(Code.CATEGORICAL, array(">i2", [1], b"\0\0"), rows(2), False),
    "a mask of numbers": marked(Code.MASKED, array("<i8", [1], bytes(8)), array("|i1", [1], b"\0")),
    "a mask of another length": marked(Code.MASKED, array("<i8", [1], bytes(8)), array("|b1", [2], b"\0\0")),
    "nullable numbers of another order": marked(Code.MASKED, array(">i8", [1], bytes(8)), array("|b1", [1], b"\0")),
    "nullable halves": marked(Code.MASKED, array("<f2", [1], bytes(2)), array("|b1", [1], b"\0")),
    "intervals of objects": marked(Code.INTERVALS, index(objects(1)), index(objects(2)), "left"),
    "intervals that end before they begin": marked(Code.INTERVALS, numbers(5), numbers(4), "left"),
    "intervals of other lengths": marked(Code.INTERVALS, numbers(1), numbers(1, 2), "left"),
    "a level of levels": marked(
        Code.MULTI_INDEX, [marked(Code.MULTI_INDEX, [rows(1)], [array("|i1", [1], b"\0")], [None])],
        [array("|i1", [1], b"\0")], [None]),
    "codes of other lengths": marked(
        Code.MULTI_INDEX, [rows(1)] * 2, [array("|i1", [1], b"\0"), array("|i1", [2], b"\0\0")], [None, None]),
    "codes beyond a level": marked(Code.MULTI_INDEX, [rows(1)], [array("|i1", [1], b"\1")], [None]),
    "no levels": marked(Code.MULTI_INDEX, [], [], []),
    "a name without a hash": marked(Code.SERIES, array("|i1", [1], b"\0"), rows(1), []),
    "columns of other lengths": marked(Code.FRAME, [array("|i1", [2], b"\0\0")], rows(1), rows(1)),
    "more columns than labels": marked(Code.FRAME, [array("|i1", [1], b"\0")] * 2, rows(1), rows(1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISSHAPEN)
def test_parts_of_a_pandas_object_fit_each_other(kind):
    rejected(MISSHAPEN[kind])


SMALL = {
    "series": marked(Code.SERIES, array("<f8", [0], b""), rows(0), None),
    "frames": marked(Code.FRAME, [], rows(0), rows(0)),
    "indexes": index(objects()),
    "categoricals": marked(Code.CATEGORICAL, array("|i1", [0], b""), rows(0), False),
    "texts": marked(Code.STRINGS, [], "python", True),
}


@pytest.mark.parametrize("kind", SMALL)
def test_many_small_dear_objects_are_refused(kind):
    assert "too many small pandas objects" in rejected([SMALL[kind]] * 12_000).message


def test_ten_thousand_small_pandas_objects_are_carried_and_more_beside_more_bytes():
    free = FREE_CHARGE // OBJECT_CHARGE
    small = pd.Index([1])
    assert len(carried([small] * free)) == free
    error = refused([small] * (free + 600))
    assert "pd.concat" in error.message
    assert len(carried([[small] * (free + 600), bytes(2 * MIB)])) == 2


def test_intervals_between_the_numbers_of_a_range_can_be_sliced():
    made = carried(pd.arrays.IntervalArray.from_arrays(pd.RangeIndex(3), pd.RangeIndex(1, 4), closed="left"))
    assert list(made[:2]) == [pd.Interval(0, 1, "left"), pd.Interval(1, 2, "left")]


def test_an_array_has_as_many_dimensions_as_numpy_can_pickle():
    rejected(array("|i1", [1] * 33, b"\1"))
    assert "reshape" in refused(np.ones((1,) * 33)).message
    assert same(pickle.loads(pickle.dumps(carried(np.ones((1,) * 32)))), np.ones((1,) * 32))

"""Every value that `pool.values` promises to carry comes out equal and of the same type."""

import datetime as dt
import math
import zoneinfo
from pathlib import PurePosixPath, PureWindowsPath

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool.errors import ValueCodecError
from pool.values import decode, encode
from tests.support.same import same

MAX = 1 << 26
KEYS = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu")

# Hypothesis warns when it would describe a large strategy in a report.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")

quick = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
thorough = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def round_trip(value):
    return decode(encode(value, max_bytes=MAX), max_bytes=MAX)


# ---- strategies ----

zones = (
    st.none()
    | st.sampled_from([dt.UTC, *map(zoneinfo.ZoneInfo, KEYS)])
    | st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)))
)
stamps = st.builds(
    lambda count, unit, key: pd.Timestamp(np.datetime64(count, unit)).tz_localize("UTC").tz_convert(key),
    st.integers(-(10**9), 10**9),
    st.sampled_from(["s", "ms", "us", "ns"]),
    st.sampled_from([None, *KEYS]),
)
deltas = st.builds(
    lambda count, unit: pd.Timedelta(np.timedelta64(count, unit)),
    st.integers(-(10**9), 10**9),
    st.sampled_from(["s", "ms", "us", "ns"]),
)
numpy_scalars = st.one_of(
    (hnp.scalar_dtypes() | hnp.byte_string_dtypes() | hnp.unicode_string_dtypes()).flatmap(
        lambda dtype: hnp.arrays(dtype, (1,)).map(lambda array: array[0])
    ),
    st.text().map(np.str_),
    st.binary().map(np.bytes_),
)
text = st.text(st.characters(codec=None, exclude_categories=()))
hashable_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(1 << 600), 1 << 600), st.floats(), st.complex_numbers(),
    text, st.binary(), st.datetimes(timezones=zones), st.dates(), st.times(timezones=zones), st.timedeltas(),
    st.decimals(allow_nan=True).filter(lambda number: not number.is_snan()), st.fractions(), st.uuids(),
    st.builds(range, st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(1)), text.map(PurePosixPath), text.map(PureWindowsPath),
    stamps, deltas, st.just(pd.NaT), st.just(pd.NA), numpy_scalars,
    st.builds(pd.Period, st.dates(dt.date(1900, 1, 1)), st.sampled_from("DMYW")),
    st.builds(lambda left, side: pd.Interval(left, left + 1, side), st.integers(-99, 99), st.sampled_from(["left", "both"])),
)  # fmt: skip
hashables = st.recursive(hashable_leaves, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3))
plain_dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.datetime64_dtypes(), hnp.timedelta64_dtypes(),
    hnp.byte_string_dtypes(), hnp.unicode_string_dtypes(),
    st.sampled_from(["f2", "g", "G", ">f8", ">U3", "V7", "V0", ">M8[25us]", "m8"]).map(np.dtype),
)  # fmt: skip
dtypes = st.one_of(
    plain_dtypes,
    hnp.array_dtypes(
        plain_dtypes.filter(lambda dtype: dtype.itemsize > 0 and dtype.kind != "V" and dtype != "m8"),
        max_size=3,
        allow_subarrays=True,
    ),
)


@st.composite
def arrays(draw):
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if dtype.kind == "V" and dtype.names is None and dtype.subdtype is None:
        size = dtype.itemsize * math.prod(shape)
        array = np.ndarray(shape, dtype, bytearray(draw(st.binary(min_size=size, max_size=size))))
    else:
        array = draw(hnp.arrays(dtype, shape))
    if draw(st.integers(0, 9)) == 0:
        missing = draw(st.sampled_from([{}, {"na_object": None}, {"na_object": math.nan}, {"na_object": pd.NA}]))
        items = draw(st.lists(st.text() | st.sampled_from(list(missing.values()) or [""]), max_size=9))
        return np.array(items, np.dtypes.StringDType(**missing))
    bent = draw(st.sampled_from(["C", "F", "reversed", "broadcast", "frozen"]))
    if bent == "F":
        return np.asfortranarray(array)
    if bent == "reversed" and array.ndim:
        return array[::-1]
    if bent == "broadcast":
        return np.broadcast_to(array, (2, *array.shape))
    array.flags.writeable = bent != "frozen"
    return array


@st.composite
def columns(draw, size, *, kinds=range(10)):  # noqa: PLR0911 - one return for each kind
    def listed(element):
        return draw(st.lists(element, min_size=size, max_size=size))

    kind = draw(st.sampled_from(kinds))
    if kind == 0:
        dtype = draw(st.sampled_from(["f8", "f4", "i8", "u1", "?", "c16", "M8[s]", "M8[ns]", "m8[us]", "f2"]))
        return draw(hnp.arrays(dtype, size))
    if kind == 1:
        unit, key = draw(st.sampled_from(["s", "us", "ns"])), draw(st.sampled_from(KEYS))
        return (
            pd.DatetimeIndex(np.array(listed(st.integers(0, 10**9)), f"M8[{unit}]"))
            .tz_localize("UTC")
            .tz_convert(key)
            .array
        )
    if kind == 2:
        categories = draw(st.lists(st.text(), unique=True, min_size=1, max_size=4))
        return pd.Categorical(
            listed(st.sampled_from([*categories, None])), categories=categories, ordered=draw(st.booleans())
        )
    if kind == 3:
        return pd.array(listed(st.text() | st.none()), dtype=draw(st.sampled_from(["str", "string"])))
    if kind in {4, 5, 6}:
        element, dtype = {
            4: (st.integers(0, 100), draw(st.sampled_from(["Int8", "UInt64", "Int64"]))),
            5: (st.floats(width=32, allow_nan=False), draw(st.sampled_from(["Float32", "Float64"]))),
            6: (st.booleans(), "boolean"),
        }[kind]
        return pd.array(listed(element | st.none()), dtype=dtype)
    if kind == 7:
        return pd.PeriodIndex.from_ordinals(
            listed(st.integers(0, 1000)), freq=draw(st.sampled_from(["D", "M", "Y-DEC"]))
        ).array
    if kind == 8:
        lows = listed(st.integers(-9, 9))
        return pd.arrays.IntervalArray.from_arrays(lows, [low + 1 for low in lows], closed="left")
    items = listed(hashable_leaves)
    return np.fromiter(items, dtype=object, count=size)


@st.composite
def indexes(draw, size):
    name = draw(hashables)
    kind = draw(st.integers(0, 4))
    if kind == 0:
        start, step = draw(st.integers(-99, 99)), draw(st.sampled_from([1, 2, -3]))
        return pd.RangeIndex(start, start + size * step, step, name=name)
    if kind == 1:
        freq = draw(st.sampled_from(["D", "B", "ME", "h", "3min", "W-TUE", "YS-MAR"]))
        key = draw(st.sampled_from([None, *KEYS]))
        return pd.date_range("2020-01-01", periods=size, freq=freq, tz=key, name=name)
    if kind == 2:
        levels = [draw(columns(size, kinds=range(1, 9))) for _ in range(2)]
        return pd.MultiIndex.from_arrays(levels, names=[name, draw(hashables)])
    values = draw(columns(size).filter(lambda values: values.dtype != "f2"))
    return pd.Index(values, name=name, dtype=values.dtype, tupleize_cols=False)


@st.composite
def series(draw):
    size = draw(st.integers(0, 5))
    values = draw(columns(size))
    return pd.Series(values, index=draw(indexes(size)), name=draw(hashables), dtype=values.dtype)


@st.composite
def frames(draw):
    size, width = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    made = {
        at: pd.Series(values, dtype=values.dtype) for at in range(width) if (values := draw(columns(size))) is not None
    }
    # Set afterwards: pandas 2.2 does not align columns by an index whose name is NA.
    frame = pd.DataFrame(made, index=range(size))
    frame.index, frame.columns = draw(indexes(size)), draw(indexes(width))
    return frame


leaves = st.one_of(hashables, st.binary().map(bytearray), arrays())
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashables, inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4),
        st.sets(hashables, max_size=4),
        st.lists(inner, max_size=3).map(lambda items: np.fromiter(items, dtype=object, count=len(items))),
        st.builds(slice, st.none() | st.integers(), inner, inner),
    ),
    max_leaves=12,
)


# ---- what goes in comes out ----


@thorough
@given(values)
def test_a_nested_value_comes_out_equal_and_of_the_same_type(value):
    assert same(round_trip(value), value)


@thorough
@given(arrays())
def test_an_array_comes_out_with_its_dtype_shape_and_bits_and_writable(array):
    out = round_trip(array)
    assert same(out, array)
    assert out.flags.writeable


@thorough
@given(st.integers(0, 5).flatmap(indexes))
def test_an_index_comes_out_with_names_and_frequency(index):
    assert same(round_trip(index), index)


@thorough
@given(series())
def test_a_series_comes_out_with_dtype_index_and_name(value):
    assert same(round_trip(value), value)


@thorough
@given(frames())
def test_a_frame_comes_out_with_dtypes_and_labels(frame):
    assert same(round_trip(frame), frame)


@quick
@given(values, st.integers(0, 200))
def test_the_budget_is_kept_to_the_byte(value, limit):
    size = sum(memoryview(frame).nbytes for frame in encode(value, max_bytes=MAX))
    if size <= limit:
        assert sum(memoryview(frame).nbytes for frame in encode(value, max_bytes=limit)) == size
    else:
        with pytest.raises(ValueCodecError):
            encode(value, max_bytes=limit)

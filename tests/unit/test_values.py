"""The value codec: what is carried and by which rule. Round trips of every type are in tests/property/test_values.py."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import subprocess
import sys
import tracemalloc
import typing
import zoneinfo
from pathlib import Path, PurePosixPath

import msgpack
import numpy as np
import pandas as pd
import pytest

from pool.values import MAX_BUFFERS, OUT_OF_BAND_BYTES, decode, encode
from tests.support.coded import MIB, Slotted, Trade, carried
from tests.support.process import python
from tests.support.same import same

# ---- values by rule ----


class Colour(enum.Enum):
    RED = (1, "red")


class Level(enum.IntEnum):
    HIGH = 3


class Point(typing.NamedTuple):
    x: int
    y: object


def test_an_enum_member_travels_as_its_value():
    assert carried([Colour.RED, Level.HIGH]) == [(1, "red"), 3]
    assert type(carried(Level.HIGH)) is int


def test_a_dataclass_travels_as_a_dict_of_its_fields():
    assert carried(Trade("X", [Slotted(1.5)])) == {"symbol": "X", "legs": [{"price": 1.5}]}


def test_a_named_tuple_travels_as_a_dict_of_its_fields():
    assert carried({"at": Point(1, Point(2, None))}) == {"at": {"x": 1, "y": {"x": 2, "y": None}}}


def test_a_subclass_of_a_builtin_travels_as_the_builtin():
    class MyInt(int): ...

    class MyStr(str): ...  # noqa: SLOT000

    class MyList(list): ...

    given = [MyInt(1 << 70), MyStr("a"), MyList([1]), collections.Counter("aab"), collections.defaultdict(list, a=[1])]
    out = carried(given)
    assert out == [1 << 70, "a", [1], {"a": 2, "b": 1}, {"a": [1]}]
    assert [type(item) for item in out] == [int, str, list, dict, dict]


def test_an_ordered_dict_keeps_the_order_that_it_was_moved_into():
    ordered = collections.OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    assert list(carried(ordered)) == ["b", "a"]


def test_a_path_travels_as_a_name_and_not_as_something_that_opens_files():
    assert carried(Path("/data/prices")) == PurePosixPath("/data/prices")
    assert type(carried(Path("/data/prices"))) is PurePosixPath


def test_the_repeated_hour_of_a_zone_keeps_its_fold():
    moment = dt.datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    assert carried(moment).utcoffset() == moment.utcoffset() == dt.timedelta(hours=1)


def padded(kind):
    """Three items of nothing but zeros, in memory where something else was."""
    array = np.frombuffer(bytearray(b"\xaa" * 3 * np.dtype(kind).itemsize), kind)
    for name in array.dtype.names or ():
        array[name] = np.zeros((), array.dtype[name])
    if array.dtype.names is None:
        array[:] = 0
    return array


@pytest.mark.parametrize(
    "kind",
    [
        np.dtype("i1,f8", align=True),
        np.dtype({"names": ["a"], "formats": ["u2"], "offsets": [4], "itemsize": 9}),
        np.dtype([("a", [("x", "u1"), ("y", "f8")]), ("b", np.dtype("i1,i8", align=True), (2,))]),
        "g",
        ">g",
        "G",
        np.dtype([("a", "g"), ("b", "u1")]),
    ],
    ids=str,
)
def test_what_lies_between_the_fields_of_a_record_does_not_travel(kind):
    for value in (padded(kind), padded(kind)[0], padded(kind)[::2]):
        assert b"\xaa" not in b"".join(map(bytes, encode(value, max_bytes=MIB)))
        assert same(carried(value), value)


def test_clearing_what_lies_between_leaves_the_value_itself_alone():
    array = padded(np.dtype("i1,f8", align=True))
    encode(array, max_bytes=MIB)
    assert b"\xaa" in array.tobytes()


@pytest.mark.parametrize(
    "missing", [{}, {"na_object": None}, {"na_object": np.nan}, {"na_object": pd.NA}, {"na_object": "-"}]
)
def test_text_of_any_length_in_numpy_is_carried(missing):
    dtype = np.dtypes.StringDType(coerce=False, **missing)
    array = np.array([["a", "ü\0"], ["x" * 100, missing.get("na_object", "")]], dtype)
    for each in (array, array.T, array[:0], np.array("z", dtype)):
        assert same(carried(each), each)


@pytest.mark.skipif(pd.__version__ < "2.3", reason="this pandas has no such dtype to send")
def test_text_of_a_newer_pandas_arrives_as_objects_where_pandas_has_no_such_dtype(monkeypatch):
    frame = pd.DataFrame({"text": pd.array(["a", None], "str")}, index=pd.Index(["x", "y"], dtype="str"))
    sent = encode(frame, max_bytes=MIB)
    monkeypatch.setattr(pd, "StringDtype", lambda storage=None: storage)
    found = decode(sent)
    assert (found["text"].dtype, found.index.dtype) == (object, object)
    assert found["text"].tolist() == ["a", pytest.approx(np.nan, nan_ok=True)]
    assert found.index.tolist() == ["x", "y"]


@pytest.mark.skipif(pd.__version__ < "2.3", reason="this pandas has no such dtype")
def test_a_column_of_text_has_the_storage_that_is_the_default_where_it_arrives(monkeypatch):
    """Else frames of a job have other dtypes than those of a caller who has pyarrow. `object` stands for his default."""
    real = pd.StringDtype
    sent = [encode(pd.array(["a", None], dtype), max_bytes=MIB) for dtype in ("str", "string[python]")]
    monkeypatch.setattr(
        pd, "StringDtype", lambda storage=None, **kind: real(storage, **kind) if storage else np.dtype(object)
    )
    assert [str(decode(each).dtype) for each in sent] == ["object", "string"]


def test_a_record_array_and_a_matrix_travel_as_plain_arrays():
    for odd in (np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), np.ones((2, 2)).view(np.matrix)):
        out = carried(odd)
        assert type(out) is np.ndarray
        assert out.tobytes() == odd.tobytes()


def test_a_subclass_of_a_frame_travels_as_a_plain_frame():
    class MyFrame(pd.DataFrame):
        @property
        def _constructor(self):
            return MyFrame

    out = carried(MyFrame({"a": [1], "b": ["x"]}))
    assert type(out) is pd.DataFrame
    pd.testing.assert_frame_equal(out, pd.DataFrame({"a": [1], "b": ["x"]}))


def test_custom_business_days_lose_their_frequency_and_keep_their_times():
    index = pd.bdate_range("2020-01-01", periods=5, freq="C", holidays=["2020-01-02"])
    out = carried(index)
    assert out.freq is None
    assert list(out) == list(index)


def test_attrs_and_flags_stay_behind_and_the_strictest_comparison_of_pandas_sees_nothing_else():
    columns = pd.MultiIndex.from_product([["b", "a"], [1, 2]], names=["side", "n"])
    index = pd.date_range("2026-01-01", periods=3, freq="B", tz="UTC", name="day")
    frame = pd.DataFrame(np.arange(12.0).reshape(3, 4), index=index, columns=columns)
    pd.testing.assert_frame_equal(carried(frame), frame, check_freq=True, check_flags=True, check_exact=True)
    frame.attrs["source"] = "exchange"
    out = carried(frame.set_flags(allows_duplicate_labels=False))
    assert (out.attrs, out.flags.allows_duplicate_labels) == ({}, True)
    pd.testing.assert_frame_equal(out, frame, check_freq=True, check_flags=True, check_exact=True)


def test_values_cut_into_bins_are_carried():
    binned = pd.cut(pd.Series([1.0, 2.0, 3.0]), 2)
    pd.testing.assert_series_equal(carried(binned), binned)


def test_a_frame_with_repeated_labels_is_carried():
    frame = pd.DataFrame([[1, "a"], [2, "b"]], index=[0, 0], columns=["x", "x"])
    pd.testing.assert_frame_equal(carried(frame), frame)


def test_a_plain_value_is_plain_msgpack():
    value = {"sharpe": 1.2, "trades": [1, 2], "note": "ok"}
    assert msgpack.unpackb(encode(value, max_bytes=MIB)[0]) == value


# ---- arrays and their buffers ----


def test_a_large_array_leaves_without_a_copy():
    array = np.arange(OUT_OF_BAND_BYTES, dtype="u1")
    head, buffer = encode([array, array[:10]], max_bytes=MIB)
    assert len(head) < 200
    assert np.shares_memory(np.frombuffer(buffer, "u1"), array)


def test_a_large_array_of_fortran_order_leaves_without_a_copy():
    array = np.asfortranarray(np.ones((1000, 100)))
    _, buffer = encode(array, max_bytes=MIB)
    assert np.shares_memory(np.frombuffer(buffer, "f8"), array)
    assert carried(array).flags.f_contiguous


def test_an_eighty_megabyte_array_costs_one_copy_from_end_to_end():
    array = np.random.default_rng(0).random(10_000_000)
    tracemalloc.start()
    try:
        frames = encode({"curve": array}, max_bytes=100 * MIB)
        encoding = tracemalloc.get_traced_memory()[1]
        out = decode([bytes(frames[0]), memoryview(frames[1]).toreadonly()])
        decoding = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert encoding < MIB
    assert decoding < array.nbytes + MIB
    assert np.array_equal(out["curve"], array)
    assert out["curve"].flags.writeable


def test_an_array_in_a_writable_frame_is_used_in_place():
    head, buffer = encode(np.zeros(OUT_OF_BAND_BYTES, "u1"), max_bytes=MIB)
    frame = bytearray(buffer)
    decode([head, frame])[0] = 7
    assert frame[0] == 7


def test_an_array_can_be_written_to_however_it_came():
    for array in (np.zeros(3), np.zeros(100_000)):
        out = carried(array)
        out[0] = 1
        assert out[0] == 1


def test_a_frame_of_one_dtype_travels_as_one_buffer_without_a_copy():
    values = np.random.default_rng(0).random((10_000, 10))
    frame = pd.DataFrame(values, columns=list("abcdefghij"), copy=False)
    head, buffer = encode(frame, max_bytes=2 * MIB)
    assert np.shares_memory(np.frombuffer(buffer, "f8"), values)
    pd.testing.assert_frame_equal(decode([head, buffer]), frame)


def test_more_large_arrays_than_frames_travel_inline():
    array = np.ones(OUT_OF_BAND_BYTES, "u1")
    frames = encode([array] * (MAX_BUFFERS + 2), max_bytes=128 * MIB)
    assert len(frames) == MAX_BUFFERS + 1
    assert len(decode(frames)) == MAX_BUFFERS + 2


# ---- without the libraries ----

WITHOUT = """
import sys
sys.modules["numpy"] = sys.modules["pandas"] = None
from pool.errors import ValueCodecError
from pool.values import decode, encode
assert decode(encode({"a": (1, 2.5)}, max_bytes=100)) == {"a": (1, 2.5)}
try:
    decode([sys.stdin.buffer.read()])
except ValueCodecError as error:
    print(error)
"""


@pytest.mark.parametrize("value", [np.ones(3), pd.Series([1])])
def test_without_numpy_and_pandas_plain_values_work_and_the_error_says_what_to_install(value):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], input=encode(value, max_bytes=MIB)[0], capture_output=True, check=True
    )
    assert b"pip install 'warm-container-pool[values]'" in done.stdout


def test_importing_the_codec_does_not_import_the_libraries():
    code = "import sys, pool.values; print({'numpy', 'pandas'} & set(sys.modules))"
    assert python("-c", code, check=True).stdout == "set()\n"

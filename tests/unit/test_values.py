"""The value codec: what is carried and by which rule, what is refused and with which words, and what hostile code and
hostile bytes cannot do. Round trips of every type are in tests/property/test_values.py.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import io
import subprocess
import sys
import tracemalloc
import typing
import zoneinfo
from pathlib import Path, PurePosixPath
from time import monotonic

import msgpack
import numpy as np
import pandas as pd
import pytest

from pool.errors import ValueCodecError
from pool.values import MAX_BUFFERS, MAX_DEPTH, OUT_OF_BAND_BYTES, decode, encode
from pool.values.codes import Code

MIB = 1 << 20


def carried(value, *, max_bytes=64 * MIB):
    return decode(encode(value, max_bytes=max_bytes))


def refused(value, *, max_bytes=64 * MIB):
    with pytest.raises(ValueCodecError) as caught:
        encode(value, max_bytes=max_bytes)
    return caught.value


def marked(code, *parts):
    return [msgpack.ExtType(code, b""), *parts]


def rejected(value, *buffers, max_bytes=None):
    """The error of a head that is well-formed msgpack (or raw bytes) and means nothing."""
    head = value if isinstance(value, bytes) else msgpack.packb(value)
    with pytest.raises(ValueCodecError) as caught:
        decode([head, *buffers], max_bytes=max_bytes)
    return caught.value


# ---- values by rule ----


class Colour(enum.Enum):
    RED = (1, "red")


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Trade:
    symbol: str
    legs: list[object]
    venue: typing.ClassVar[str] = "nowhere"


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    price: float


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


def test_text_with_lone_surrogates_is_carried():
    assert carried({"\ud800": ["a\udfff"], "b": ("\ud800",)}) == {"\ud800": ["a\udfff"], "b": ("\ud800",)}


def test_the_repeated_hour_of_a_zone_keeps_its_fold():
    moment = dt.datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    assert carried(moment).utcoffset() == moment.utcoffset() == dt.timedelta(hours=1)


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


# ---- what is refused, and with which words ----


def generator():
    yield 1


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (len, "builtin_function_or_method"),
        (generator, "function"),
        (generator(), "generator"),
        (io, "module"),
        (io.BytesIO(), "_io.BytesIO"),
        (object(), "object"),
        (int, "type"),
        (memoryview(b""), "memoryview"),
        (ValueError("x"), "ValueError"),
        (np.ma.array([1], mask=[True]), "numpy.ma.MaskedArray"),
    ],
)
def test_what_is_not_data_is_refused_with_type_path_and_advice(value, kind):
    error = refused({"frames": [1, 2, (value,)]})
    assert error.fields["path"] == "value['frames'][2][0]"
    assert error.fields["type"].endswith(kind)
    assert "value['frames'][2][0]" in error.message
    assert kind in error.message
    assert "carr" in error.message


def test_the_path_leads_through_records_object_arrays_and_frames():
    frame = pd.DataFrame({"a": [1, object()]})
    assert refused([Trade("X", [frame])]).fields["path"] == "value[0]['legs'][0].values[0].items[1]"


def test_a_column_that_has_no_bytes_is_refused_with_advice():
    assert "astype" in refused(pd.Series(pd.arrays.SparseArray([0, 1]))).message
    assert "astype" in refused(np.array(["a"], dtype=np.dtypes.StringDType())).message


def test_a_value_that_contains_itself_is_refused():
    for cycle in ([], {}):
        cycle.append(cycle) if isinstance(cycle, list) else cycle.update(me=[cycle])
        assert "contains itself" in refused(cycle).message
    trade = Trade("X", [])
    trade.legs.append(trade)
    assert "contains itself" in refused(trade).message


def test_a_value_nested_a_million_deep_is_refused():
    nests = [[], (), {}]
    for _ in range(1_000_000):
        nests = [[nests[0]], (nests[1],), {"a": nests[2]}]
    for nest in nests:
        assert "nested deeper" in refused(nest).message


def test_the_depth_limit_holds_on_both_sides():
    def nest(depth):
        value = []
        for _ in range(depth - 1):
            value = [value]
        return value

    assert carried(nest(MAX_DEPTH)) == nest(MAX_DEPTH)
    assert "nested deeper" in refused(nest(MAX_DEPTH + 1)).message
    assert "nested deeper" in rejected(nest(MAX_DEPTH + 1)).message


def test_a_huge_value_is_refused_before_it_is_written():
    shared: object = "x" * 1000
    for _ in range(30):  # 10^12 bytes when written out
        shared = [shared, shared]
    wide = dict.fromkeys(range(1_000_000), "x" * 100)
    tracemalloc.start()
    try:
        for huge in (shared, (shared,), wide, np.broadcast_to(1.0, (1 << 40,)), [b"x" * MIB] * 9, "é" * MIB):
            assert "takes more than" in refused(huge, max_bytes=MIB // 4).message
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * MIB


def test_the_limit_counts_all_frames():
    arrays = [np.zeros(OUT_OF_BAND_BYTES, "u1")] * 3
    size = sum(memoryview(frame).nbytes for frame in encode(arrays, max_bytes=MIB))
    assert len(encode(arrays, max_bytes=size)) == 4
    assert "takes more than" in refused(arrays, max_bytes=size - 1).message
    assert rejected(encode(arrays, max_bytes=MIB)[0], *[b"x" * OUT_OF_BAND_BYTES] * 3, max_bytes=size - 1)


# ---- hostile code ----


def bomb(*_args, **_kwargs):
    raise AssertionError("code of the value ran")


EVIL = dict.fromkeys(
    ["__iter__", "__len__", "__repr__", "__str__", "__eq__", "__hash__", "__getitem__", "__reduce_ex__", "__reduce__",
     "__getattribute__", "__int__", "__index__", "__float__", "__bool__", "__bytes__", "keys", "items", "values",
     "__array__", "__buffer__", "__class_getitem__", "__getstate__", "__format__", "__contains__", "__lt__"], bomb)  # fmt: skip


@pytest.mark.parametrize("base", [int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset])
def test_no_method_of_a_subclass_runs(base):
    evil = type("Evil", (base,), EVIL)
    plain = base()
    assert carried([base.__new__(evil)]) == [plain]
    assert type(carried([base.__new__(evil)])[0]) is base


def test_no_method_of_an_unknown_class_runs():
    evil = type("Evil", (), {**EVIL, "__class__": property(bomb), "__module__": "numpy"})
    assert refused([object.__new__(evil)]).fields["type"] == "numpy.Evil"


def test_no_property_of_a_record_runs():
    sneaky = type("Sneaky", (Trade,), {**EVIL, "symbol": property(bomb), "__dict__": property(bomb)})
    trade = object.__new__(sneaky)
    Trade.__dict__["__dict__"].__get__(trade).update(symbol="X", legs=[])
    assert carried(trade) == {"symbol": "X", "legs": []}


def test_a_record_with_a_missing_field_is_refused():
    assert "'price'" in refused(object.__new__(Slotted)).message
    assert "'symbol'" in refused(object.__new__(Trade)).message


def test_a_class_that_lies_about_itself_is_refused_like_any_other():
    class Meta(type):
        __hash__ = bomb
        __name__ = property(bomb)

    liar = Meta("Liar", (), {"__module__": 7})
    with pytest.raises(ValueCodecError):
        encode([liar.__new__(liar)], max_bytes=MIB)


def test_a_broken_library_object_raises_the_one_error():
    assert isinstance(refused(object.__new__(pd.DataFrame)), ValueCodecError)
    assert isinstance(refused(object.__new__(pd.Series)), ValueCodecError)


# ---- hostile bytes ----


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xc1",
        b"\x90\x90",
        b"\xdd\xff\xff\xff\xff",
        b"\xdd\x00\x10\x00\x00" * 200 + b"\x00" * MIB,
        b"\xdf\xff\xff\xff\xff" * 500,
        b"\x91" * 100_000,
        b"\xc6\xff\xff\xff\xff",
        b"\xd4\xff\x00",
        msgpack.packb({1: 2}),
        msgpack.packb(msgpack.ExtType(99, b"")),
        msgpack.packb(msgpack.ExtType(Code.TUPLE, b"")),
        msgpack.packb([1, msgpack.ExtType(Code.TUPLE, b"")]),
        msgpack.packb(msgpack.ExtType(Code.TUPLE, b"x")),
    ],
    ids=range(14),
)  # fmt: skip
def test_malformed_heads_are_rejected_in_little_memory(head):
    tracemalloc.start()
    try:
        rejected(head)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "value",
    [
        marked(Code.ARRAY, "|O", [1], "C", b"12345678"),
        marked(Code.ARRAY, "O", [1], "C", b"12345678"),
        marked(Code.ARRAY, "object", [1], "C", b"12345678"),
        marked(Code.ARRAY, "f8,O", [1], "C", b"12345678"),
        marked(Code.ARRAY, [16, ["a", "|O", 0, None]], [1], "C", b"1" * 16),
        marked(Code.ARRAY, ["()", "|O", [1]], [1], "C", b"12345678"),
        marked(Code.ARRAY, [8, ["a", "<f8", -8, None]], [1], "C", b"12345678"),
        marked(Code.ARRAY, [8, ["a", "<f8", 4, None]], [1], "C", b"12345678"),
        marked(Code.ARRAY, "<f8", [1 << 40], "C", b"12345678"),
        marked(Code.ARRAY, "<f8", [-1, -1], "C", b"12345678"),
        marked(Code.ARRAY, "<f8", [1 << 62, 1 << 62], "C", b""),
        marked(Code.ARRAY, "<f8", [2], "C", 1),
        marked(Code.ARRAY, "<f8", [1], "X", b"12345678"),
        marked(Code.ARRAY, "|V0", [1 << 40], "C", b""),
        marked(Code.ARRAY, "|b1", [1], "C", b"\xff"),
        marked(Code.ARRAY, "<U1", [1], "C", b"\xff" * 4),
        marked(Code.SCALAR, "|b1", b"\x02"),
        marked(Code.SCALAR, "|O", b"12345678"),
        marked(Code.OBJECTS, [1 << 40], [1]),
        marked(Code.DATETIME, None, [0, 1, 1, 0, 0, 0, 0, 0]),
        marked(Code.DATETIME, 5, [2020, 1, 1, 0, 0, 0, 0, 0]),
        marked(Code.NAMED_ZONE, "../../etc/passwd"),
        marked(Code.NAMED_ZONE, "/etc/passwd"),
        marked(Code.NAMED_ZONE, "America"),
        marked(Code.NAMED_ZONE, "os.path"),
        marked(Code.RANGE, 0, 1, 0),
        marked(Code.SET, []),
        marked(Code.DICT, 1),
        marked(Code.FRACTION, 1, 0),
        marked(Code.CATEGORICAL, marked(Code.ARRAY, "|i1", [1], "C", b"\x05"), 7, False),
        marked(Code.SERIES, 5, marked(Code.RANGE_INDEX, 0, 1 << 40, 1, None), None),
        marked(Code.SERIES, marked(Code.ARRAY, "|i1", [1], "C", b"1"), marked(Code.RANGE_INDEX, 0, 1 << 40, 1, None), None),
        marked(Code.MATRIX_FRAME, 1, marked(Code.RANGE_INDEX, 0, 1 << 40, 1, None), marked(Code.RANGE_INDEX, 0, 1, 1, None)),
        marked(Code.RANGE_INDEX, 0, 1, 1, []),
    ],
    ids=str,
)  # fmt: skip
def test_nonsense_within_a_sound_head_is_rejected(value):
    tracemalloc.start()
    try:
        assert rejected(value, b"12345678") if 1 in value[1:] else rejected(value)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def test_a_buffer_can_be_used_once_and_must_be_used():
    array = marked(Code.ARRAY, "|u1", [100_000], "C", 1)
    assert decode([msgpack.packb(array), bytes(100_000)]).shape == (100_000,)
    rejected([array, array], bytes(100_000))
    rejected([], bytes(10))
    rejected([], *[b""] * (MAX_BUFFERS + 1))


def test_frames_that_are_no_bytes_are_rejected():
    for frames in ([], None, [None], ["text"], [b"\x90", "text"], [7]):
        with pytest.raises(ValueCodecError):
            decode(frames)


def test_keys_that_were_chosen_to_collide_do_not_stall_the_reader():
    prime = (1 << 61) - 1  # hash(n * prime) is 0 for every n
    keys = [item for n in range(1, 60_000) for item in (n * prime, None)]
    head = msgpack.packb(
        [msgpack.ExtType(Code.DICT, b""), *(
            key if key is None else msgpack.ExtType(Code.BIG_INT, key.to_bytes(12, "little")) for key in keys
        )]
    )  # fmt: skip
    began = monotonic()
    assert "collide" in rejected(head).message
    assert monotonic() - began < 60


def test_reading_wrong_bytes_again_and_again_leaves_nothing_behind():
    head = msgpack.packb([[[n] * 10 for n in range(10_000)], msgpack.ExtType(99, b"")])
    rejected(head)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            rejected(head)
        assert tracemalloc.get_traced_memory()[0] - before < MIB
    finally:
        tracemalloc.stop()


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
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "set()\n"

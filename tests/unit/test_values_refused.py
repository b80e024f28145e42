"""Values that the codec refuses, with the text of each error; and hostile values, which do it no harm."""

import io
import tracemalloc
from time import thread_time

import numpy as np
import pandas as pd
import pytest

from pool.errors import ValueCodecError
from pool.values import MAX_DEPTH, OUT_OF_BAND_BYTES, encode
from tests.support.coded import MIB, Slotted, Trade, carried, refused, rejected
from tests.support.process import python

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
    assert refused([Trade("X", [frame])]).fields["path"] == "value[0]['legs'][0]['a'].flat[1]"


PLACES = {
    "the column by its label": (pd.DataFrame({"p": [1, 2], "q": [1, object()]}), "value['q'].flat[1]"),
    "a label that is a number": (pd.DataFrame({5: [object()]}), "value[5].flat[0]"),
    "a label that is neither": (pd.DataFrame({("a", 1): [object()]}), "value[<tuple>].flat[0]"),
    "the label itself": (pd.DataFrame({int: [1]}), "value.columns.values.flat[0]"),
    "the index": (pd.Series([1], index=[object()]), "value.index.values.flat[0]"),
    "a series": (pd.Series([1, object()]), "value.values.flat[1]"),
    "an array of two dimensions": (np.array([[1, 2], [3, object()]]), "value.flat[3]"),
    "a field of a record": (np.zeros(1, [("a", "i4"), ("b", [("c", "O")])]), "value['b']['c']"),
    "a sparse column": (pd.DataFrame({"s": pd.arrays.SparseArray([0, 1])}), "value['s']"),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_path_can_be_followed_in_python(place):
    value, path = PLACES[place]
    assert refused(value).fields["path"] == path


def test_a_column_that_has_no_bytes_is_refused_with_its_type_and_advice():
    error = refused(pd.Series(pd.arrays.SparseArray([0, 1])))
    assert "astype" in error.message
    assert error.fields["type"].endswith("SparseArray")


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


def doubled(inner, times, make):
    for _ in range(times):
        inner = make(inner)
    return inner


@pytest.mark.parametrize(
    "make", [lambda it: [it, it], lambda it: {"a": it, "b": it}, lambda it: [1, it, "x", {"k": it}]]
)
def test_a_small_value_that_is_huge_when_written_out_is_refused_at_once(make):
    began = thread_time()
    assert "takes more than" in refused(doubled([1], 60, make), max_bytes=16 * MIB).message
    assert thread_time() - began < 5


@pytest.mark.parametrize("make", [lambda it: [it, it], lambda it: {"a": it, "b": it}])
def test_what_is_shared_and_fits_is_written_as_often_as_it_is_there(make):
    value = doubled(["text"], 13, make)
    assert carried(value) == value
    odd = doubled([(1,), 2**70], 13, make)
    assert carried(odd) == odd
    deep = [doubled([], MAX_DEPTH + 1 - 12, lambda it: [it])] * 2
    assert "nested deeper" in refused(doubled(deep, 11, make)).message


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


SHORT = """
import resource
from pathlib import Path
from pool.values import decode, encode
value = bytes(40 << 20)
frames = encode(value, max_bytes=1 << 30)
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (10 << 20),) * 2)
for attempt in (lambda: encode(value, max_bytes=1 << 30), lambda: decode(frames)):
    try:
        attempt()
    except MemoryError:
        print("memory")
"""


def test_a_value_that_there_is_no_memory_for_is_no_error_of_the_value():
    done = python("-c", SHORT, check=True)
    assert done.stdout == "memory\nmemory\n"


def test_a_broken_library_object_raises_the_one_error():
    assert isinstance(refused(object.__new__(pd.DataFrame)), ValueCodecError)
    assert isinstance(refused(object.__new__(pd.Series)), ValueCodecError)

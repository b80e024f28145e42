"""Hostile bytes make the reader of values create no other object, take no memory and do not stall it."""

import tracemalloc

import msgpack
import pytest

from pool.errors import ValueCodecError
from pool.values import MAX_BUFFERS, MAX_DEPTH, decode
from pool.values.codes import Code
from tests.support.coded import MIB, marked, rejected


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
        marked(Code.TEXTS, [1 << 40], ["a"], True, []),
        marked(Code.TEXTS, [1], [7], True, []),
        marked(Code.TEXTS, [1], [None], True, []),
        marked(Code.TEXTS, [1], ["a"], 1, []),
        marked(Code.TEXTS, [1], ["a"], True, [[]]),
        marked(Code.TEXTS, [1], ["a"], True, [5]),
        marked(Code.TEXTS, [1], ["a"], True, 1),
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


ROW = marked(Code.RANGE_INDEX, 0, 1, 1, None)
OPAQUE = {
    "an array of objects": lambda inner: marked(Code.OBJECTS, [1], [inner]),
    "a series": lambda inner: marked(Code.SERIES, marked(Code.OBJECTS, [1], [inner]), ROW, None),
    "a frame": lambda inner: marked(Code.FRAME, [marked(Code.OBJECTS, [1], [inner])], ROW, ROW),
    "a slice": lambda inner: marked(Code.SLICE, None, inner, None),
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_what_is_no_container_of_python_nests_no_deeper_either(kind):
    def nest(depth):
        value = None
        for _ in range(depth):
            value = OPAQUE[kind](value)
        return value

    decode([msgpack.packb(nest(50))])
    assert "nested deeper" in rejected(nest(MAX_DEPTH + 1)).message


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

"""Through the value codec and back, or not; and bytes that are made by hand."""

import dataclasses
import typing

import msgpack
import pytest

from pool.errors import ValueCodecError
from pool.values import decode, encode
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


def big(number):
    return msgpack.ExtType(Code.BIG_INT, number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True))


def scalar(dtype, payload=bytes(8)):
    return marked(Code.SCALAR, dtype, payload)


def array(dtype, shape, payload):
    return marked(Code.ARRAY, dtype, shape, "C", payload)


def objects(*items):
    return marked(Code.OBJECTS, [len(items)], list(items))


def index(values):
    return marked(Code.INDEX, values, None, None)


def rejected(value, *buffers, max_bytes=None):
    """The error of a head that is well-formed msgpack (or raw bytes) and means nothing."""
    head = value if isinstance(value, bytes) else msgpack.packb(value)
    with pytest.raises(ValueCodecError) as caught:
        decode([head, *buffers], max_bytes=max_bytes)
    return caught.value


@dataclasses.dataclass
class Trade:
    symbol: str
    legs: list[object]
    venue: typing.ClassVar[str] = "nowhere"


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    price: float

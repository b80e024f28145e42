"""Mutations of encoded values that know the format: names of dtypes, units, counts, offsets, codes, keys.

A value is a tree of msgpack. A rule changes one node of it, or builds a hostile value from nothing.
"""

from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any

import msgpack

from pool.values.codes import Code
from tests.fuzz.mutate import bend_bytes, bend_tree

_PRIME = (1 << 61) - 1
_LARGE = 0.002  #: the share of records and keys that are very many
_UNITS = ("", "Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")
_COUNTS = ("", "0", "1", "2", "7", "25", "1000", "999999999", "-1", "4294967296")
_PLAIN = (
    "|b1", "|i1", "|u1", "<i2", ">i4", "<i8", ">u8", "<f2", "<f4", "<f8", ">f8", "<f16", ">f16", "<c8", "<c16", "<c32",
    "|S0", "|S3", "<U0", "<U1", ">U2", "|V0", "|V4", "|O", "<M8", "<m8", "|S999999999", "<U268435455", "|V1000000000",
)  # fmt: skip
_WORDS = (
    "C", "F", "D", "h", "min", "s", "ms", "us", "ns", "M", "ME", "W-SUN", "Q-DEC", "Y-DEC", "YE-DEC", "B", "0D", "-1D",
    "999999999D", "999999999B", "99bh", "C", "RE-N-DEC-MON", "left", "right", "both", "neither", "python", "pyarrow",
    "UTC", "Europe/Berlin", "Asia/Kathmandu", "../../etc/passwd", "dateutil//etc/passwd", "tzlocal()", "America", "localtime",
)  # fmt: skip
_INTS = (
    0, 1, -1, 2, 3, 4, 7, 8, 100, 127, 128, 255, 65535, 65536, 1 << 20, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, _PRIME,
    _PRIME - 1, 1 << 61, 1 << 62, (1 << 63) - 1, -(1 << 63), 1 - (1 << 63), (1 << 64) - 1, -719162, 2932897, 253402300800,
)  # fmt: skip
_BUFFERS = (
    b"", b"\0", b"\1", b"\2", b"\xff", bytes(8), b"\0" * 7 + b"\x80", b"\xff" * 7 + b"\x7f", b"\1" + bytes(7),
    b"\0\0\0\0\0\0\xf8\x7f", b"\0\0\0\0\0\0\xf0\x7f", bytes(16), b"\1" + bytes(8) + b"\x40" + bytes(6), b"\0\xd8\0\0",
    b"\xff\xff\x10\0", b"\0\0\x11\0",
)  # fmt: skip
_NUMBERS = (
    b"1", b"1e6144", b"1e-6144", b"1e999999", b"9e99999999999", b"NaN", b"sNaN", b"-Infinity", b"0e-9999", b"1" * 99,
)  # fmt: skip


def mark(code: int) -> msgpack.ExtType:
    return msgpack.ExtType(code, b"")


@lru_cache(8192)
def unpack(packed: bytes) -> Any:
    """The tree, which is shared: rules make others of it, and change none."""
    return msgpack.unpackb(packed, raw=False, strict_map_key=False, unicode_errors="surrogatepass")


def pack(tree: Any) -> bytes:
    return msgpack.packb(tree, unicode_errors="surrogatepass")  # type: ignore[no-any-return]


def bend(packed: bytes, random: Random, other: bytes) -> bytes:
    """The head of a value with a change or a few; `other` is the head of another value, for parts of it."""
    try:
        tree = unpack(packed)
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            tree = random.choice(_RULES)(tree, random, other)
        return pack(tree)
    except Exception:  # noqa: BLE001 - what was bent before may be no msgpack any more
        return bend_bytes(packed, random)


def _leaf(tree: Any, random: Random, other: bytes) -> Any:
    """One leaf in the place of another of its kind, anywhere in the tree."""
    if isinstance(tree, list) and tree:
        at = random.randrange(len(tree))
        return [*tree[:at], _leaf(tree[at], random, other), *tree[at + 1 :]]
    if isinstance(tree, dict) and tree:
        key = random.choice(list(tree))
        return {**tree, key: _leaf(tree[key], random, other)}
    return _replaced(tree, random)


def _replaced(leaf: Any, random: Random) -> Any:
    for kind, others in _OTHERS.items():
        if isinstance(leaf, kind):
            return others(leaf, random)
    return random.choice((0.0, -1.5, float("nan"), float("inf"), 5e-324, 0, "", None))


def _other_extension(leaf: msgpack.ExtType, random: Random) -> Any:
    if not leaf.data:
        return mark(random.choice(list(Code)))
    return msgpack.ExtType(leaf.code, random.choice((*_BUFFERS, *_NUMBERS, leaf.data + leaf.data)))


def _other_text(_leaf: str, random: Random) -> str:
    return random.choice(_WORDS) if random.random() < 0.4 else dtype_name(random)


def _other_bytes(leaf: bytes, random: Random) -> bytes:
    return random.choice((leaf + leaf, leaf[:-1], bend_bytes(leaf, random), random.choice(_BUFFERS)))


_OTHERS: dict[Any, Callable[[Any, Random], Any]] = {
    msgpack.ExtType: _other_extension,
    str: _other_text,
    (bool, type(None)): lambda _leaf, random: random.choice((True, False, None, 1, "", [])),
    int: lambda _leaf, random: random.choice(_INTS),
    bytes: _other_bytes,
}


def dtype_name(random: Random) -> str:
    if random.random() < 0.5:
        return random.choice(_PLAIN)
    return f"{random.choice('<>')}{random.choice('mM')}8[{random.choice(_COUNTS)}{random.choice(_UNITS)}]"


def _splice(tree: Any, random: Random, other: bytes) -> Any:
    """A part of another value in the place of a part of this one."""
    part = unpack(other)
    while isinstance(part, list) and part and random.random() < 0.6:
        part = random.choice(part)
    return _put(tree, part, random)


def _put(tree: Any, part: Any, random: Random) -> Any:
    if isinstance(tree, list) and tree and random.random() < 0.8:
        at = random.randrange(len(tree))
        return [*tree[:at], _put(tree[at], part, random), *tree[at + 1 :]]
    return part


def _wrap(tree: Any, random: Random, other: bytes) -> Any:
    """The value within another: beside itself, as a key, an item of an array, a label, a category, an end."""
    index = [mark(Code.INDEX), [mark(Code.OBJECTS), [2], [tree, unpack(other)]], None, None]
    return random.choice((
        [mark(Code.SET), tree, unpack(other)],
        [mark(Code.DICT), tree, 1, unpack(other), tree],
        [mark(Code.TUPLE), tree, tree],
        [mark(Code.OBJECTS), [1], [tree]],
        [mark(Code.SLICE), tree, None, tree],
        [mark(Code.INTERVAL), tree, unpack(other), "left"],
        [mark(Code.SERIES), tree, [mark(Code.RANGE_INDEX), 0, 1, 1, None], tree],
        [mark(Code.FRAME), [tree], index, [mark(Code.RANGE_INDEX), 0, 1, 1, None]],
        [mark(Code.CATEGORICAL), [mark(Code.ARRAY), "|i1", [2], "C", b"\0\1"], index, False],
        [mark(Code.INTERVALS), tree, unpack(other), "both"],
        [mark(Code.MULTI_INDEX), [index, tree], [[mark(Code.ARRAY), "|i1", [1], "C", b"\0"]] * 2, [None, tree]],
        [mark(Code.ZONED), tree, [mark(Code.NAMED_ZONE), "Europe/Berlin"]],
        index,
    ))  # fmt: skip


def _scalars(tree: Any, random: Random, _other: bytes) -> Any:
    """A numpy scalar of any dtype, alone or beside another in a set."""
    one, two = ([mark(Code.SCALAR), dtype_name(random), random.choice(_BUFFERS)] for _ in range(2))
    return random.choice((one, [mark(Code.SET), one, two], [one, two, tree], [mark(Code.DICT), one, 1, two, 2]))


def _record(_tree: Any, random: Random, _other: bytes) -> Any:
    """An array of records whose fields lie anywhere."""
    count, length = random.choice((1, 2, 3, 30)), random.choice((0, 1, 2, 9))
    if random.random() < _LARGE:
        count, length = 1500, 20_000
    size, step = random.choice((1, 1, 4, count)), random.choice((0, 1, 1, 2))
    offsets = [at * step % size for at in range(count)]
    if random.random() < 0.3:
        offsets[random.randrange(count)] = random.choice((0, 1, size, -1))
    kind = random.choice(("|b1", "|u1", dtype_name(random), ["()", "|b1", [random.choice(_INTS[:8])]]))
    fields = [[f"f{at}", kind, offset, None] for at, offset in enumerate(offsets)]
    return [mark(Code.ARRAY), [size, *fields], [length], "C", bytes(min(size * length, 100_000))]


def _collide(tree: Any, random: Random, _other: bytes) -> Any:
    """Many keys with one hash, of one type or of several, alone or within tuples."""
    residue = random.choice((0, 1, 2, 5, -3))
    make = random.choice((_colliding_int, _colliding_decimal, _colliding_fraction, _colliding_tuple))
    most = 150_000 // len(pack(make(1 << 70, 1)))
    count = random.choice((300, most)) if random.random() < _LARGE else random.choice((3, 5, 5, 9, 9, 40))
    keys = [make(residue + _PRIME * at, at) for at in range(count)]
    if random.random() < 0.5:
        keys[0] = msgpack.ExtType(Code.DECIMAL, str(residue).encode())
    if random.random() < 0.3:
        index = [mark(Code.INDEX), [mark(Code.OBJECTS), [count], keys], None, None]
        codes = [mark(Code.ARRAY), "|i1", [1], "C", b"\0"]
        return random.choice((index, [mark(Code.CATEGORICAL), codes, index, False]))
    if random.random() < 0.5:
        return [mark(random.choice((Code.SET, Code.FROZENSET))), *keys]
    return [mark(Code.DICT), *(item for key in keys for item in (key, tree if count < 9 else None))]


def number(value: int) -> Any:
    if -(1 << 63) <= value < 1 << 64:
        return value
    return msgpack.ExtType(Code.BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _colliding_int(value: int, _at: int) -> Any:
    return number(value)


def _colliding_decimal(value: int, at: int) -> Any:
    return msgpack.ExtType(Code.DECIMAL, str(value).encode()) if at % 2 else number(value)


def _colliding_fraction(value: int, _at: int) -> Any:
    return [mark(Code.FRACTION), number(value), 1]


def _colliding_tuple(value: int, _at: int) -> Any:
    return [mark(Code.TUPLE), *([[mark(Code.FRACTION), 1, 3]] * 10), [mark(Code.FRACTION), number(value), 1]]


Rule = Callable[[Any, Random, bytes], Any]
_RULES: tuple[Rule, ...] = (
    _leaf, _leaf, _leaf, _leaf, _leaf, _leaf, _leaf, _splice, _splice, _wrap, _wrap, _scalars, _record, _collide,
    lambda tree, random, _other: bend_tree(tree, random),
)  # fmt: skip

"""Results of jobs, in the daemon's and the client's process: an input is the frames."""

import datetime as dt
import tracemalloc
import uuid
import warnings
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import PurePosixPath
from random import Random
from time import thread_time
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import pandas as pd

from pool import values
from pool.errors import ValueCodecError
from pool.values.codes import Code
from tests.fuzz.frames import join, split
from tests.fuzz.mutate import bend_bytes
from tests.fuzz.shape import bend
from tests.fuzz.target import Target
from tests.fuzz.use import honest_values, use
from tests.fuzz.watch import BoundError
from tests.support.same import same

T = TypeVar("T")

_MOST = 16 << 20
#: CPU seconds that decoding may take.
_DECODE_S, _DECODE_BYTE_S = 0.05, 5e-6
#: Using a value and encoding it again may take so much more.
_USE_S, _USE_BYTE_S = 0.5, 2e-5
_ATTEMPTS, _FAR_OVER = 3, 3
#: Where that is over: in relation to an honest value at the same moment, and 50 ms a MiB above.
_HONEST_FACTOR, _EXCESS_BYTE_S = 1.25, 0.05 / (1 << 20)


def one(data: bytes) -> None:
    """Decode, use, encode again and decode that."""
    frames = split(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoded, spent = _timed(lambda: _decode(frames))
        limit = _DECODE_S + _DECODE_BYTE_S * len(data)
        if limit < spent < _FAR_OVER * limit:  # again: others may have had the caches
            spent = min(_timed(lambda: _decode(frames))[1] for _ in range(_ATTEMPTS))
        if spent > limit:  # a busy machine is slow for honest values too
            limit = max(limit, _HONEST_FACTOR * _honest_decoding_s(len(data)) + _EXCESS_BYTE_S * len(data))
        _raise_over(spent, limit, f"decoding {len(data)} bytes")
        if decoded:
            _check_use(decoded[0], len(data))


def _check_use(value: object, size: int) -> None:
    _, spent = _timed(lambda: (use(value, _honest()), _check_again(value)))
    _raise_over(spent, _USE_S + _USE_BYTE_S * size, f"using the value of {size} bytes")


@cache
def _dearest() -> list[bytes]:
    """The encoding of an honest value that takes long to decode: many small arrays of records."""
    return list(map(bytes, values.encode([np.zeros(1, [("f0", "?")])] * 5000, max_bytes=_MOST)))


def _honest_decoding_s(size: int) -> float:
    """What an honest value of this size takes to be decoded here and now."""
    _, spent = _timed(lambda: _decode(_dearest()))
    return spent * size / sum(map(len, _dearest()))


def _raise_over(spent: float, limit: float, what: str) -> None:
    if spent > limit and not tracemalloc.is_tracing():  # which makes all of it some times as slow
        raise BoundError(f"{what} took {spent:.3f} s of CPU, {limit:.3f} s are allowed")


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = thread_time()
    return work(), thread_time() - began


def _decode(frames: list[bytes]) -> list[object]:
    """The value, or nothing if it was refused."""
    try:
        return [values.decode(frames, max_bytes=_MOST)]
    except ValueCodecError as error:
        refusal = str(error)
    assert "MemoryError" not in refusal  # asked for before it was known to be there
    return []


@cache
def _honest() -> dict[type, Any]:
    return honest_values([list(of_every_kind()), *range(2)])


def _check_again(value: object) -> None:
    """Depth within slices, object arrays and frames is not counted by `decode`; msgpack ends it at 1024."""
    try:
        frames = values.encode(value, max_bytes=_MOST)
    except ValueCodecError as error:
        refusal = str(error)
        assert "nested deeper" in refusal, refusal
        return
    assert same(values.decode(frames, max_bytes=_MOST), value)


def mutate(data: bytes, random: Random) -> bytes:
    """Mostly the head, as a tree; or a part of it in the place of the whole."""
    frames = split(data)
    if not frames or random.random() < 0.1:
        return bend_bytes(data, random)
    frames[0] = bend(frames[0], random, random.choice(_heads()))
    return join(frames)


@cache
def _heads() -> tuple[bytes, ...]:
    """Of seeds, for parts of them."""
    return tuple(split(data)[0] for data in seeds())


def of_every_kind() -> Iterable[object]:
    day = pd.date_range("2020-01-01", periods=4, freq="D")
    yield [None, True, 1, -5, 1 << 70, 1.5, 2j, "text", b"bytes", bytearray(b"x")]
    yield {"a": [1, (2, 3)], "b": {"c": {4, 5}}, "d": frozenset({6}), "e": range(1, 9, 2), "f": slice(1, None, (2,))}
    yield {(1, 2): "x", None: [], 1.5: {}}
    yield [Decimal("1.50"), Fraction(1, 3), uuid.UUID(int=7), PurePosixPath("/a/b")]
    yield [
        dt.datetime(2020, 1, 2, 3, 4, 5, 6, dt.UTC),
        dt.date(2020, 1, 2),
        dt.time(1, 2, fold=1),
        dt.timedelta(1, 2, 3),
    ]
    yield [dt.datetime(2020, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")), dt.timezone(dt.timedelta(hours=2), "x")]
    yield [
        np.float32(1.5),
        np.int8(-3),
        np.bool_(True),
        np.datetime64("2020-01-01", "D"),
        np.str_("s"),
        np.bytes_(b"b"),
    ]
    yield np.arange(12, dtype=">i4").reshape(3, 4)
    yield np.asfortranarray(np.eye(3))
    yield np.array([(1, 2.5, b"ab")], dtype=[("a", "<i2"), ("b", "<f8"), ("c", "S4")])
    yield np.array([True, False, True])
    yield np.array(["a", "bcd"])
    yield np.array([[1, "x"], [None, [2]]], dtype=object)
    yield [
        pd.Timestamp("2020-01-01", tz="UTC"),
        pd.Timedelta("1D"),
        pd.NaT,
        pd.NA,
        pd.Period("2020-01", "M"),
        pd.Interval(0, 1),
    ]
    yield pd.Series([1.0, 2.5, None, 4.0], index=day, name="close")
    yield pd.DataFrame({"a": [1, 2, 3, 4], "b": list("wxyz"), "c": day.tz_localize("UTC")}, index=day)
    yield pd.DataFrame(np.ones((2, 3)), columns=["x", "y", "z"])
    yield pd.Series(pd.Categorical(["a", "b", None, "a"], ordered=True))
    yield pd.Series([1, None, 3], dtype="Int64")
    yield pd.Series([True, None], dtype="boolean")
    yield pd.Series(["a", None], dtype="string")
    yield pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["l", "n"])
    yield pd.interval_range(0, 3)
    yield pd.period_range("2020-01", periods=3, freq="M")
    yield np.array(["a", "bc"], np.dtypes.StringDType(na_object=None))
    yield np.array([1, 2], "M8[25us]")
    yield np.array([1.5, -2], "g")
    yield np.zeros((0, 3), "i1,f8")
    yield {Decimal("1e9"): 1, Fraction(7, 3): 2, (1, -2): 3, dt.timedelta(1): 4}
    yield pd.RangeIndex(2, 11, 3, name="r")
    yield pd.timedelta_range("1h", periods=3, freq="2h")
    yield pd.Index(["a", 1, (2, None)], dtype=object, tupleize_cols=False)
    yield pd.DataFrame(index=pd.RangeIndex(3))


def seeds() -> Iterable[bytes]:
    for value in of_every_kind():
        yield join(map(bytes, values.encode(value, max_bytes=_MOST)))
    yield join([msgpack.packb([msgpack.ExtType(Code.ARRAY, b""), "<f8", [2], "C", 1]), bytes(16)])
    yield join([b"\x91" * 1500 + b"\xc0"])
    yield join([b"\xdd\xff\xff\xff\xff"])
    yield join([b"\xc9\xff\xff\xff\xff\1"])


TARGET = Target(
    contract="ValueCodecError, or a value that can be used and encodes to its equal, in bounded time and memory",
    one=one,
    mutate=mutate,
    seeds=seeds,
    words=(
        b"\xd4\x28\0",
        b"\xc7\0\x28",
        b"\xa3<f8",
        b"\xa3|b1",
        b"\xa2|O",
        b"\xa6M8[ns]",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ),
    inputs=150_000,
    base_bytes=4 << 20,
    per_byte=2000,
    cpu_s=10.0,
    max_len=1 << 16,
)

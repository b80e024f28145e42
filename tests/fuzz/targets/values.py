"""Results of jobs, in the daemon's and the client's process: an input is the frames."""

from __future__ import annotations

import datetime as dt
import uuid
import warnings
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from random import Random
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import pandas as pd

from pool import values
from pool.errors import ValueCodecError
from pool.values.codes import Code
from tests.fuzz.frames import join, split
from tests.fuzz.mutate import bend_bytes, bend_msgpack
from tests.fuzz.target import Target
from tests.support.same import same

_MOST = 1 << 22


def one(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refusal = ""
        try:
            value = values.decode(split(data), max_bytes=_MOST)
        except ValueCodecError as error:
            refusal = str(error)
        assert "MemoryError" not in refusal  # asked for before it was known to be there
        if refusal:
            return
        _check_again(value)


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
    if not frames or random.random() < 0.2:
        return bend_bytes(data, random)
    if random.random() < 0.1:
        mark = msgpack.packb(msgpack.ExtType(random.choice(list(Code)), b""))
        frames[0] = b"\x92" + mark + frames[0]
    frames[0] = bend_msgpack(frames[0], random)
    return join(frames)


def _values() -> Iterable[object]:
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


def seeds() -> Iterable[bytes]:
    for value in _values():
        yield join(map(bytes, values.encode(value, max_bytes=_MOST)))
    yield join([msgpack.packb([msgpack.ExtType(Code.ARRAY, b""), "<f8", [2], "C", 1]), bytes(16)])
    yield join([b"\x91" * 1500 + b"\xc0"])
    yield join([b"\xdd\xff\xff\xff\xff"])
    yield join([b"\xc9\xff\xff\xff\xff\1"])


TARGET = Target(
    contract="ValueCodecError or a value that encodes to its equal, in bounded memory",
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
    cpu_s=4.0,
)

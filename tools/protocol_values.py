"""The value encoding as docs/protocol.md has it: the table of codes, and test vectors. Written by tools/protocol.py."""

import datetime as dt
import re
import struct
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack

from pool import values
from pool.values import codes
from pool.values.codes import Code

_FORMS = {
    Code.BIG_INT: ("payload: two's complement, little-endian, at least one byte", "int beyond 64 bits"),
    Code.COMPLEX: ("payload: two little-endian float64: real, imaginary", "complex"),
    Code.BYTEARRAY: ("payload: the bytes", "bytearray"),
    Code.DECIMAL: ("payload: ASCII, such as `-1.50`, `1E+3`, `NaN`, `Infinity`", "Decimal"),
    Code.UUID: ("payload: 16 bytes, big-endian", "UUID"),
    Code.POSIX_PATH: ("payload: UTF-8", "pure POSIX path"),
    Code.WINDOWS_PATH: ("payload: UTF-8", "pure Windows path"),
    Code.TUPLE: ("*items", "tuple"),
    Code.SET: ("*items", "set"),
    Code.FROZENSET: ("*items", "frozenset"),
    Code.DICT: ("key, value, key, value, ...", "dict, where not all keys are str or a value is no plain one"),
    Code.RANGE: ("start, stop, step: int", "range"),
    Code.SLICE: ("start, stop, step: any value", "slice"),
    Code.FRACTION: ("numerator, denominator: int", "Fraction"),
    Code.DATETIME: ("zone, [year, month, day, hour, minute, second, microsecond, fold]", "datetime"),
    Code.DATE: ("year, month, day", "date"),
    Code.TIME: ("zone, [hour, minute, second, microsecond, fold]", "time"),
    Code.TIMEDELTA: ("days, seconds, microseconds", "timedelta"),
    Code.FIXED_ZONE: ("offset: TIMEDELTA, name: str or nil", "a fixed offset from UTC"),
    Code.NAMED_ZONE: ("key: str, such as `Europe/Berlin`", "a zone of the tz database"),
    Code.PYTZ_ZONE: ("key: str", "the same, as an object of pytz"),
    Code.ARRAY: ("dtype, shape: array of int, order: `C` or `F`, buffer: bin or number of a frame", "numpy array"),
    Code.OBJECTS: ("shape, items: array of any values, in C order", "numpy array of objects"),
    Code.SCALAR: ("dtype, item: bin", "numpy scalar"),
    Code.NUMPY_STR: ("text: str", "numpy.str_"),
    Code.NUMPY_BYTES: ("text: bin", "numpy.bytes_"),
    Code.TEXTS: ("shape, items, coerce: bool, missing: array of none or one", "numpy array of StringDType"),
    Code.NAT: ("", "pandas.NaT"),
    Code.NA: ("", "pandas.NA"),
    Code.STAMP: ("count since 1970 UTC: int, unit: `s` `ms` `us` `ns`, zone, fold: 0 or 1", "pandas Timestamp"),
    Code.STAMP_DELTA: ("count: int, unit", "pandas Timedelta"),
    Code.PERIOD: ("ordinal: int, freq: str, such as `M`", "pandas Period"),
    Code.INTERVAL: ("left, right, closed: `left` `right` `both` `neither`", "pandas Interval"),
    Code.CATEGORICAL: ("codes: ARRAY of ints, categories: an index, ordered: bool", "categorical column"),
    Code.STRINGS: ("items: array of str and nil, storage: `python` `pyarrow`, missing is NA: bool", "column of text"),
    Code.MASKED: ("values: ARRAY, mask: ARRAY of bool", "nullable column"),
    Code.ZONED: ("times in UTC: ARRAY of M8, zone", "column of times in a zone"),
    Code.PERIODS: ("ordinals: ARRAY of i8, freq", "column of periods"),
    Code.INTERVALS: ("left: an index, right: an index, closed", "column of intervals"),
    Code.INDEX: ("values: ARRAY, OBJECTS or a column, name: any value, freq: str or nil", "pandas Index"),
    Code.RANGE_INDEX: ("start, stop, step: int, name", "pandas RangeIndex"),
    Code.MULTI_INDEX: ("levels: array of indexes, codes: array of ARRAY of ints, names: array", "pandas MultiIndex"),
    Code.SERIES: ("values, index, name", "pandas Series"),
    Code.FRAME: ("columns: array of values, index, labels: an index", "pandas DataFrame"),
    Code.MATRIX_FRAME: ("values: ARRAY of two dimensions, index, labels", "DataFrame whose columns have one dtype"),
}


def value_codes() -> Iterator[str]:
    yield from ("| code | name | kind | parts | what it is |", "|---:|---|---|---|---|")
    for code in Code:
        form, meaning = _FORMS[code]
        yield f"| {code.value} | {code.name} | {'leaf' if code < Code.TUPLE else 'composite'} | {form} | {meaning} |"


def value_bounds() -> Iterator[str]:
    yield from ("| bound | value |", "|---|---:|")
    rows = {
        "composites within composites": codes.MAX_DEPTH,
        "frames beside the first": codes.MAX_BUFFERS,
        "bytes of an int": codes.MAX_INT_BYTES,
        "bytes of a numerator, and of a denominator": codes.MAX_FRACTION_BYTES,
        "digits of a Decimal, and digits before or after its point": codes.MAX_DECIMAL_DIGITS,
        "bytes of an array from which on the encoder gives it a frame of its own": codes.OUT_OF_BAND_BYTES,
        "items of a range that is a level or categories": codes.MAX_LOOKED_INTO,
    }
    yield from (f"| {what} | {count:,} |" for what, count in rows.items())


_VALUES = """
None; True; -1; 2**64 - 1; 1.5; 'Grüße'; b'\\x00\\xff'; [1, [2]]; {'a': 1}
2**64; -2**63 - 1; 1 + 2j; bytearray(b'ab'); Decimal('-1.50')
UUID(int=1); PurePosixPath('/a/b'); PureWindowsPath('C:/a')
(1, 'x'); {7}; frozenset({7}); {1: 'a'}; {'a': (1,)}; range(0, 10, 2); slice(None, 3, None); Fraction(1, 3)
dt.date(2024, 2, 29); dt.time(23, 59, 59, 1); dt.timedelta(days=-1, seconds=1); dt.datetime(2024, 2, 29, 12, 30)
dt.timezone(dt.timedelta(hours=1)); dt.datetime(2024, 7, 1, 12, tzinfo=ZoneInfo('Europe/Berlin'))
np.array([1.5, -2.0]); np.array([[1, 2], [3, 4]], dtype='<i4', order='F')
np.array([True, False]); np.array(['a', None], object)
np.float64(1.5); np.str_('a'); np.bytes_(b'a'); np.array(['2024-02-29'], dtype='<M8[D]')
np.array([(1, 2.5)], dtype=[('a', '<i4'), ('b', '<f8')])
pd.NaT; pd.NA; pd.Timestamp('2024-02-29').as_unit('ns'); pd.Timedelta('1s').as_unit('ns'); pd.Period('2024-02', 'M')
pd.Interval(0, 1, closed='right'); pd.Index([1, 2], dtype='int64', name='n'); pd.RangeIndex(3)
pd.Series([1.5, 2.5], name='x'); pd.Series([1, None], dtype='Int64'); pd.Series(['a', None], dtype='string[python]')
pd.Series([1, 2], dtype=pd.CategoricalDtype(pd.Index([1, 2], dtype='int64')))
pd.Series(pd.DatetimeIndex(['2024-02-29'], tz='UTC').as_unit('ns'))
pd.MultiIndex.from_arrays([pd.Index([1, 2], dtype='int64'), pd.Index([3, 3], dtype='int64')])
pd.Series(pd.PeriodIndex(['2024-02'], freq='M'))
pd.Series(pd.IntervalIndex.from_breaks(pd.Index([0, 1], dtype='int64')))
pd.DataFrame({0: [1.0, 2.0], 1: [3.0, 4.0]}, columns=pd.RangeIndex(2))
pd.DataFrame({0: [1, 2], 1: [0.5, 1.5]}, columns=pd.RangeIndex(2))
((2, [3.5]), {'flag': True})
"""
#: Of what decoding refuses: what is wrong, and the value without Python's own names.
_REFUSED: dict[str, Any] = {
    "a code that is not in the table": msgpack.ExtType(99, b""),
    "a mark that heads no array": msgpack.ExtType(Code.TUPLE, b""),
    "a mark with a payload": [msgpack.ExtType(Code.TUPLE, b"x")],
    "an array of two items of 8 bytes, with 8 bytes": [msgpack.ExtType(Code.ARRAY, b""), "<f8", [2], "C", bytes(8)],
    "a frame that is not there": [msgpack.ExtType(Code.ARRAY, b""), "<f8", [2], "C", 1],
    "a date that is none": [msgpack.ExtType(Code.DATE, b""), 2023, 2, 29],
    "a key of msgpack that is neither str nor bytes": {1: "a"},
}


def value_of(text: str) -> object:
    """The value of an expression on the page."""
    import numpy as np
    import pandas as pd

    names = {"np": np, "pd": pd, "dt": dt, "ZoneInfo": ZoneInfo, "Decimal": Decimal, "Fraction": Fraction}
    names |= {"UUID": UUID, "PurePosixPath": PurePosixPath, "PureWindowsPath": PureWindowsPath}
    return eval(text, names)  # noqa: S307 - the expressions of this file, and of the page that is made of it


def value_vectors() -> Iterator[str]:
    yield from ("| value, as Python writes it | frames, in hex |", "|---|---|")
    for text in filter(None, map(str.strip, re.split(r"[;\n]", _VALUES))):
        yield f"| `{text}` | {hex_of(values.encode(value_of(text), max_bytes=1 << 20))} |"
    outside = [msgpack.ExtType(Code.ARRAY, b""), "<f8", [1], "C", 1]
    yield f"| `np.array([1.5])`, beside the head | {hex_of([msgpack.packb(outside), struct.pack('<d', 1.5)])} |"


def refused_vectors() -> Iterator[str]:
    yield from ("| what is wrong | frames, in hex |", "|---|---|")
    yield from (f"| {what} | {hex_of([msgpack.packb(wrong)])} |" for what, wrong in _REFUSED.items())


def hex_of(frames: list[Any]) -> str:
    """Frames as the page shows them."""
    return " then ".join(f"`{bytes(frame).hex()}`" for frame in frames)

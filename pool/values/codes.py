"""The numbers of the format, and its limits. A number, once used, is never given another meaning.

    leaf        ext(code, payload)              one value out of a few bytes
    composite   [ext(code, b""), part, part…]   an array that begins with a mark; its parts are values themselves
    plain       None, bool, int, float, str, bytes, list, and dict with str keys, as msgpack has them

An array of the user never begins with a mark, so nothing needs escaping, and nothing is packed twice however deep it
is nested.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: Containers within containers. Far below msgpack's own 1024 and Python's recursion limit, far above honest data; a
#: dataclass, an index or a column counts as a container.
MAX_DEPTH = 200
#: From here on the buffer of an array travels in a frame of its own, which costs a few µs but saves copies.
OUT_OF_BAND_BYTES = 64 * 1024
#: Frames beside the first. More large arrays than this travel inline; the wire has room for 1024 frames in all.
MAX_BUFFERS = 1000
#: Items that take no bytes (numpy's V0) would make an array of any length out of nothing.
MAX_EMPTY_ITEMS = 65536
#: numerator and denominator: `Fraction` reduces them in quadratic time.
MAX_FRACTION_BYTES = 4096


@enum.unique
class Code(enum.IntEnum):
    # leaves
    BIG_INT = 1
    COMPLEX = 2
    BYTEARRAY = 3
    DECIMAL = 4
    UUID = 5
    POSIX_PATH = 6
    WINDOWS_PATH = 7
    # builtin composites
    TUPLE = 16
    SET = 17
    FROZENSET = 18
    DICT = 19  #: with keys other than str
    RANGE = 20
    SLICE = 21
    FRACTION = 22
    DATETIME = 23
    DATE = 24
    TIME = 25
    TIMEDELTA = 26
    FIXED_ZONE = 27
    NAMED_ZONE = 28
    PYTZ_ZONE = 29
    # numpy
    ARRAY = 40
    OBJECTS = 41
    SCALAR = 42
    NUMPY_STR = 43
    NUMPY_BYTES = 44
    TEXTS = 45
    # pandas
    NAT = 60
    NA = 61
    STAMP = 62
    STAMP_DELTA = 63
    PERIOD = 64
    INTERVAL = 65
    CATEGORICAL = 70
    STRINGS = 71
    MASKED = 72
    ZONED = 73
    PERIODS = 74
    INTERVALS = 75
    INDEX = 80
    RANGE_INDEX = 81
    MULTI_INDEX = 82
    SERIES = 83
    FRAME = 84  #: column by column
    MATRIX_FRAME = 85  #: all columns of one numpy dtype, as one array


@dataclass(frozen=True, slots=True)
class Mark:
    """Head of a composite while it is being read; never part of a value that `decode` hands out."""

    code: Code

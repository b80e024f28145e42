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
#: A range that is looked into, as categories and levels are, may have this many items.
MAX_LOOKED_INTO = 65536
#: Arithmetic, and comparing with a Decimal, takes quadratic time. 9,864 digits; Python itself prints up to 4,300.
MAX_INT_BYTES = 4096
#: Of the numerator and of the denominator: `Fraction` reduces them in quadratic time.
MAX_FRACTION_BYTES = 1024
#: Digits of a Decimal, and digits before or after its point; decimal128 of IEEE 754 has exponents up to this. `int()`
#: of a Decimal writes all its digits out, in quadratic time.
MAX_DECIMAL_DIGITS = 6144
#: Of the bytes of an item where an array has none; else the frames hold the items.
MAX_EMPTY_ITEM_BYTES = 65536

# Some things take a few bytes in the head and far more time or memory here. Each is charged what its honest size would
# be, and all charges together may come to the size of the frames and FREE_CHARGE beside it.
FREE_CHARGE = 20 << 20
#: An index, a column, a Series or a DataFrame: 10,000 of them are free, beyond that one for each 2 KiB of the frames.
OBJECT_CHARGE = 2048
#: An item of an array that takes no bytes: of no bytes itself, or beside a dimension of 0; `tolist` makes a list of it.
EMPTY_ITEM_CHARGE = 64
#: An item of a range or a RangeIndex: numpy makes a list of one that it is compared with, pandas an array. A million
#: are free. Those of a RangeIndex are not charged where columns have as many items, which take bytes of their own.
RANGE_ITEM_CHARGE = 20


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

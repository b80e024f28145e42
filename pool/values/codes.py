"""The numbers of the format, and its limits. A number, once used, is never given another meaning.

    leaf        ext(code, payload)              one value out of a few bytes
    composite   [ext(code, b""), part, part…]   an array that begins with a mark; each part is a value
    plain       None, bool, int, float, str, bytes, list, and dict with str keys, as msgpack has them

An array of the user never begins with a mark, so nothing needs escaping, and nothing is packed twice however deep it
is nested.
"""

from __future__ import annotations

import enum

from msgspec import Struct

#: Containers within containers. Far below msgpack's own 1024 and Python's recursion limit, far above honest data; a
#: dataclass, an index or a column counts as a container.
MAX_DEPTH = 200
#: From here on the buffer of an array travels in a frame of its own, which costs a few µs but saves copies.
OUT_OF_BAND_BYTES = 64 * 1024
#: Frames after the first. Further large arrays travel inline; a message has at most 1024 frames.
MAX_BUFFERS = 1000
#: The most items of a range that pandas searches, as it does in categories and levels.
MAX_LOOKED_INTO = 65536
#: 9,864 digits. Arithmetic and comparing with a Decimal take quadratic time. Python itself prints up to 4,300 digits.
MAX_INT_BYTES = 4096
#: Of the numerator and of the denominator: `Fraction` reduces them in quadratic time.
MAX_FRACTION_BYTES = 1024
#: Digits of a Decimal, and digits before or after its point; decimal128 of IEEE 754 has exponents up to this. `int()`
#: of a Decimal writes all its digits out, in quadratic time.
MAX_DECIMAL_DIGITS = 6144
#: The most bytes of one item of an array without items. Otherwise the size of the frames is the limit.
MAX_EMPTY_ITEM_BYTES = 65536

# Some things take a few bytes in the head and far more time or memory here. Each is charged the size that an
# honest value would have. All charges together may not exceed the size of the frames plus FREE_CHARGE.
FREE_CHARGE = 20 << 20
#: An index, a column, a Series or a DataFrame. 10,000 of them are free; after that there may be one for each 2 KiB.
OBJECT_CHARGE = 2048
#: An item of an array that takes no bytes (items of size 0, or a dimension of 0). `tolist` makes an object of each.
EMPTY_ITEM_CHARGE = 64
#: An item of a range or a RangeIndex: in a comparison numpy makes a list of it, and pandas an array. A million are
#: free. A RangeIndex is not charged where columns have as many items, because those take bytes themselves.
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


class Mark(Struct, frozen=True):
    """The head of a composite while it is being read. `decode` never returns one."""

    code: Code

"""Values that no encoder makes: the head of a value as msgpack, written by hand.

`head()` makes the bytes; `control` is the same attack on the library itself, as code of `main`, for a plain process.
Its value shows that the bytes are what they claim, or the process dies of it (`dies`). Only data.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import msgpack

from pool.values.codes import Code

#: Numbers that are equal modulo this have one hash, whatever their type.
MODULUS = sys.hash_info.modulus
#: In front of each job: the encoder in the child is replaced.
CODE = """
def main(*given):
    for kind in object.__subclasses__() + Exception.__subclasses__():
        names = getattr(kind.__init__, "__globals__", {})
        if hasattr(names.get("values"), "encode"):
            names["values"].encode = lambda *_, **__: list(given)
"""


@dataclass(frozen=True, slots=True)
class Forged:
    title: str
    head: Callable[[], bytes]
    control: str
    dies: bool = False  #: the control's process dies of SIGFPE


def _mark(code: int, *parts: object) -> list[object]:
    return [msgpack.ExtType(code, b""), *parts]


def _pack(tree: object) -> bytes:
    return msgpack.packb(tree)


def _moment(dtype: str, payload: bytes = bytes(8)) -> list[object]:
    return _mark(Code.SCALAR, dtype, payload)


def _big(number: int) -> object:
    size = number.bit_length() // 8 + 1
    return msgpack.ExtType(Code.BIG_INT, number.to_bytes(size, "little", signed=True)) if number >> 63 else number


def _colliding_ints(count: int) -> list[object]:
    return [msgpack.ExtType(Code.DECIMAL, b"3"), *(_big(3 + at * MODULUS) for at in range(1, count))]


def _colliding_fractions(groups: int, count: int) -> list[object]:
    def fraction(group: int, at: int) -> list[object]:
        return _mark(Code.FRACTION, _big(group + 1 + at * MODULUS), 1)

    return [_mark(Code.TUPLE, fraction(group, at)) for group in range(groups) for at in range(count)]


def _overlapping(fields: int, records: int) -> bytes:
    dtype = [1, *([f"f{number}", "|b1", 0, None] for number in range(fields))]
    return _pack(_mark(Code.ARRAY, dtype, [records], "C", bytes(records)))


def _empty_series() -> list[object]:
    return _mark(Code.SERIES, _mark(Code.ARRAY, "<f8", [0], "C", b""), _mark(Code.RANGE_INDEX, 0, 0, 1, None), None)


_DIVIDE = """
def main():
    import numpy as np
    zero = np.frombuffer(bytes(8), {first!r})[0]
    return len({{zero, np.frombuffer(bytes(8), {second!r})[0]}})
"""
_STEPS = """
def main():
    class Key(int):
        compared = 0
        def __hash__(self): return 3
        def __eq__(self, other):
            Key.compared += 1
            return int(self) == int(other)
    counts = []
    for size in (200, 400):
        Key.compared = 0
        set(map(Key, range(size)))
        counts.append(Key.compared)
    return counts[1] / counts[0] > 3
"""
_HASHES = """
def main():
    import sys
    from decimal import Decimal
    from fractions import Fraction
    modulus = sys.hash_info.modulus
    numbers = [Decimal(3), *(3 + at * modulus for at in range(1, 99)), *(Fraction(3 + at * modulus) for at in range(1, 99))]
    tuples = [(Fraction(3 + at * modulus),) for at in range(99)]
    return len(set(map(hash, numbers))) == len(set(map(hash, tuples))) == 1
"""
_PRODUCT = """
def main():
    import numpy as np
    fields = [f"f{at}" for at in range(1000)]
    dtype = np.dtype({"names": fields, "formats": ["?"] * 1000, "offsets": [0] * 1000, "itemsize": 1})
    array = np.zeros(40_000, dtype)
    return array.nbytes == 40_000 and sum(array[name].size for name in fields) == 40_000_000
"""
_DEAR = """
def main():
    import time
    import pandas as pd
    def cost(make):
        start = time.perf_counter()
        for _ in range(2000):
            make()
        return time.perf_counter() - start
    return cost(lambda: pd.Series([], dtype=float)) > 20 * cost(list)
"""

FORGED = (
    Forged("a time unit of zero beside another, in a set",
           lambda: _pack(_mark(Code.SET, _moment("<M8[0s]"), _moment("<M8[s]"))),
           _DIVIDE.format(first="<M8[0s]", second="<M8[s]"), dies=True),
    Forged("a time unit of zero beside days", lambda: _pack(_mark(Code.SET, _moment("<M8[0s]"), _moment("<M8[D]"))),
           _DIVIDE.format(first="<M8[0s]", second="<M8[D]"), dies=True),
    Forged("a span without a unit beside one of zero", lambda: _pack(_mark(Code.SET, _moment("<m8[0s]"), _moment("<m8[s]"))),
           _DIVIDE.format(first="<m8[0s]", second="<m8[s]"), dies=True),
    Forged("a time unit of zero alone", lambda: _pack(_moment("<M8[0s]")),
           _DIVIDE.format(first="<M8[0s]", second="<M8[s]"), dies=True),
    Forged("a set of colliding numbers", lambda: _pack(_mark(Code.SET, *_colliding_ints(40_000))), _HASHES),
    Forged("a dict of colliding numbers",
           lambda: _pack(_mark(Code.DICT, *(part for key in _colliding_ints(40_000) for part in (key, None)))), _STEPS),
    Forged("fields of a record that share one byte", lambda: _overlapping(1000, 400_000), _PRODUCT),
    Forged("colliding tuples of fractions", lambda: _pack(_mark(Code.SET, *_colliding_fractions(1000, 200))), _HASHES),
    Forged("200,000 empty series", lambda: _pack([_empty_series()] * 200_000), _DEAR),
)  # fmt: skip

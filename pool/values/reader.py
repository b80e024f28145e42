"""The input of `decode`: hooks that msgpack calls while it parses, and the buffers of the other frames.

Everything here works on hostile bytes. Readers of single types are functions over parts that were themselves decoded;
they check the type of each part they use, and may raise anything: `decode` turns it into ValueCodecError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from pool.values.codes import FREE_CHARGE, MAX_DEPTH, RANGE_ITEM_CHARGE, Code, Mark

T = TypeVar("T")

Buffer = bytes | bytearray | memoryview
LeafFn = Callable[[bytes], object]
ReadFn = Callable[["Reader", list[Any]], object]

_MARKS: dict[int, Mark] = {code: Mark(code) for code in Code}


class Reader:
    def __init__(
        self, buffers: Sequence[Buffer], leaves: Mapping[int, LeafFn], composites: Mapping[int, ReadFn], *, size: int
    ) -> None:
        self._buffers: dict[int, Buffer] = dict(enumerate(buffers, start=1))
        self._leaves = leaves
        self._composites = composites
        self._open_marks = 0
        self.size = size  #: bytes of all frames
        self._allowance = size + FREE_CHARGE
        self._range_items = 0

    def charge(self, count: int) -> None:
        """Count what costs more than its bytes suggest (see codes.py). Raises ValueError if it is too much."""
        self._allowance -= count
        if self._allowance < 0:
            self._refuse_charge()

    def _refuse_charge(self) -> NoReturn:
        raise ValueError("too many small pandas objects, empty arrays or long ranges for the size of the value")

    def count_range(self, items: int) -> None:
        """Count the items of a RangeIndex, which `finish` charges. They are taken back, as a negative number, where a
        column has as many items of its own. Raises ValueError for more than such columns could have in these frames.
        """
        self._range_items += items
        if self._range_items > self.size + FREE_CHARGE // RANGE_ITEM_CHARGE:
            self._refuse_charge()

    def on_ext(self, code: int, payload: bytes) -> object:
        leaf = self._leaves.get(code)
        if leaf is not None:
            return leaf(payload)
        if code not in _MARKS or payload:
            raise ValueError(f"unknown code {code}")
        self._open_marks += (
            1  # a mark comes before its composite, so this is the number of composites around this place
        )
        if self._open_marks > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        return _MARKS[code]

    def on_list(self, items: list[Any]) -> object:
        if items and type(items[0]) is Mark:
            self._open_marks -= 1
            return self._composites[items[0].code](self, items[1:])
        return items

    def take(self, number: int) -> Buffer:
        """The buffer of an array. Each can be taken once; otherwise a few bytes could ask for many copies of it."""
        return self._buffers.pop(number)

    def finish(self) -> None:
        """Raise unless every mark headed a composite, every buffer was used, and ranges are not too long."""
        if self._open_marks:
            raise ValueError("a mark that heads no array")
        if self._buffers:
            raise ValueError(f"{len(self._buffers)} frames belong to no array")
        self.charge(RANGE_ITEM_CHARGE * self._range_items)


def exact_ints(parts: Sequence[object], count: int) -> list[int]:
    """The parts, which must be this many ints."""
    if len(parts) != count or not {int}.issuperset(map(type, parts)):
        raise ValueError(f"{count} ints expected")
    return list(parts)  # type: ignore[arg-type]


def exact(kind: type[T], value: object) -> T:
    """The value, which must be of this very type."""
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected")
    return value

"""list, tuple, dict, set, frozenset, range, slice; their subclasses (defaultdict, Counter, …) travel as their base."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from pool.values.codes import RANGE_ITEM_CHARGE, Code
from pool.values.collisions import check_dict_keys, check_set_items
from pool.values.reader import Reader, ReadFn, exact_ints
from pool.values.writer import WriteFn, Writer


def _write_list(writer: Writer, value: list[object]) -> None:
    if type(value) is list and writer.try_plain(value):
        return
    writer.array(value, list.__iter__(value), count=list.__len__(value))


def _write_dict(writer: Writer, value: dict[object, object]) -> None:
    if type(value) is dict and writer.try_plain(value):
        return
    writer.mapping(value, dict.items(value), count=dict.__len__(value))


def _write_ordered_dict(writer: Writer, value: OrderedDict[object, object]) -> None:
    # `dict.items` of it would give the order of insertion, not that after move_to_end().
    writer.mapping(value, OrderedDict.items(value), count=dict.__len__(value))


def _write_tuple(writer: Writer, value: tuple[object, ...]) -> None:
    writer.array(value, tuple.__iter__(value), count=tuple.__len__(value), code=Code.TUPLE)


def _write_set(writer: Writer, value: set[object]) -> None:
    writer.array(value, set.__iter__(value), count=set.__len__(value), code=Code.SET)


def _write_frozenset(writer: Writer, value: frozenset[object]) -> None:
    writer.array(value, frozenset.__iter__(value), count=frozenset.__len__(value), code=Code.FROZENSET)


def _write_range(writer: Writer, value: range) -> None:
    writer.charge(RANGE_ITEM_CHARGE * range_length(value))
    writer.composite(value, Code.RANGE, start=value.start, stop=value.stop, step=value.step)


def _write_slice(writer: Writer, value: slice) -> None:
    writer.composite(value, Code.SLICE, start=value.start, stop=value.stop, step=value.step)


def _read_tuple(_reader: Reader, parts: list[Any]) -> tuple[object, ...]:
    return tuple(parts)


def _read_set(_reader: Reader, parts: list[Any]) -> set[object]:
    check_set_items(parts)
    return set(parts)


def _read_frozenset(_reader: Reader, parts: list[Any]) -> frozenset[object]:
    check_set_items(parts)
    return frozenset(parts)


def _read_dict(_reader: Reader, parts: list[Any]) -> dict[object, object]:
    keys = parts[::2]
    check_dict_keys(keys)
    return dict(zip(keys, parts[1::2], strict=True))


def _read_range(reader: Reader, parts: list[Any]) -> range:
    found = range(*exact_ints(parts, 3))
    reader.charge(RANGE_ITEM_CHARGE * range_length(found))
    return found


def range_length(value: range) -> int:
    """`len`, which raises OverflowError for a range of more than 63 bits."""
    return max(0, (value.stop - value.start + value.step - (1 if value.step > 0 else -1)) // value.step)


def _read_slice(_reader: Reader, parts: list[Any]) -> slice:
    start, stop, step = parts
    return slice(start, stop, step)


WRITERS: dict[type, WriteFn] = {
    list: _write_list,
    dict: _write_dict,
    OrderedDict: _write_ordered_dict,
    tuple: _write_tuple,
    set: _write_set,
    frozenset: _write_frozenset,
    range: _write_range,
    slice: _write_slice,
}
READERS: dict[int, ReadFn] = {
    Code.TUPLE: _read_tuple,
    Code.SET: _read_set,
    Code.FROZENSET: _read_frozenset,
    Code.DICT: _read_dict,
    Code.RANGE: _read_range,
    Code.SLICE: _read_slice,
}

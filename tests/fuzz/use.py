"""What a program may do with a value: print, compare, hash, sort, compute and pickle it.

`use` raises nothing for errors that honest values can have as well (two types that have no order, a sum that is out of
range). Everything else comes out, and a crash of native code ends the process, which libFuzzer reports.
"""

import copy
import datetime as dt
import functools
import operator
import pickle
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

#: What an operation on honest values of these types may raise.
HONEST = (
    TypeError, ValueError, ArithmeticError, LookupError, NotImplementedError, AttributeError, RecursionError,
    AssertionError, pickle.PicklingError, pd.errors.InvalidIndexError,
)  # fmt: skip
_ITEMS = 6
_DEPTH = 4
_ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.truediv)
_NUMBERS = (float, complex, Decimal, Fraction, dt.timedelta, dt.date, np.generic, pd.Timestamp, pd.Timedelta, pd.Period)


def use(value: Any, honest: dict[type, Any]) -> None:
    """Do everything with the value, and with what is in it; `honest` has a value of each type to compare with."""
    attempt(hash, value)
    _show(value)
    attempt(operator.eq, value, value)
    attempt(lambda: pickle.loads(pickle.dumps(value)))
    _use(value, honest, _DEPTH)


def attempt(operation: Callable[..., Any], *operands: Any) -> Any:
    try:
        return operation(*operands)
    except HONEST:
        return None


def _show(value: Any) -> None:
    """Every value can be printed, but for what is nested as deep as Python can go, and ints over its limit of digits."""
    try:
        repr(value)
    except RecursionError:
        return
    except ValueError as error:
        if str(error) != _too_many_digits():
            raise


@functools.cache
def _too_many_digits() -> str:
    """What this Python says of an int that has more digits than it prints."""
    try:
        return str(1 << 20_000)
    except ValueError as error:
        return str(error)


def _use(value: Any, honest: dict[type, Any], depth: int) -> None:
    kind = type(value)
    other = honest.get(kind, value)
    if kind in _CONTAINERS:
        _use_container(value, honest, depth)
        return
    attempt(hash, value)
    attempt(operator.eq, value, other)
    attempt(operator.lt, value, other)
    if isinstance(value, _NUMBERS):
        for operation in _ARITHMETIC:
            attempt(operation, value, other)
        attempt(str, value)
    for base, uses in _USES.items():
        if isinstance(value, base):
            uses(value, other)


def _use_container(value: Any, honest: dict[type, Any], depth: int) -> None:
    items: list[Any] = [*value, *value.values()] if type(value) is dict else list(value)
    attempt(sorted, items)
    attempt(copy.copy, value)
    if type(value) is dict:
        attempt(dict, value.items())
    if depth:
        for item in items[:_ITEMS]:
            _use(item, honest, depth - 1)


def _use_array(array: Any, other: Any) -> None:
    _show(array)
    attempt(array.tolist)
    attempt(np.sort, array.reshape(-1))
    attempt(hash, array.dtype)
    _show(array.dtype)
    attempt(array.astype, other.dtype)
    for operation in (operator.eq, operator.lt, operator.add, operator.sub, operator.floordiv):
        attempt(operation, array, array)
    attempt(operator.eq, array, other)
    attempt(np.unique, array)
    attempt(array.sum)
    if array.size and array.dtype.names is not None:
        attempt(hash, array.reshape(-1)[0])


def _use_generic(value: Any, other: Any) -> None:
    attempt(value.item)
    attempt(int, value)
    _show(value)
    attempt(value.astype, other.dtype)
    attempt(np.result_type, value.dtype, other.dtype)


def _use_index(index: Any, other: Any) -> None:
    _show(index)
    for operation in (operator.eq, operator.lt, operator.add, operator.sub):
        attempt(operation, index, index)
    attempt(lambda: index.is_unique)
    attempt(lambda: index.get_loc(index[0]))
    attempt(index.sort_values)
    attempt(index.equals, other)
    attempt(lambda: index.append(other))


def _use_column(column: Any, other: Any) -> None:
    _show(column)
    for operation in (operator.eq, operator.lt, operator.add, operator.sub):
        attempt(operation, column, column)
    attempt(operator.eq, column, other)
    attempt(list, column[:3])
    attempt(column.isna)
    attempt(column.argsort)


def _use_series(series: Any, other: Any) -> None:
    _use_column(series, other)
    attempt(series.sort_values)
    attempt(series.sort_index)
    _use_index(series.index, other.index)


def _use_frame(frame: Any, other: Any) -> None:
    _show(frame)
    attempt(operator.eq, frame, frame)
    attempt(operator.add, frame, frame)
    attempt(frame.equals, other)
    attempt(frame.sort_index)
    if frame.size:
        attempt(frame.iloc[:, 0].sort_values)
        attempt(frame.iloc.__getitem__, 0)
        attempt(frame.__getitem__, frame.columns[0])
    _use_index(frame.index, other.index)


def _use_number(value: Any, _other: Any) -> None:
    for operation in (int, float, abs, operator.neg):
        attempt(operation, value)
    attempt(operator.eq, value, Decimal(1))
    attempt(operator.lt, value, Decimal(1))
    attempt(operator.mul, value, value)


def _use_moment(value: Any, _other: Any) -> None:
    attempt(str, value)
    attempt(value.utcoffset)
    attempt(value.isoformat)
    attempt(lambda: value.astimezone(dt.UTC))


def _use_slice(value: slice, _other: Any) -> None:
    attempt(value.indices, 10)


_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
_USES: dict[Any, Callable[[Any, Any], None]] = {
    np.ndarray: _use_array,
    np.generic: _use_generic,
    pd.DataFrame: _use_frame,
    pd.Series: _use_series,
    pd.Index: _use_index,
    pd.api.extensions.ExtensionArray: _use_column,
    (int, Decimal, Fraction): _use_number,
    (dt.datetime, dt.time): _use_moment,
    slice: _use_slice,
}


def honest_values(values: Iterable[Any]) -> dict[type, Any]:
    """One value of each type that is in these values."""
    found: dict[type, Any] = {}
    level = list(values)
    while level:
        for value in level:
            found.setdefault(type(value), value)
        nested = [value for value in level if type(value) in _CONTAINERS]
        level = [item for value in nested for item in ([*value, *value.values()] if type(value) is dict else value)]
    return found

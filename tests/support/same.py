"""`same` compares bit by bit where Python's `==` is too kind: types, NaN, signed zeros, dtypes, order of keys, frequency."""

import datetime as dt
import math
import struct
from decimal import Decimal

import numpy as np
import pandas as pd


def same(one, two) -> bool:
    if type(one) is not type(two):
        return False
    for kinds, compare in COMPARISONS:
        if isinstance(one, kinds):
            return compare(one, two)
    return one == two


def _same_items(one, two):
    return len(one) == len(two) and all(map(same, one, two))


def _same_dicts(one, two):
    return _same_items(list(one), list(two)) and _same_items(list(one.values()), list(two.values()))


def _same_sets(one, two):
    return len(one) == len(two) and all(any(same(item, other) for other in two) for item in one)


def _same_times(one, two):
    return one == two and one.fold == two.fold and same(one.tzinfo, two.tzinfo)


def _same_zones(one, two):
    return one == two and one.tzname(None) == two.tzname(None)


def _same_arrays(one, two):
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    if one.dtype.names is not None:  # bytes between the fields have no meaning
        return all(_same_arrays(one[name], two[name]) for name in one.dtype.names)
    if one.dtype.kind in "OT":
        return _same_items(one.ravel().tolist(), two.ravel().tolist())
    return _bytes(one) == _bytes(two)


def _bytes(array):
    """Of a long double the 80 bits that count."""
    if array.dtype.char not in "gG":
        return array.tobytes()
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))
    return native.reshape(-1).view(np.uint8).reshape(-1, np.dtype("g").itemsize)[:, :10].tobytes()


def _same_generic(one, two):
    return _same_arrays(np.asarray(one), np.asarray(two)) and (not isinstance(one, str) or str(one) == str(two))


def _same_index(one, two):
    if not same(list(one.names), list(two.names)) or getattr(one, "freq", None) != getattr(two, "freq", None):
        return False
    if isinstance(one, pd.RangeIndex):  # it may be longer than memory
        return (one.start, one.stop, one.step) == (two.start, two.stop, two.step)
    if isinstance(one, pd.MultiIndex):
        return _same_items(list(one.levels), list(two.levels)) and _same_items(
            [np.asarray(codes) for codes in one.codes], [np.asarray(codes) for codes in two.codes]
        )
    return _same_columns(one, two)


def _same_columns(one, two):
    if isinstance(one.dtype, np.dtype):
        return _same_arrays(one.to_numpy(), two.to_numpy())
    if isinstance(one.dtype, pd.CategoricalDtype) and not same(one.dtype.categories, two.dtype.categories):
        return False
    return type(one.array) is type(two.array) and one.dtype == two.dtype and _same_items(list(one), list(two))


def _same_extensions(one, two):
    return _same_columns(pd.Series(one), pd.Series(two))


def _same_frames(one, two):
    if not (_same_index(one.index, two.index) and _same_index(one.columns, two.columns)):
        return False
    kinds = list(dict.fromkeys([*one.dtypes, *two.dtypes]))
    if len(kinds) == 1 and isinstance(kinds[0], np.dtype) and kinds[0].kind in "biufcmM":
        return _same_arrays(one.to_numpy(), two.to_numpy())
    return one.shape == two.shape and all(_same_series(one.iloc[:, at], two.iloc[:, at]) for at in range(one.shape[1]))


def _same_series(one, two):
    return _same_columns(one, two) and _same_index(one.index, two.index) and same(one.name, two.name)


COMPARISONS = [
    (np.ndarray, _same_arrays),
    (np.generic, _same_generic),
    (pd.DataFrame, _same_frames),
    (pd.Series, _same_series),
    (pd.Index, _same_index),
    (pd.api.extensions.ExtensionArray, _same_extensions),
    (type(pd.NaT), lambda _one, _two: True),
    (type(pd.NA), lambda _one, _two: True),
    (pd.Timestamp, lambda one, two: _same_times(one, two) and one.unit == two.unit),
    (pd.Timedelta, lambda one, two: one == two and one.unit == two.unit),
    (float, lambda one, two: struct.pack("d", one) == struct.pack("d", two) or (math.isnan(one) and math.isnan(two))),
    (complex, lambda one, two: same(one.real, two.real) and same(one.imag, two.imag)),
    (Decimal, lambda one, two: one.as_tuple() == two.as_tuple()),
    ((dt.datetime, dt.time), _same_times),
    (dt.timezone, _same_zones),
    (slice, lambda one, two: all(same(getattr(one, at), getattr(two, at)) for at in ("start", "stop", "step"))),
    (dict, _same_dicts),
    ((list, tuple), _same_items),
    ((set, frozenset), _same_sets),
]

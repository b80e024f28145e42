"""pandas Index, Series and DataFrame, with their names. `attrs` and flags stay behind.

[INDEX, values, name, freq]               freq of a time index, where it can be written as text
[RANGE_INDEX, start, stop, step, name]    [MULTI_INDEX, levels, codes, names]
[SERIES, values, index, name]             [FRAME, columns, index, labels]
[MATRIX_FRAME, values, index, labels]     when all columns have one numpy dtype: one array, mostly without a copy
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from pool.values.codes import OBJECT_CHARGE, RANGE_ITEM_CHARGE, Code
from pool.values.columns import check_column_dtype, check_lookup, exact_column, hashed, small, values_of
from pool.values.reader import Reader, ReadFn, exact, exact_ints
from pool.values.stamps import exact_freq
from pool.values.writer import RefusalError, WriteFn, Writer, key_step

_MATRIX_KINDS = frozenset("biufcmM")
#: pandas checks a frequency by generating the times one by one, unless it is a fixed span.
_MAX_FREQ_LENGTH = 100_000
#: The most levels of a MultiIndex, as numpy's most dimensions.
_MAX_LEVELS = 64
#: A RangeIndex is three numbers of 64 bits.
_MAX_RANGE = 1 << 62


class Columns(NamedTuple):
    """The columns of a frame, written as the list of their arrays. Error paths name them by their labels."""

    arrays: list[Any]
    labels: Any


@cache
def writers() -> dict[type, WriteFn]:
    import pandas as pd

    return {
        pd.RangeIndex: _write_range,
        pd.MultiIndex: _write_multi,
        pd.Index: _write_index,
        pd.Series: _write_series,
        pd.DataFrame: _write_frame,
    }


def _write_index(writer: Writer, index: Any) -> None:
    writer.charge(OBJECT_CHARGE)
    writer.composite(index, Code.INDEX, values=values_of(index), name=index.name, freq=_freq_of(index))


def _freq_of(index: Any) -> str | None:
    """The frequency as text, if that is all of it: text leaves out the calendar of custom business days."""
    import pandas as pd
    from pandas.tseries.frequencies import to_offset

    if not isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex) or index.freq is None:
        return None
    text = str(index.freqstr)
    try:
        same = to_offset(text) == index.freq
        return exact_freq(text) if same and len(index) <= _MAX_FREQ_LENGTH else None
    except ValueError:
        return None


def _write_range(writer: Writer, index: Any) -> None:
    writer.charge(OBJECT_CHARGE + RANGE_ITEM_CHARGE * len(index))
    writer.composite(index, Code.RANGE_INDEX, start=index.start, stop=index.stop, step=index.step, name=index.name)


def _write_multi(writer: Writer, index: Any) -> None:
    if len(index.levels) > _MAX_LEVELS:
        raise RefusalError(f"a MultiIndex may have {_MAX_LEVELS} levels; carry its columns", kind=type(index))
    writer.charge(OBJECT_CHARGE * len(index.levels))
    codes = [codes.view() for codes in index.codes]
    writer.composite(index, Code.MULTI_INDEX, levels=list(index.levels), codes=codes, names=list(index.names))


def _write_series(writer: Writer, series: Any) -> None:
    writer.charge(OBJECT_CHARGE - RANGE_ITEM_CHARGE * _range_items(series.index))
    writer.composite(series, Code.SERIES, values=values_of(series), index=series.index, name=series.name)


def _write_frame(writer: Writer, frame: Any) -> None:
    import numpy as np

    found = list(dict.fromkeys(frame.dtypes))
    if len(found) == 1 and isinstance(found[0], np.dtype) and found[0].kind in _MATRIX_KINDS:
        if frame.size * found[0].itemsize > writer.left:
            writer.over_limit()
        code, values = Code.MATRIX_FRAME, frame.to_numpy()
        writer.charge(0 if frame.size else OBJECT_CHARGE * frame.shape[1])
    else:
        arrays = [values_of(frame.iloc[:, at]) for at in range(len(frame.columns))]
        code, values = Code.FRAME, Columns(arrays, frame.columns)
        writer.charge(OBJECT_CHARGE * len(arrays))
    writer.charge(OBJECT_CHARGE)
    if frame.size:
        writer.charge(-RANGE_ITEM_CHARGE * _range_items(frame.index, frame.columns))
    writer.composite(frame, code, _values=values, index=frame.index, columns=frame.columns)


def write_columns(writer: Writer, columns: Columns) -> None:
    arrays, labels = columns
    writer.array(arrays, arrays, count=len(arrays), step=lambda at: key_step(labels[at : at + 1].tolist()[0]))


def _read_index(reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    reader.charge(OBJECT_CHARGE)
    values, name, freq = parts
    array = exact_column(values)
    if freq is None:
        index = pd.Index(array, dtype=array.dtype, name=name, tupleize_cols=False)
        check_lookup(index)
        return index
    if array.dtype.kind not in "mM":
        raise TypeError("only times have a frequency")
    if len(array) > _MAX_FREQ_LENGTH:
        raise ValueError("too long an index to have a frequency")
    kind = pd.TimedeltaIndex if array.dtype.kind == "m" else pd.DatetimeIndex
    return kind(array, freq=exact_freq(freq), name=name)


def _read_range(reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    *numbers, name = parts
    if any(abs(number) > _MAX_RANGE for number in exact_ints(numbers, 3)):
        raise ValueError("a range of more than 64 bits")
    found = range(*numbers)
    reader.charge(OBJECT_CHARGE)
    reader.count_range(len(found))
    return pd.RangeIndex(found, name=name)


def _range_items(*indexes: Any) -> int:
    """The number of items of those labels that are ranges."""
    import pandas as pd

    return sum(len(index) for index in indexes if isinstance(index, pd.RangeIndex))


def _read_multi(reader: Reader, parts: list[Any]) -> object:
    import numpy as np
    import pandas as pd

    levels, codes, names = (exact(list, part) for part in parts)
    reader.charge(OBJECT_CHARGE * len(levels))
    if not 0 < len(levels) == len(codes) == len(names) <= _MAX_LEVELS:
        raise ValueError("levels, codes and names of different numbers")
    if not all(isinstance(hashed(small(level)), pd.Index) and not isinstance(level, pd.MultiIndex) for level in levels):
        raise TypeError("a level is an index")
    if not all(exact(np.ndarray, array).dtype.kind == "i" and array.ndim == 1 for array in codes):
        raise TypeError("the codes of a level are ints")
    return pd.MultiIndex(levels=levels, codes=codes, names=names)


def _exact_index(value: object) -> Any:
    import pandas as pd

    if not isinstance(value, pd.Index):
        raise TypeError("an index expected")
    return value


def _read_series(reader: Reader, parts: list[Any]) -> object:
    reader.charge(OBJECT_CHARGE)
    values, index, name = parts
    series = _series(exact_column(values), _exact_index(index), name=name)
    reader.count_range(-_range_items(index))
    return series


def _series(array: Any, index: Any, *, name: object = None) -> Any:
    import pandas as pd

    if len(array) != len(index):  # an array of one item would be repeated along the index
        raise ValueError("a column of another length than its index")
    return pd.Series(array, index=index, name=name, dtype=array.dtype, copy=False)


def _read_frame(reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    reader.charge(OBJECT_CHARGE * (1 + len(exact(list, parts[0]))))
    arrays, index, labels = exact(list, parts[0]), _exact_index(parts[1]), _exact_index(parts[2])
    if len(parts) != 3 or len(arrays) != len(labels):
        raise ValueError("another number of columns than of labels")
    columns = {at: _series(exact_column(array), index) for at, array in enumerate(arrays)}
    frame = pd.DataFrame(columns, index=index, copy=False)
    frame.columns = labels
    _take_back(reader, frame)
    return frame


def _read_matrix_frame(reader: Reader, parts: list[Any]) -> object:
    import numpy as np
    import pandas as pd

    reader.charge(OBJECT_CHARGE)
    values, index, labels = parts
    array = exact(np.ndarray, values)
    check_column_dtype(array.dtype)
    if array.dtype.kind not in _MATRIX_KINDS or array.shape != (len(_exact_index(index)), len(_exact_index(labels))):
        raise ValueError("a frame of another shape than its labels")
    reader.charge(0 if array.size else OBJECT_CHARGE * array.shape[1])
    frame = pd.DataFrame(array, index=index, columns=labels, copy=False)
    _take_back(reader, frame)
    return frame


def _take_back(reader: Reader, frame: Any) -> None:
    if frame.size:
        reader.count_range(-_range_items(frame.index, frame.columns))


READERS: dict[int, ReadFn] = {
    Code.INDEX: _read_index,
    Code.RANGE_INDEX: _read_range,
    Code.MULTI_INDEX: _read_multi,
    Code.SERIES: _read_series,
    Code.FRAME: _read_frame,
    Code.MATRIX_FRAME: _read_matrix_frame,
}

"""The pandas arrays behind a column or an index: categorical, string, nullable, zoned times, periods, intervals.

[CATEGORICAL, codes, categories, ordered]      [ZONED, times in UTC, zone]
[STRINGS, items, storage, missing is NA]       [PERIODS, ordinals, freq]
[MASKED, values, mask]                         [INTERVALS, left, right, closed]
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pool.values.codes import MAX_EMPTY_ITEMS, Code
from pool.values.reader import Reader, ReadFn, exact
from pool.values.stamps import exact_freq, exact_side
from pool.values.writer import RefusalError, WriteFn, Writer

_TEXTS = frozenset({str, type(None)})
#: What pandas holds in a column as it is; it would turn text and records of numpy into objects.
_COLUMN_KINDS = "biufcmM"


@cache
def writers() -> dict[type, WriteFn]:
    import pandas as pd

    return {
        pd.Categorical: _write_categorical,
        pd.arrays.StringArray: _write_strings,
        pd.arrays.ArrowStringArray: _write_strings,
        pd.arrays.IntegerArray: _write_masked,
        pd.arrays.FloatingArray: _write_masked,
        pd.arrays.BooleanArray: _write_masked,
        pd.arrays.DatetimeArray: _write_times,
        pd.arrays.TimedeltaArray: _write_numpy,
        pd.arrays.NumpyExtensionArray: _write_numpy,
        pd.arrays.PeriodArray: _write_periods,
        pd.arrays.IntervalArray: _write_intervals,
        pd.api.extensions.ExtensionArray: _refuse,
    }


def values_of(column: Any) -> Any:
    """The array of a Series or an Index: numpy's where it is one of numpy's, else the pandas array."""
    import numpy as np

    return column.to_numpy() if isinstance(column.dtype, np.dtype) else column.array


def exact_column(value: object) -> Any:
    """A decoded part that may stand as a column: one-dimensional, of a kind that pandas keeps as it is."""
    import numpy as np
    import pandas as pd

    if isinstance(value, pd.api.extensions.ExtensionArray):
        return value
    array = exact(np.ndarray, value)
    if array.ndim != 1 or array.dtype.kind not in _COLUMN_KINDS + "O":
        raise ValueError("not a column")
    return array


def small(index: Any) -> Any:
    """An index that is looked into, as categories and levels are: not a range of any length out of three numbers."""
    import pandas as pd

    if isinstance(index, pd.RangeIndex) and len(index) > MAX_EMPTY_ITEMS:
        raise ValueError("too long a range")
    return index


def _refuse(_writer: Writer, value: Any) -> None:
    raise RefusalError(
        f"a column of dtype {str(value.dtype)[:60]} cannot be carried; convert it with .astype()", kind=type(value)
    )


def _write_numpy(writer: Writer, value: Any) -> None:
    writer.write(value.to_numpy())


def _write_categorical(writer: Writer, value: Any) -> None:
    import pandas as pd

    categories = value.categories
    if isinstance(categories, pd.RangeIndex) and len(categories) > MAX_EMPTY_ITEMS:
        categories = pd.Index(categories.to_numpy(), name=categories.name)
    writer.composite(value, Code.CATEGORICAL, codes=value.codes, categories=categories, ordered=bool(value.ordered))


def _write_strings(writer: Writer, value: Any) -> None:
    import pandas as pd

    items = value.to_numpy(dtype=object, na_value=None).tolist()
    dtype = value.dtype
    writer.composite(value, Code.STRINGS, items=items, storage=dtype.storage, nullable=dtype.na_value is pd.NA)


def _write_masked(writer: Writer, value: Any) -> None:
    import numpy as np

    numbers = value.to_numpy(dtype=value.dtype.numpy_dtype, na_value=0)
    writer.composite(value, Code.MASKED, values=numbers, mask=np.asarray(value.isna()))


def _write_times(writer: Writer, value: Any) -> None:
    if value.tz is None:
        writer.write(value.to_numpy())
        return
    naive = value.tz_convert("UTC").tz_localize(None).to_numpy()
    writer.composite(value, Code.ZONED, times=naive, tz=value.tz)


def _write_periods(writer: Writer, value: Any) -> None:
    import pandas as pd

    writer.composite(value, Code.PERIODS, ordinals=pd.PeriodIndex(value).asi8, freq=value.freqstr)


def _write_intervals(writer: Writer, value: Any) -> None:
    writer.composite(value, Code.INTERVALS, left=value.left, right=value.right, closed=value.closed)


def _read_categorical(_reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    codes, categories, ordered = parts
    if not isinstance(categories, pd.Index) or exact_column(codes).dtype.kind != "i":
        raise TypeError("not the parts of a categorical")
    return pd.Categorical.from_codes(exact_column(codes), categories=small(categories), ordered=exact(bool, ordered))


def _read_strings(_reader: Reader, parts: list[Any]) -> object:
    import numpy as np
    import pandas as pd

    items, storage, nullable = parts
    if not _TEXTS.issuperset(map(type, exact(list, items))) or storage not in {"python", "pyarrow"}:
        raise TypeError("not a column of text")
    missing = pd.NA if exact(bool, nullable) else np.nan
    return pd.array(exact(list, items), dtype=_string_dtype(storage, missing))


def _string_dtype(storage: Any, missing: object) -> Any:
    """The dtype as the other side had it; kept in Python objects where this side lacks pyarrow."""
    import pandas as pd

    arguments: dict[str, Any] = {} if missing is pd.NA else {"na_value": missing}
    try:
        return pd.StringDtype(storage, **arguments)
    except ImportError:
        return pd.StringDtype("python", **arguments)


def _read_masked(_reader: Reader, parts: list[Any]) -> object:
    import numpy as np
    import pandas as pd

    values, mask = (exact(np.ndarray, part) for part in parts)
    kinds: dict[str, Any] = {
        "b": pd.arrays.BooleanArray,
        "i": pd.arrays.IntegerArray,
        "u": pd.arrays.IntegerArray,
        "f": pd.arrays.FloatingArray,
    }
    if values.ndim != 1 or values.shape != mask.shape:
        raise ValueError("a mask of another shape than its values")
    return kinds[values.dtype.kind](values, mask)


def _read_zoned(_reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    times, zone = parts
    if exact_column(times).dtype.kind != "M" or zone is None:
        raise TypeError("not the parts of zoned times")
    return pd.DatetimeIndex(exact_column(times)).tz_localize("UTC").tz_convert(zone).array


def _read_periods(_reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    ordinals, freq = parts
    if exact_column(ordinals).dtype != "i8":
        raise TypeError("not the parts of periods")
    index_type: Any = pd.PeriodIndex  # its stubs lack from_ordinals
    return index_type.from_ordinals(exact_column(ordinals), freq=exact_freq(freq)).array


def _read_intervals(_reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    left, right, closed = parts
    if not isinstance(left, pd.Index) or not isinstance(right, pd.Index):
        raise TypeError("not the parts of intervals")
    made = pd.arrays.IntervalArray.from_arrays(small(left), small(right), closed=exact_side(closed))
    if len(made) and made.left.dtype.kind not in "iufmM":  # pandas makes these, and can neither show nor iterate them
        raise TypeError("intervals of what has no order")
    return made


READERS: dict[int, ReadFn] = {
    Code.CATEGORICAL: _read_categorical,
    Code.STRINGS: _read_strings,
    Code.MASKED: _read_masked,
    Code.ZONED: _read_zoned,
    Code.PERIODS: _read_periods,
    Code.INTERVALS: _read_intervals,
}

"""The pandas arrays behind a column or an index: categorical, string, nullable, zoned times, periods, intervals.

[CATEGORICAL, codes, categories, ordered]      [ZONED, times in UTC, zone]
[STRINGS, items, storage, missing is NA]       [PERIODS, ordinals, freq]
[MASKED, values, mask]                         [INTERVALS, left, right, closed]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from pool.values.codes import MAX_LOOKED_INTO, OBJECT_CHARGE, Code
from pool.values.collisions import check_labels, check_numbers
from pool.values.reader import Reader, ReadFn, exact
from pool.values.stamps import check_ordinals, exact_period, exact_side, moment_bounds
from pool.values.times import exact_zone
from pool.values.writer import RefusalError, WriteFn, Writer

_TEXTS = frozenset({str, type(None)})
#: The kinds that pandas stores in a column unchanged. It would turn text and records of numpy into objects.
_COLUMN_KINDS = "biufcmM"
#: The kinds of an interval's bounds.
_ORDERED_KINDS = "iufmM"
#: numpy's dtypes of the nullable columns and of times. pandas has them in the byte order of this machine only.
_ORDER = "<" if sys.byteorder == "little" else ">"
_MASKED = frozenset({"|b1", "|i1", "|u1", *(f"{_ORDER}{kind}{size}" for kind in "iu" for size in (2, 4, 8))}) | {
    f"{_ORDER}f4", f"{_ORDER}f8",
}  # fmt: skip
_TIMES = frozenset(f"{_ORDER}{kind}8[{unit}]" for kind in "mM" for unit in ("s", "ms", "us", "ns"))


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
    """A decoded part as a column. Raises unless it is one-dimensional and of a kind that pandas stores unchanged."""
    import numpy as np
    import pandas as pd

    if isinstance(value, pd.api.extensions.ExtensionArray):
        return value
    array = exact(np.ndarray, value)
    if array.ndim != 1 or array.dtype.kind not in _COLUMN_KINDS + "O":
        raise ValueError("not a column")
    check_column_dtype(array.dtype)
    return array


def _numpy_column(value: object) -> Any:
    import numpy as np

    return exact_column(exact(np.ndarray, value))


def check_column_dtype(dtype: Any) -> None:
    """Raise ValueError for times in units or in a byte order that pandas does not have."""
    if dtype.kind in "mM" and dtype.str not in _TIMES:
        raise ValueError("not the times of a column")


def check_lookup(index: Any) -> None:
    """Raise ValueError for labels that would collide in the tables by which pandas looks them up."""
    import numpy as np

    if index.dtype == object:
        check_labels(index.to_numpy().tolist())
    if hasattr(index, "asi8"):  # of times and periods
        numbers = index.asi8
    elif isinstance(index.dtype, np.dtype):
        numbers = index.to_numpy()
    else:
        numbers = getattr(index.array, "_data", None)  # of nullable numbers
    if type(numbers) is np.ndarray and numbers.dtype.str[1:] in {"i8", "u8", "f8"} and numbers.dtype.isnative:
        check_numbers(np.ascontiguousarray(numbers))


def hashed(index: Any) -> Any:
    """An index in which pandas looks labels up (categories, levels). Raises TypeError for a label without hash."""
    if index.dtype == object:
        list(map(hash, index))
    return index


def small(index: Any) -> Any:
    """An index that pandas searches, as it does categories and levels. Raises ValueError for a long range."""
    import pandas as pd

    if isinstance(index, pd.RangeIndex) and len(index) > MAX_LOOKED_INTO:
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
    if isinstance(categories, pd.RangeIndex) and len(categories) > MAX_LOOKED_INTO:
        categories = pd.Index(categories.to_numpy(), name=categories.name)
    writer.charge(OBJECT_CHARGE)
    writer.composite(value, Code.CATEGORICAL, codes=value.codes, categories=categories, ordered=bool(value.ordered))


def _write_strings(writer: Writer, value: Any) -> None:
    import pandas as pd

    writer.charge(OBJECT_CHARGE)
    items = value.to_numpy(dtype=object, na_value=None).tolist()
    dtype = value.dtype
    writer.composite(value, Code.STRINGS, items=items, storage=dtype.storage, nullable=dtype.na_value is pd.NA)


def _write_masked(writer: Writer, value: Any) -> None:
    import numpy as np

    writer.charge(OBJECT_CHARGE)
    numbers = value.to_numpy(dtype=value.dtype.numpy_dtype, na_value=0)
    writer.composite(value, Code.MASKED, values=numbers, mask=np.asarray(value.isna()))


def _write_times(writer: Writer, value: Any) -> None:
    if value.tz is None:
        writer.write(value.to_numpy())
        return
    writer.charge(OBJECT_CHARGE)
    naive = value.tz_convert("UTC").tz_localize(None).to_numpy()
    _refuse_unless(check_years, naive, kind=type(value))
    writer.composite(value, Code.ZONED, times=naive, tz=value.tz)


def _write_periods(writer: Writer, value: Any) -> None:
    import pandas as pd

    writer.charge(OBJECT_CHARGE)
    ordinals, freq = pd.PeriodIndex(value).asi8, value.freqstr
    _refuse_unless(lambda: check_all_ordinals(exact_period(freq), ordinals), kind=type(value))
    writer.composite(value, Code.PERIODS, ordinals=ordinals, freq=freq)


def _refuse_unless(check: Callable[..., None], *arguments: object, kind: type) -> None:
    """Refuse here what `decode` would refuse, and name the type."""
    try:
        check(*arguments)
    except ValueError as error:
        raise RefusalError(f"it has {error}; carry numbers or text", kind=kind) from None


def _write_intervals(writer: Writer, value: Any) -> None:
    import pandas as pd

    writer.charge(OBJECT_CHARGE)
    ends = [pd.Index(end.to_numpy()) if isinstance(end, pd.RangeIndex) else end for end in (value.left, value.right)]
    writer.composite(value, Code.INTERVALS, left=ends[0], right=ends[1], closed=value.closed)


def _read_categorical(reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    reader.charge(OBJECT_CHARGE)
    codes, categories, ordered = parts
    if not isinstance(categories, pd.Index) or _numpy_column(codes).dtype.str not in _MASKED or codes.dtype.kind != "i":
        raise TypeError("not the parts of a categorical")
    if isinstance(categories, pd.MultiIndex | pd.CategoricalIndex):
        raise TypeError("categories of labels that have parts themselves")
    check_lookup(hashed(small(categories)))
    return pd.Categorical.from_codes(codes, categories=categories, ordered=exact(bool, ordered))


def _read_strings(reader: Reader, parts: list[Any]) -> object:
    import numpy as np
    import pandas as pd

    reader.charge(OBJECT_CHARGE)
    items, storage, nullable = parts
    if not _TEXTS.issuperset(map(type, exact(list, items))) or storage not in {"python", "pyarrow"}:
        raise TypeError("not a column of text")
    if not exact(bool, nullable) and not _has_text_with_nan():
        return np.array([np.nan if item is None else item for item in items], dtype=object)
    if nullable:
        return pd.array(exact(list, items), dtype=_string_dtype(storage))
    try:  # the storage that a column of text has here by default: columns of different storages have unequal dtypes
        return pd.array(exact(list, items), dtype=pd.StringDtype(na_value=np.nan))
    except UnicodeEncodeError:  # pyarrow has no lone surrogates
        return pd.array(exact(list, items), dtype=pd.StringDtype("python", na_value=np.nan))


def _has_text_with_nan() -> bool:
    """Pandas has it from 2.3 on. Before, its columns of text are columns of objects."""
    import numpy as np
    import pandas as pd

    try:
        pd.StringDtype("python", na_value=np.nan)
    except TypeError:
        return False
    return True


def _string_dtype(storage: Any) -> Any:
    """The dtype of the other side; stored in Python objects where pyarrow is missing here."""
    import pandas as pd

    try:
        return pd.StringDtype(storage)
    except ImportError:
        return pd.StringDtype("python")


def _read_masked(reader: Reader, parts: list[Any]) -> object:
    import numpy as np
    import pandas as pd

    reader.charge(OBJECT_CHARGE)
    values, mask = (exact(np.ndarray, part) for part in parts)
    kinds: dict[str, Any] = {
        "b": pd.arrays.BooleanArray,
        "i": pd.arrays.IntegerArray,
        "u": pd.arrays.IntegerArray,
        "f": pd.arrays.FloatingArray,
    }
    if values.ndim != 1 or values.shape != mask.shape or mask.dtype.kind != "b" or values.dtype.str not in _MASKED:
        raise ValueError("not the values and the mask of a column")
    return kinds[values.dtype.kind](values, mask)


def _read_zoned(reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    reader.charge(OBJECT_CHARGE)
    times, zone = parts
    if _numpy_column(times).dtype.kind != "M" or exact_zone(zone) is None:
        raise TypeError("not the parts of zoned times")
    check_years(times)
    return pd.DatetimeIndex(times).tz_localize("UTC").tz_convert(zone).array


def check_years(times: Any) -> None:
    """Raise ValueError for moments outside the years 1 to 9999: pandas cannot print them in a zone."""
    import numpy as np

    first, last = moment_bounds(np.datetime_data(times.dtype)[0])
    counts = times.view("i8")
    if ((counts != np.iinfo("i8").min) & ((counts < first) | (counts > last))).any():
        raise ValueError("zoned times before the year 1 or after the year 9999")


def _read_periods(reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    reader.charge(OBJECT_CHARGE)
    ordinals, freq = parts
    if _numpy_column(ordinals).dtype.str != f"{_ORDER}i8":
        raise TypeError("not the parts of periods")
    check_all_ordinals(exact_period(freq), ordinals)
    index_type: Any = pd.PeriodIndex  # its stubs lack from_ordinals
    return index_type.from_ordinals(ordinals, freq=freq).array


def check_all_ordinals(freq: str, ordinals: Any) -> None:
    """`check_ordinals` for all items that are not missing."""
    import numpy as np

    there = ordinals[ordinals != np.iinfo("i8").min]
    if len(there):
        check_ordinals(freq, int(there.min()), int(there.max()))


def _read_intervals(reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    reader.charge(OBJECT_CHARGE)
    left, right, closed = parts
    for end in (left, right):
        if not isinstance(end, pd.Index) or isinstance(end, pd.MultiIndex | pd.RangeIndex):
            raise TypeError("not the parts of intervals")  # a range would make any number of intervals of a few bytes
        if len(end) and end.dtype.kind not in _ORDERED_KINDS:  # pandas can neither print them nor iterate over them
            raise TypeError("intervals of what has no order")
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=exact_side(closed))


READERS: dict[int, ReadFn] = {
    Code.CATEGORICAL: _read_categorical,
    Code.STRINGS: _read_strings,
    Code.MASKED: _read_masked,
    Code.ZONED: _read_zoned,
    Code.PERIODS: _read_periods,
    Code.INTERVALS: _read_intervals,
}

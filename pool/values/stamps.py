"""Single pandas values: Timestamp, Timedelta, Period, Interval, NaT, NA."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from pool.values.codes import Code
from pool.values.reader import Reader, ReadFn, exact, exact_ints
from pool.values.times import exact_zone
from pool.values.writer import RefusalError, WriteFn, Writer

_UNITS = frozenset({"s", "ms", "us", "ns"})
_MONTHS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAYS = "MON|TUE|WED|THU|FRI|SAT|SUN"
_SPAN = r"D|h|min|s|ms|us|ns"
#: Frequencies of an index. pandas has more, and some of them loop over the calendar as often as their multiplier says.
_FREQ = re.compile(
    rf"-?[1-9][0-9]{{0,8}}({_SPAN})|-?({_SPAN})"
    rf"|-?([1-9][0-9]{{0,2}})?(B|W-({_DAYS})|B?ME|B?MS|B?(QE|QS|YE|YS)-({_MONTHS}))"
)
_PERIOD = re.compile(rf"([1-9][0-9]{{0,8}})?({_SPAN}|B|M|W-({_DAYS})|(Q|Y)-({_MONTHS}))")
#: The first and the last day of the years from 1 to 9999, counted from 1970, and how many periods a day has.
FIRST_DAY, LAST_DAY = -719_162, 2_932_896
A_DAY = {"D": 1, "h": 24, "min": 1440, "s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
#: The ordinals of other periods in these years, and those that 64-bit nanoseconds can express.
_ORDINALS = {
    "Y": (-1969, 8029), "Q": (-7876, 32_120), "M": (-23_628, 96_359), "W": (-102_737, 418_987),
    "B": (-513_688, 2_094_926),
    **{unit: (FIRST_DAY * count, (LAST_DAY + 1) * count - 1) for unit, count in A_DAY.items()},
    "ns": (-(1 << 63) + 1, (1 << 63) - 1),
}  # fmt: skip
_SIDES = frozenset({"left", "right", "both", "neither"})


@cache
def writers() -> dict[type, WriteFn]:
    import pandas as pd

    return {
        type(pd.NaT): _write_nat,
        type(pd.NA): _write_na,
        pd.Timestamp: _write_stamp,
        pd.Timedelta: _write_delta,
        pd.Period: _write_period,
        pd.Interval: _write_interval,
    }


def _write_nat(writer: Writer, value: object) -> None:
    writer.composite(value, Code.NAT)


def _write_na(writer: Writer, value: object) -> None:
    writer.composite(value, Code.NA)


def _write_stamp(writer: Writer, value: Any) -> None:
    count = int(value.to_datetime64().astype("i8"))
    try:
        check_moment(count, value.unit)
    except ValueError as error:
        raise RefusalError(f"{error}; carry .to_datetime64()", kind=type(value)) from None
    writer.composite(value, Code.STAMP, count=count, unit=value.unit, tz=value.tzinfo, fold=value.fold)


def _write_delta(writer: Writer, value: Any) -> None:
    count = int(value.to_timedelta64().astype("i8"))
    writer.composite(value, Code.STAMP_DELTA, count=count, unit=value.unit)


def _write_period(writer: Writer, value: Any) -> None:
    freq, ordinal = value.freqstr, int(value.ordinal)
    try:
        check_ordinals(exact_period(freq), ordinal, ordinal)
    except ValueError as error:
        raise RefusalError(f"{error}; carry its start_time", kind=type(value)) from None
    writer.composite(value, Code.PERIOD, ordinal=ordinal, freq=freq)


def _write_interval(writer: Writer, value: Any) -> None:
    writer.composite(value, Code.INTERVAL, left=value.left, right=value.right, closed=value.closed)


def exact_unit(value: object) -> Any:
    if exact(str, value) not in _UNITS:
        raise ValueError("not a unit of time")
    return exact(str, value)


def exact_freq(value: object) -> str:
    if not _FREQ.fullmatch(exact(str, value)):
        raise ValueError("not a frequency that an index can have here")
    return exact(str, value)


def exact_period(value: object) -> str:
    """The frequency of a period. Raises ValueError for one that is not in the list."""
    if not _PERIOD.fullmatch(exact(str, value)):
        raise ValueError("not a length that a period can have here")
    return exact(str, value)


def check_ordinals(freq: str, least: int, most: int) -> None:
    """Raise ValueError for periods outside the years 1 to 9999: pandas cannot print them."""
    unit = freq.lstrip("0123456789").partition("-")[0]
    first, last = _ORDINALS[unit]
    if not first <= least <= most <= last:
        raise ValueError("a period before the year 1 or after the year 9999")


def exact_side(value: object) -> Any:
    if exact(str, value) not in _SIDES:
        raise ValueError("not a side of an interval")
    return value


def moment_bounds(unit: str) -> tuple[int, int]:
    """The first and the last moment, in this unit, whose year is 1 to 9999 in every zone."""
    a_day = A_DAY[unit]
    return max((FIRST_DAY + 1) * a_day, -(1 << 63) + a_day), min(LAST_DAY * a_day, (1 << 63) - a_day)


def check_moment(count: int, unit: str) -> None:
    """Raise ValueError for a moment that pandas cannot print."""
    first, last = moment_bounds(unit)
    if not first <= count <= last:
        raise ValueError("a moment before the year 1 or after the year 9999")


def _read_nat(_reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    exact_ints(parts, 0)
    return pd.NaT


def _read_na(_reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    exact_ints(parts, 0)
    return pd.NA


def _read_stamp(_reader: Reader, parts: list[Any]) -> object:
    import numpy as np
    import pandas as pd

    count, unit, zone, fold = parts
    if exact(int, fold) not in {0, 1}:
        raise ValueError("a fold is 0 or 1")
    check_moment(exact(int, count), exact_unit(unit))
    naive = pd.Timestamp(np.datetime64(count, unit))
    if exact_zone(zone) is None:
        return naive.replace(fold=fold) if fold else naive
    return naive.tz_localize("UTC").tz_convert(zone)


def _read_delta(_reader: Reader, parts: list[Any]) -> object:
    import numpy as np
    import pandas as pd

    count, unit = parts
    return pd.Timedelta(np.timedelta64(exact(int, count), exact_unit(unit)))


def _read_period(_reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    ordinal, freq = parts
    check_ordinals(exact_period(freq), exact(int, ordinal), ordinal)
    return pd.Period(ordinal=ordinal, freq=freq)


def _read_interval(_reader: Reader, parts: list[Any]) -> object:
    import pandas as pd

    left, right, closed = parts
    return pd.Interval(left, right, closed=exact_side(closed))


READERS: dict[int, ReadFn] = {
    Code.NAT: _read_nat,
    Code.NA: _read_na,
    Code.STAMP: _read_stamp,
    Code.STAMP_DELTA: _read_delta,
    Code.PERIOD: _read_period,
    Code.INTERVAL: _read_interval,
}

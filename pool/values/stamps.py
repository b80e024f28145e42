"""Single pandas values: Timestamp, Timedelta, Period, Interval, NaT, NA."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from pool.values.codes import Code
from pool.values.reader import Reader, ReadFn, exact, exact_ints
from pool.values.writer import WriteFn, Writer

_UNITS = frozenset({"s", "ms", "us", "ns"})
_FREQ = re.compile(r"-?[0-9]{0,9}[A-Za-z][A-Za-z\-]{0,15}")
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
    writer.composite(value, Code.STAMP, count=count, unit=value.unit, tz=value.tzinfo, fold=value.fold)


def _write_delta(writer: Writer, value: Any) -> None:
    count = int(value.to_timedelta64().astype("i8"))
    writer.composite(value, Code.STAMP_DELTA, count=count, unit=value.unit)


def _write_period(writer: Writer, value: Any) -> None:
    writer.composite(value, Code.PERIOD, ordinal=int(value.ordinal), freq=value.freqstr)


def _write_interval(writer: Writer, value: Any) -> None:
    writer.composite(value, Code.INTERVAL, left=value.left, right=value.right, closed=value.closed)


def exact_unit(value: object) -> Any:
    if exact(str, value) not in _UNITS:
        raise ValueError("not a unit of time")
    return exact(str, value)


def exact_freq(value: object) -> str:
    if not _FREQ.fullmatch(exact(str, value)):
        raise ValueError("not a frequency")
    return exact(str, value)


def exact_side(value: object) -> Any:
    if exact(str, value) not in _SIDES:
        raise ValueError("not a side of an interval")
    return value


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
    naive = pd.Timestamp(np.datetime64(exact(int, count), exact_unit(unit)))
    if zone is None:
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
    return pd.Period(ordinal=exact(int, ordinal), freq=exact_freq(freq))


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

"""date, time, datetime, timedelta and the zones they carry: none, a fixed offset, or a zone by its key."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

from pool.values.codes import Code
from pool.values.reader import Reader, ReadFn, exact, exact_ints
from pool.values.writer import RefusalError, WriteFn, Writer

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

#: No dots: a key is looked up below the zone directories and, failing those, inside the package tzdata.
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+\-]{1,64}(/[A-Za-z0-9_+\-]{1,64}){0,3}")


def _write_datetime(writer: Writer, value: dt.datetime) -> None:
    clock = _clock_of(dt.datetime, value)
    year, month, day = (dt.date.__dict__[name].__get__(value) for name in ("year", "month", "day"))
    writer.composite(value, Code.DATETIME, tzinfo=clock[0], date=[year, month, day, *clock[1:]])


def _write_time(writer: Writer, value: dt.time) -> None:
    clock = _clock_of(dt.time, value)
    writer.composite(value, Code.TIME, tzinfo=clock[0], time=clock[1:])


def _clock_of(base: type, value: object) -> list[object]:
    names = ("tzinfo", "hour", "minute", "second", "microsecond", "fold")
    return [base.__dict__[name].__get__(value) for name in names]


def _write_date(writer: Writer, value: dt.date) -> None:
    year, month, day = (dt.date.__dict__[name].__get__(value) for name in ("year", "month", "day"))
    writer.composite(value, Code.DATE, year=year, month=month, day=day)


def _write_timedelta(writer: Writer, value: dt.timedelta) -> None:
    days, seconds, micros = (dt.timedelta.__dict__[name].__get__(value) for name in ("days", "seconds", "microseconds"))
    writer.composite(value, Code.TIMEDELTA, days=days, seconds=seconds, microseconds=micros)


def _write_fixed_zone(writer: Writer, value: dt.timezone) -> None:
    offset, *name = dt.timezone.__dict__["__getinitargs__"](value)
    writer.composite(value, Code.FIXED_ZONE, offset=offset, name=name[0] if name else None)


def _write_named_zone(writer: Writer, value: ZoneInfo) -> None:
    key = value.key
    if type(key) is not str or not _ZONE_KEY.fullmatch(key):
        raise RefusalError("a time zone travels by its key, and this one has none", kind=type(value))
    writer.composite(value, Code.NAMED_ZONE, key=key)


def zone_writers() -> dict[type, WriteFn]:
    from zoneinfo import ZoneInfo

    return {ZoneInfo: _write_named_zone}


def write_pytz_zone(writer: Writer, value: object) -> None:
    """A zone of pytz, which pandas 2 still makes."""
    key = getattr(value, "zone", None)
    if type(key) is not str or not _ZONE_KEY.fullmatch(key):
        raise RefusalError("convert the time zone to a zoneinfo.ZoneInfo or a datetime.timezone", kind=type(value))
    writer.composite(value, Code.PYTZ_ZONE, key=key)


def exact_zone(value: object) -> Any:
    """A decoded time zone, or None. Text is refused: pandas would open the file that it names."""
    if value is not None and not isinstance(value, dt.tzinfo):
        raise TypeError("a time zone expected")
    return value


def _read_datetime(_reader: Reader, parts: list[Any]) -> dt.datetime:
    zone, numbers = parts
    *fields, fold = exact_ints(exact(list, numbers), 8)
    year, month, day, hour, minute, second, micro = fields
    return dt.datetime(year, month, day, hour, minute, second, micro, exact_zone(zone), fold=fold)


def _read_time(_reader: Reader, parts: list[Any]) -> dt.time:
    zone, numbers = parts
    *fields, fold = exact_ints(exact(list, numbers), 5)
    hour, minute, second, micro = fields
    return dt.time(hour, minute, second, micro, exact_zone(zone), fold=fold)


def _read_date(_reader: Reader, parts: list[Any]) -> dt.date:
    return dt.date(*exact_ints(parts, 3))


def _read_timedelta(_reader: Reader, parts: list[Any]) -> dt.timedelta:
    return dt.timedelta(*exact_ints(parts, 3))


def _read_fixed_zone(_reader: Reader, parts: list[Any]) -> dt.timezone:
    offset, name = parts
    delta = exact(dt.timedelta, offset)
    return dt.timezone(delta) if name is None else dt.timezone(delta, exact(str, name))


def _read_named_zone(_reader: Reader, parts: list[Any]) -> ZoneInfo:
    (key,) = parts
    if not _ZONE_KEY.fullmatch(exact(str, key)):
        raise ValueError("not the key of a time zone")
    from zoneinfo import ZoneInfo  # takes 2 ms, and few values have zones

    return ZoneInfo(exact(str, key))


def _read_pytz_zone(reader: Reader, parts: list[Any]) -> dt.tzinfo:
    """The zone of pytz, or of zoneinfo where this side has no pytz."""
    zone = _read_named_zone(reader, parts)
    try:
        import pytz  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return zone
    found: dt.tzinfo = pytz.timezone(zone.key)
    return found


WRITERS: dict[type, WriteFn] = {
    dt.datetime: _write_datetime,
    dt.time: _write_time,
    dt.date: _write_date,
    dt.timedelta: _write_timedelta,
    dt.timezone: _write_fixed_zone,
}
READERS: dict[int, ReadFn] = {
    Code.DATETIME: _read_datetime,
    Code.TIME: _read_time,
    Code.DATE: _read_date,
    Code.TIMEDELTA: _read_timedelta,
    Code.FIXED_ZONE: _read_fixed_zone,
    Code.NAMED_ZONE: _read_named_zone,
    Code.PYTZ_ZONE: _read_pytz_zone,
}

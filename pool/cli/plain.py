"""A JobResult as one JSON object.

JSON carries less than a job may return. What it lacks is turned into the nearest it has (nan into null, an array into
lists, bytes into base64, an endless integer into hex, anything else into its repr), and `value_repr` always tells what
the value really was.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pool.model import JobResult

#: Integers beyond this are not written in decimal, which takes time that grows with the square.
MOST_BITS = 4096


def result_object(result: JobResult) -> dict[str, object]:
    described = {field.name: plain(getattr(result, field.name)) for field in fields(result)}
    return {**described, "value_repr": written(result.value)}


def written(value: object, *, form: Callable[[object], str] = repr) -> str:
    """The repr of a job's value. Python refuses to write an integer of very many digits; then what that says."""
    try:
        return form(value)
    except ValueError as error:
        return f"<{type(value).__name__}: {error}>"


def plain(value: object) -> object:
    """`value` in the types of JSON."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return hex(value)
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {written(key, form=str): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return _of_library(value)


def _of_library(value: object) -> object:
    """Arrays, series and scalars of numpy and pandas know their plain form; no import is needed to ask them."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    convert = getattr(value, "to_dict", None) or getattr(value, "tolist", None)
    nearest = written(value) if convert is None else convert()
    return written(value) if type(nearest) is type(value) else plain(nearest)

"""Reads sizes from text (512m, 64k, 1g, 1048576), and converts numbers of other libraries to Python's."""

from __future__ import annotations

import math
import operator
import re
from numbers import Real
from typing import Any

_SIZE = re.compile(r"(\d{1,15})\s*([kmgt]?)i?b?", re.IGNORECASE)
_FACTOR = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def real(given: object) -> float:
    """The number as a float. NaN for anything that is not a real number, such as a bool."""
    try:
        return float(given) if isinstance(given, Real) and not isinstance(given, bool) else math.nan
    except OverflowError:
        return math.inf


def plain_int(given: Any) -> Any:
    """A whole number of any library, such as numpy, as an int; anything else unchanged."""
    try:
        return given if isinstance(given, bool) else operator.index(given)
    except TypeError:
        return given


def parse_size(text: str | int) -> int:
    """Bytes of a size such as `512m`, `64 KiB` or `1048576`; factors are powers of 1024.

    Raises ValueError with the accepted forms in its text.
    """
    text = plain_int(text)
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise ValueError(  # noqa: TRY004 - callers catch one kind of error
            f"a size is a number of bytes or text such as '512m', not {type(text).__name__}"
        )
    if isinstance(text, int):
        if text < 0:
            raise ValueError(f"a size cannot be negative, got {text}")
        return text
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r:.40} is not a size; write a number of bytes or a number with k, m, g or t, such as '512m'"
        )
    return int(match[1]) * _FACTOR[match[2].lower()]


def format_size(count: int) -> str:
    """A size for people: 0 B, 3.2 KiB, 512 MiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"

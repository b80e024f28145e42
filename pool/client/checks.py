"""Checks of single fields. Each returns the value as it is to be sent, or raises an error that names the field, what is
wrong with it and what would be right.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TypeVar

from pool.errors import InvalidJobError, TooLargeError
from pool.units import real

Buffer = bytes | bytearray | memoryview
V = TypeVar("V")

MAX_WORD = 128
MAX_SECONDS = 31_536_000


def seconds(field: str, given: object) -> float | None:
    """A time span above 0, up to a year."""
    if given is None:
        return None
    if not 0 < real(given) <= MAX_SECONDS:
        raise invalid(field, f"got {given!r:.40}", f"give a number of seconds above 0, at most {MAX_SECONDS}")
    return real(given)


def waiting(field: str, given: object) -> float | None:
    """How long a caller waits: None is without end, 0 is a look."""
    if given is None:
        return None
    if not 0 <= real(given) <= MAX_SECONDS:
        raise invalid(field, f"got {given!r:.40}", "give a number of seconds from 0 on, or None to wait without end")
    return real(given)


def whole(field: str, given: int | None, lowest: int, highest: int) -> int | None:
    if given is None:
        return None
    try:
        number = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = None
    if number is None or not lowest <= number <= highest:
        raise invalid(field, f"got {given!r:.40}", f"give a whole number from {lowest} to {highest}")
    return number


def callback(field: str, given: Callable[[str], object] | None) -> Callable[[str], object] | None:
    if given is not None and not callable(given):
        raise invalid(field, f"it is {kind(given)}", "give a function that takes text (str), such as print")
    return given


def flag(field: str, given: bool | None) -> bool:  # noqa: FBT001
    if not isinstance(given, bool | None):
        raise invalid(field, f"it is {kind(given)}", "give True or False")
    return bool(given)


def word(field: str, given: object) -> str:
    found = text(field, given)
    if not 0 < len(found) <= MAX_WORD or "\0" in found:
        raise invalid(field, f"got {found!r:.150}", f"give 1 to {MAX_WORD} characters without NUL")
    utf8(field, found)
    return found


def text(field: str, given: object) -> str:
    """As a plain str: the codec of the messages takes no subclass, such as numpy's."""
    if not isinstance(given, str):
        raise invalid(field, f"{given!r:.80} is {kind(given)}", "give text (str)")
    return str.__str__(given)


def content(field: str, given: object) -> bytes:
    if not isinstance(given, (bytes, bytearray, memoryview)):
        raise invalid(field, f"it is {kind(given)}", "give bytes; text becomes bytes by .encode()")
    return bytes(given)


def mapping(field: str, given: Mapping[str, V] | None, most: int) -> Mapping[str, V]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise invalid(field, f"it is {kind(given)}", "give a mapping with text (str) as keys")
    if len(given) > most:
        raise invalid(field, f"it has {len(given)} entries", f"give at most {most}")
    return given


def utf8(field: str, given: str) -> bytes:
    try:
        return given.encode()
    except UnicodeEncodeError as error:
        problem = f"the character at {error.start} is a lone surrogate, which UTF-8 cannot carry"
        raise invalid(field, problem, "read the text with the encoding it was written in") from None


def invalid(field: str, problem: str, remedy: str) -> InvalidJobError:
    return InvalidJobError(f"{field}: {problem}; {remedy}", field=field)


def too_large(what: str, size: int, most: int, remedy: str) -> TooLargeError:
    return TooLargeError(f"{what} has {size} bytes, {most} fit; {remedy}", bytes=size, max_bytes=most)


def kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"

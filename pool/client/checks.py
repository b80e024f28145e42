"""Checks of single fields. Each returns the value to send, or raises InvalidJobError that names the field, says what is
wrong with the given value and what to give instead.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from pool import wire
from pool.errors import InvalidJobError, TooLargeError
from pool.units import real

Buffer = bytes | bytearray | memoryview
V = TypeVar("V")

MAX_WORD = 128
MAX_SECONDS = 31_536_000
MAX_NAME_BYTES = 255
_JOB_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


def seconds(field: str, given: object) -> float:
    """A time span above 0, up to a year."""
    if not 0 < real(given) <= MAX_SECONDS:
        raise invalid(field, f"got {given!r:.40}", f"give a number of seconds above 0, at most {MAX_SECONDS}")
    return real(given)


def waiting(field: str, given: object) -> float | None:
    """How long a caller waits: None is without limit, 0 does not wait."""
    if given is None:
        return None
    if not 0 <= real(given) <= MAX_SECONDS:
        raise invalid(field, f"got {given!r:.40}", "give a number of seconds from 0 on, or None to wait without limit")
    return real(given)


def whole(field: str, given: object, lowest: int, highest: int) -> int:
    try:
        number = None if isinstance(given, bool) else operator.index(given)  # type: ignore[arg-type] # this is the check
    except TypeError:
        number = None
    if number is None or not lowest <= number <= highest:
        raise invalid(field, f"got {given!r:.40}", f"give a whole number from {lowest} to {highest}")
    return number


def callback(field: str, given: Callable[[str], object] | None) -> Callable[[str], object] | None:
    if given is not None and not callable(given):
        raise invalid(field, f"it is {kind(given)}", "give a function that takes text (str), such as print")
    return given


def choice(field: str, given: V, allowed: Sequence[str]) -> V:
    if not isinstance(given, str) or given not in allowed:
        raise invalid(field, f"got {given!r:.40}", f"give {' or '.join(map(repr, allowed))}")
    return given


def flag(field: str, given: object) -> bool:
    if not isinstance(given, bool):
        raise invalid(field, f"it is {kind(given)}", "give True or False")
    return given


def job_id(field: str, given: object) -> str:
    if not isinstance(given, str) or not _JOB_ID.fullmatch(given):
        remedy = "give 1 to 128 of the characters A-Z a-z 0-9 . _ : -, or leave it out"
        raise invalid(field, f"got {given!r:.150}", remedy)
    return text(field, given)


def word(field: str, given: object) -> str:
    found = text(field, given)
    if not 0 < len(found) <= MAX_WORD or "\0" in found:
        raise invalid(field, f"got {found!r:.150}", f"give 1 to {MAX_WORD} characters without NUL")
    utf8(field, found)
    return found


def text(field: str, given: object) -> str:
    """A plain str: the encoder of messages accepts no subclass, such as numpy's."""
    if not isinstance(given, str):
        raise invalid(field, f"{given!r:.80} is {kind(given)}", "give text (str)")
    return str.__str__(given)


def content(field: str, given: object) -> Buffer:
    """The bytes, without a copy if they are contiguous."""
    if not isinstance(given, (bytes, bytearray, memoryview)):
        raise invalid(field, f"it is {kind(given)}", "give bytes; text becomes bytes by .encode()")
    if isinstance(given, memoryview):
        return given.cast("B") if given.c_contiguous and given.nbytes else bytes(given)
    return given


def mapping(field: str, given: Mapping[str, V], most: int) -> Mapping[str, V]:
    if not isinstance(given, Mapping):
        raise invalid(field, f"it is {kind(given)}", "give a mapping with text (str) as keys")
    if len(given) > most:
        raise invalid(field, f"it has {len(given)} entries", f"give at most {most}")
    return given


def file_names(field: str, given: Iterable[object]) -> list[str]:
    """Relative paths, so that the files stay in the directory they are put into."""
    names = [text(field, name) for name in given]
    if (wrong := wire.misplaced(names)) is not None:
        remedy = (
            f"give a relative path of 1 to {MAX_NAME_BYTES} bytes of UTF-8 without empty parts, '.', '..' and NUL, "
            "that is not below another file"
        )
        raise invalid(field, f"the name {wrong!r:.150} is not allowed", remedy)
    return names


def utf8(field: str, given: str) -> bytes:
    try:
        return given.encode()
    except UnicodeEncodeError as error:
        raise not_utf8(field, error) from None


def not_utf8(field: str, error: UnicodeEncodeError) -> InvalidJobError:
    problem = f"the character at {error.start} is a lone surrogate, which UTF-8 cannot encode"
    return invalid(field, problem, "read the text with the encoding it was written in")


def invalid(field: str, problem: str, remedy: str) -> InvalidJobError:
    return InvalidJobError(f"{field}: {problem}; {remedy}", field=field)


def too_large(what: str, size: int, most: int, remedy: str) -> TooLargeError:
    return TooLargeError(f"{what} has {size} bytes, {most} fit; {remedy}", bytes=size, max_bytes=most)


def kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"

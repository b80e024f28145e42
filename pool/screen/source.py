"""Rules S5xx: the source as text, and its one parse. Nothing here evaluates anything.

The parser is recursive C code. Nesting that is too deep for it becomes RecursionError or MemoryError, and then S502.
Its memory grows with the source, so the size has a cap. `compile()` folds constants only up to 128 bits of an integer
and 4096 characters. So `9**9**9` and `'a' * 10**10` cost nothing before they run, and then the job's limits apply.
"""

from __future__ import annotations

import ast
import codecs
import re

from pool.outcome import Finding
from pool.screen.rules import RULES

MAX_SOURCE_BYTES = 256 * 1024
_COOKIE = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
#: Encodings that contain ASCII.
_PLAIN_ENCODINGS = frozenset({"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252"})
#: These characters change the order in which text is shown, so a reader would see another program.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
LINE_END = re.compile(r"\r\n|\r|\n")


def first_fault(text: str) -> Finding | None:
    """The first fault of the source that is found without parsing."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        return _at(text, error.start, rule="S503", what="characters that are no text (lone surrogates)")
    if size > MAX_SOURCE_BYTES:
        return RULES["S501"].finding(str(size), 1, column=1)
    if "\0" in text:
        return _at(text, text.index("\0"), rule="S503", what="a NUL character")
    bidi = _BIDI.search(text)
    if bidi is not None:
        return _at(text, bidi.start(), rule="S505", what=f"U+{ord(bidi[0]):04X}")
    return _cookie(text)


def _cookie(text: str) -> Finding | None:
    """An encoding may be named on the first line, or on the second if the first is a comment or empty."""
    for number, line in enumerate(LINE_END.split(text[:4096], maxsplit=2)[:2], start=1):
        claimed = _COOKIE.match(line)
        if claimed is not None and _codec(claimed[1]) not in _PLAIN_ENCODINGS:
            return RULES["S504"].finding(claimed[1], number, column=1)
        if line.strip() and not line.lstrip().startswith("#"):
            return None
    return None


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return ""


def _at(text: str, index: int, *, rule: str, what: str) -> Finding:
    lines = LINE_END.split(text[:index])
    return RULES[rule].finding(what, len(lines), column=len(lines[-1]) + 1)


def parse(text: str, filename: str) -> ast.Module | Finding:
    """Raises SyntaxError, with the warnings that compile() would give."""
    try:
        return ast.parse(text, filename)
    except (RecursionError, MemoryError):
        return RULES["S502"].finding("", 1, column=1)


class Columns:
    """Turns the parser's columns (UTF-8 bytes from 0) into characters from 1. It splits lines as the parser does."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: list[str] | None = None

    def of(self, line: int, offset: int) -> int:
        if self._lines is None:
            self._lines = LINE_END.split(self._text)
        if not 0 < line <= len(self._lines):
            return 1
        text = self._lines[line - 1]
        if text.isascii():
            return min(offset, len(text)) + 1
        return len(text.encode()[:offset].decode(errors="replace")) + 1

"""Text that others chose, made safe for a terminal.

A pool's name, an error's message or the repr of a job's value may hold escape sequences that move the cursor, rewrite
lines already printed or turn the direction of the text. What does not print is shown as its Python escape instead.
"""

from __future__ import annotations


def visible(text: object) -> str:
    """One line of text in which every character can be seen."""
    return "".join(char if char.isprintable() else _escape(char) for char in str(text))


def visible_block(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay."""
    return "".join(char if char.isprintable() or char in "\n\t" else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")

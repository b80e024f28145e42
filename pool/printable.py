"""Text that others chose, made safe for a terminal, a log and a story.

A pool's name, an error's message or the last words of a worker may hold escape sequences that move the cursor, rewrite
lines already printed or turn the direction of the text. What does not print is shown as its Python escape instead.
"""

from __future__ import annotations


def visible(text: object) -> str:
    """One line of text in which every character can be seen."""
    words = str(text)
    return words if words.isprintable() else "".join(map(_show, words))


def visible_block(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay."""
    return "".join(char if char in "\n\t" else _show(char) for char in text)


def _show(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")

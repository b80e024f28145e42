"""Makes text from outside safe for a terminal, a log and a history.

The name of a pool, the message of an error or the output of a worker may contain escape sequences that move the cursor,
rewrite printed lines or reverse the direction of the text. Characters that do not print are shown as Python escapes.
"""

from __future__ import annotations


def visible(text: object) -> str:
    """One line of text in which every character can be seen."""
    line = str(text)
    return line if line.isprintable() else "".join(map(_show, line))


def visible_block(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay."""
    return "".join(char if char in "\n\t" else _show(char) for char in text)


def _show(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")

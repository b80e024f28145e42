"""Extracts the program from a language model's answer in Markdown: text, with code between fences."""

from __future__ import annotations

import re
import textwrap

#: A line of three or more backticks or tildes and a word, the code, and a line of as many, or the end of the text.
#: `*+` gives nothing back, so that a long line which is no fence takes no quadratic time.
_BLOCK = re.compile(
    r"^[ \t]*(?P<fence>`{3,}+|~{3,}+)[ \t]*+(?P<language>[\w+.-]*+)[^\n`]*+\n"
    r"(?P<code>.*?)(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = frozenset({"", "python", "python3", "py", "py3"})


def without_fences(text: str) -> str:
    """The first block that is Python or names no language. Text without such a block is returned as it is."""
    for block in _BLOCK.finditer(text.replace("\r\n", "\n")):
        if block["language"].lower() in _PYTHON:
            return textwrap.dedent(block["code"])
    return text

"""How a container ended, and what it wrote last, in words for a person."""

from __future__ import annotations

import textwrap

#: Last words of a container that did not start.
LAST_WORDS_BYTES = 2048

GONE = "the container is gone"
RUNNING = "the container is running"


def ending(code: int | None, *, out_of_memory: bool, error: str = "") -> str:
    """Of a container that has ended; `code` None: its exit code is not known. `error`: the engine's own words."""
    words = "the container ended with " + ("an exit code that is not known" if code is None else f"exit code {code}")
    if out_of_memory:
        words += ", out of memory"
    return words + (f" ({error[:200]})" if error else "")


def readable(output: bytes) -> str:
    """What a container wrote, for a log or a terminal: no control characters, no line that could pass for ours."""
    lines = output[-LAST_WORDS_BYTES:].decode("utf-8", "backslashreplace").splitlines()
    clean = (
        "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
        for line in lines
    )
    return textwrap.indent("\n".join(clean), "    ")

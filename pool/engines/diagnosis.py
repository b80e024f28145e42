"""How a container ended, and its last output, as text for people."""

from __future__ import annotations

import textwrap

#: Lines of output that are kept of a container that did not start.
LAST_WORDS_BYTES = 2048

GONE = "the container is gone"
RUNNING = "the container is running"


def ending(code: int | None, *, out_of_memory: bool, error: str = "") -> str:
    """A sentence about a container that has ended. `code` None: not known. `error`: the engine's own text."""
    words = "the container ended with " + ("an exit code that is not known" if code is None else f"exit code {code}")
    if out_of_memory:
        words += ", out of memory"
    return words + (f" ({error[:200]})" if error else "")


def readable(output: bytes) -> str:
    """A container's output for a log or a terminal, without control characters and new lines."""
    lines = output[-LAST_WORDS_BYTES:].decode("utf-8", "backslashreplace").splitlines()
    clean = (
        "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
        for line in lines
    )
    return textwrap.indent("\n".join(clean), "    ")

"""The standard streams of a job: their objects, and what it reads from stdin."""

from __future__ import annotations

import os
import sys
from typing import Any

#: As in a plain interpreter in the locale C.UTF-8.
_STREAMS = (("stdin", "r", "surrogateescape"), ("stdout", "w", "surrogateescape"), ("stderr", "w", "backslashreplace"))
PIPE_BYTES = 1 << 16  #: what a pipe holds


def make() -> None:
    """Objects for 0, 1 and 2 whose files are of the kind that a child has. Output is sent line by line."""
    kept = [os.dup(number) for number in range(3)]
    null, (reading, writing) = os.open(os.devnull, os.O_RDONLY), os.pipe()
    for number, ((name, mode, errors), source) in enumerate(zip(_STREAMS, (null, writing, writing), strict=True)):
        os.dup2(source, number)
        _make_one(number, name, mode, errors)
        os.dup2(kept[number], number)
    for fd in (*kept, null, reading, writing):
        os.close(fd)


def _make_one(number: int, name: str, mode: str, errors: str) -> None:
    buffering = 1 if mode == "w" else -1
    stream: Any = open(number, mode, buffering, "utf-8", errors, "\n", closefd=False)  # noqa: SIM115
    stream.buffer.raw.name = f"<{name}>"
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def send_stdin(stdin: bytearray) -> None:
    """Through a pipe, which has room for all of it."""
    reading, writing = os.pipe()
    os.write(writing, stdin)
    os.close(writing)
    os.dup2(reading, 0)
    os.close(reading)
    _make_one(0, *_STREAMS[0])


def write_stdin(scratch: str, stdin: bytearray) -> None:
    descriptor = os.open(scratch, os.O_RDWR | os.O_TMPFILE, 0o600)
    with open(descriptor, "w+b", buffering=0) as held:  # noqa: PTH123 - a descriptor
        rest = memoryview(stdin)
        while rest:
            rest = rest[held.write(rest) :]
        held.seek(0)
        os.dup2(held.fileno(), 0)

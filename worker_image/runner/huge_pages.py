"""The zygote's memory in few large pages and few mappings: a fork copies and an exit drops each of them.

The kernel puts 2 MiB of memory that lie together into one page if it is asked to (MADV_COLLAPSE, Linux 6.1). Python
takes memory for its objects 1 MiB at a time, between the libraries that are loaded meanwhile. So it is made to take its
memory beforehand, in one piece. A page that a child writes to is still copied alone: 4 KiB of a large page.

A library has three mappings that are never written: headers, code and constants, of which only code may be run. Where
all three may be run they are one. A job gains nothing by that, for it may map memory that can be run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from runner import kernel

_HUGE_BYTES = 2 << 20
#: What the usual libraries need. What is left over is given back.
_GATHERED_BYTES = 32 << 20
#: The largest object of Python's own allocator, with its header.
_OBJECT_BYTES = 512
_HEADER_BYTES = 33
#: The distance of the objects that are held: Python gives memory back in pieces of 1 MiB, once nothing is in them.
_HELD_EVERY_BYTES = 512 << 10
#: A mapping of which less is in use, such as one of thread stacks, would take more memory in large pages.
_LEAST_USED = 0.75
_OF_A_FILE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (r-[-x])p ([0-9a-f]+) (\S+ [1-9]\d*)", re.MULTILINE)
_MAPPINGS = Path("/proc/self/smaps")
_MAPPING = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 +(?:\[heap\])?\nSize:.*\n(?:\w+:.*\n)*?Rss: +(\d+) kB", re.MULTILINE
)


def gather() -> list[bytes]:
    """Before libraries are imported. Drop what is returned after they are, so that unused memory is given back."""
    objects = [bytes(_OBJECT_BYTES - _HEADER_BYTES) for _ in range(_GATHERED_BYTES // _OBJECT_BYTES)]
    return objects[:: _HELD_EVERY_BYTES // _OBJECT_BYTES]


def collapse() -> None:
    """After the libraries are imported. It stops at the first page that the host refuses, or has no memory for."""
    if _MAPPINGS.exists():
        for start in ranges(_MAPPINGS.read_text(encoding="ascii", errors="replace")):
            if not kernel.collapse(start, _HUGE_BYTES):
                return


def merge_libraries() -> None:
    """After the libraries are imported: headers, code and constants of each become one mapping."""
    if _MAPPINGS.exists():
        for start, length in runs(_MAPPINGS.with_name("maps").read_text(encoding="ascii", errors="replace")):
            kernel.allow_running(start, length)


def runs(mappings: str) -> Iterator[tuple[int, int]]:
    """Start and length of mappings in a /proc/PID/maps that follow each other in memory and in one file."""
    start = end = offset = 0
    file, kinds = "", set[str]()
    for begin, until, kind, at, mapped in [*_OF_A_FILE.findall(mappings), ("0", "0", "", "0", "")]:
        low, high = int(begin, 16), int(until, 16)
        if (low, mapped, int(at, 16)) != (end, file, offset + end - start):
            if len(kinds) > 1:
                yield start, end - start
            start, offset, file, kinds = low, int(at, 16), mapped, set()
        end = high
        kinds.add(kind)


def ranges(mappings: str) -> Iterator[int]:
    """The addresses at which a large page can begin, in a /proc/PID/smaps: anonymous memory that is in use."""
    for begin, end, used_kib in _MAPPING.findall(mappings):
        low, high = int(begin, 16), int(end, 16)
        if int(used_kib) * 1024 >= _LEAST_USED * (high - low):
            yield from range(-(-low // _HUGE_BYTES) * _HUGE_BYTES, high - _HUGE_BYTES + 1, _HUGE_BYTES)

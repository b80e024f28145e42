"""The zygote's memory in few large pages, so that a fork copies few page table entries and an exit visits few pages.

The kernel puts 2 MiB of memory that lie together into one page if it is asked to (MADV_COLLAPSE, Linux 6.1). Python
takes memory for its objects 1 MiB at a time, between the libraries that are loaded meanwhile. So it is made to take its
memory beforehand, in one piece. A page that a child writes to is still copied alone: 4 KiB of a large page.
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


def ranges(mappings: str) -> Iterator[int]:
    """The addresses at which a large page can begin, in a /proc/PID/smaps: anonymous memory that is in use."""
    for begin, end, used_kib in _MAPPING.findall(mappings):
        low, high = int(begin, 16), int(end, 16)
        if int(used_kib) * 1024 >= _LEAST_USED * (high - low):
            yield from range(-(-low // _HUGE_BYTES) * _HUGE_BYTES, high - _HUGE_BYTES + 1, _HUGE_BYTES)

"""The zygote's memory in few large pages and few mappings: a fork copies and an exit drops each of them.

The kernel puts 2 MiB of memory that lie together into one page if it is asked to (MADV_COLLAPSE, Linux 6.1). Python
takes memory for its objects 1 MiB at a time, between the libraries that are loaded meanwhile. So it is made to take its
memory beforehand, in one piece. A page that a child writes to is still copied alone: 4 KiB of a large page.

A library has three mappings that are never written: headers, code and constants, of which only code may be run. Where
all three may be run they are one. Its table of addresses, which the dynamic linker protects once it is complete, is one
with its variables where it may be written. A job gains nothing by either: it may map memory that can be run, and change
what may be done with its own memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

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
#: A hole between mappings of at least its size is filled, so that a large page can lie there.
_HOLE_BYTES = 1 << 20
#: The kernel refuses to move a page that something else uses at the moment.
_TRIES = 5
_SMAPS = Path("/proc/self/smaps")
_MAPPING = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) (\S+)p ([0-9a-f]+) (\S+ \d+) *(.*)\n"
    r"Size:.*\n(?:\w+:.*\n)*?Rss: +(\d+) kB\n(?:\w+:.*\n)*?VmFlags:(.*)",
    re.MULTILINE,
)
_NO_FILE = "00:00 0"


class Mapping(NamedTuple):
    """Private memory, as a /proc/PID/smaps describes it."""

    start: int
    end: int
    rights: str  #: such as "rw-"
    offset: int
    file: str  #: device and inode; empty for anonymous memory
    used_bytes: int
    accounted: bool  #: whether it was writable at some time

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def anonymous(self) -> bool:
        """Writable, and in use."""
        return not self.file and self.rights == "rw-" and self.used_bytes >= _LEAST_USED * self.size

    @property
    def constant(self) -> bool:
        """Of a file, and never written."""
        return bool(self.file) and not self.accounted and self.rights in {"r--", "r-x"}

    def continues(self, other: Mapping) -> bool:
        """Whether it follows another one in memory and in its file."""
        return self.start == other.end and self.file == other.file and self.offset == other.offset + other.size


def gather() -> list[bytes]:
    """Before libraries are imported. Drop what is returned after they are, so that unused memory is given back."""
    objects = [bytes(_OBJECT_BYTES - _HEADER_BYTES) for _ in range(_GATHERED_BYTES // _OBJECT_BYTES)]
    return objects[:: _HELD_EVERY_BYTES // _OBJECT_BYTES]


def collapse() -> None:
    """After the libraries are imported. It stops at the first page that the host refuses, or has no memory for."""
    for start, size in holes(_own()):
        kernel.fill(start, size)
    for start in ranges(_own()):
        if not any(kernel.collapse(start, _HUGE_BYTES) for _ in range(_TRIES)):
            return


def merge_libraries() -> None:
    """After the libraries are imported: each has one mapping that may be run, and one that may be written."""
    found = _own()
    for start, size in sealed(found):
        kernel.allow_writing(start, size)
    for start, size in runs(found):
        kernel.allow_running(start, size)


def release_files() -> None:
    """After the start: unmap what was read of files and never written. What is used again comes from the page cache.

    A fork does not copy the entries of such mappings, so no child has more page faults for it.
    """
    for each in _own():
        if each.constant:
            kernel.forget(each.start, each.size)


def _own() -> Sequence[Mapping]:
    return mappings(_SMAPS.read_text(encoding="ascii", errors="replace")) if _SMAPS.exists() else []


def mappings(smaps: str) -> list[Mapping]:
    """Of a /proc/PID/smaps."""
    return [
        Mapping(
            start=int(start, 16),
            end=int(end, 16),
            rights=rights,
            offset=int(offset, 16),
            file="" if file == _NO_FILE and name in {"", "[heap]"} else file,
            used_bytes=int(used_kib) * 1024,
            accounted=" ac" in flags,
        )
        for start, end, rights, offset, file, name, used_kib, flags in _MAPPING.findall(smaps)
    ]


def sealed(found: Sequence[Mapping]) -> Iterator[tuple[int, int]]:
    """Start and length of what was written and then protected, in front of the variables of the same library."""
    for one, other in pairwise(found):
        if one.accounted and (one.rights, other.rights) == ("r--", "rw-") and other.continues(one):
            yield one.start, one.size


def runs(found: Sequence[Mapping]) -> Iterator[tuple[int, int]]:
    """Start and length of several mappings that follow each other in a file and were never written."""
    constant = [each for each in found if each.constant]
    run = constant[:1]
    for each in [*constant[1:], None]:
        if each is not None and each.continues(run[-1]):
            run.append(each)
            continue
        if len(run) > 1:
            yield run[0].start, run[-1].end - run[0].start
        run = [each] if each is not None else []


def holes(found: Sequence[Mapping]) -> Iterator[tuple[int, int]]:
    """Start and length of what Python has given back between memory that it uses."""
    for one, other in pairwise(found):
        size = other.start - one.end
        if one.anonymous and other.anonymous and 0 < size <= _HOLE_BYTES <= min(one.size, other.size):
            yield one.end, size


def ranges(found: Sequence[Mapping]) -> Iterator[int]:
    """The addresses at which a large page can begin: anonymous memory that is in use."""
    for each in found:
        if each.anonymous:
            yield from range(-(-each.start // _HUGE_BYTES) * _HUGE_BYTES, each.end - _HUGE_BYTES + 1, _HUGE_BYTES)

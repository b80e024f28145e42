"""The zygote's memory in few large pages and few mappings: a fork copies and an exit drops each of them.

The kernel puts 2 MiB of memory that lie together into one page if it is asked to (MADV_COLLAPSE, Linux 6.1). Python
takes memory for its objects 1 MiB at a time, between the libraries that are loaded meanwhile. So while libraries are
imported it takes it from one range. A page that a child writes to is still copied alone: 4 KiB of a large page.

A library has three mappings that are never written: headers, code and constants, of which only code may be run. Where
all three may be run they are one. Its table of addresses, which the dynamic linker protects once it is complete, is one
with its variables where it may be written. A job gains nothing by either: it may map memory that can be run, and change
what may be done with its own memory. Variables that begin with a value are mapped from the file, those behind them are
not: once all of them are copies without a file, they are one mapping too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from ctypes import pythonapi
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from runner import call_table, kernel
from runner.kernel import Step

_HUGE_BYTES = 2 << 20
#: What Python takes at once for objects.
_ARENA_BYTES = 1 << 20
#: More than what most libraries need. What is left over is given back.
_ARENAS_BYTES = 64 << 20
#: Takes a `_Room` in rdi and a size in rsi. Returns the next piece of the room, or what Python's own allocator returns:
#: for less than 1 MiB, as stacks of frames have it, which are given back soon and would leave gaps for libraries.
_TAKING = {
    "x86_64": bytes.fromhex(
        "4881fe00001000 7211"  # cmp rsi, 1 MiB; jb own
        "488b07 488d0c30"  # mov rax, [rdi]; lea rcx, [rax+rsi]
        "483b4f08 7704"  # cmp rcx, [rdi+8]; ja own
        "48890f c3"  # mov [rdi], rcx; ret
        "488b4710 488b7f18 ffe0"  # own: mov rax, [rdi+16]; mov rdi, [rdi+24]; jmp rax
    )
}
#: Takes the first of some `_Move` in rdi and their end in rsi. Copies what lies at each place and puts the copy there.
#: Returns the one that the kernel has refused, or the end.
_MOVING = {
    "x86_64": bytes.fromhex(
        "53 55 4889fb 4889f5"  # push rbx, rbp; mov rbx, rdi; mov rbp, rsi
        "4839eb 7433"  # next: cmp rbx, rbp; je end
        "488b3b 488b7310 488b4b08 f3a4"  # mov rdi, [rbx]; mov rsi, [rbx+16]; mov rcx, [rbx+8]; rep movsb
        "488b3b 488b7308 4889f2"  # mov rdi, [rbx]; mov rsi, [rbx+8]; mov rdx, rsi
        "41ba03000000 4c8b4310"  # mov r10, MREMAP_MAYMOVE | MREMAP_FIXED; mov r8, [rbx+16]
        "b819000000 0f05"  # mov eax, mremap; syscall
        "4885c0 7806 4883c318 ebc8"  # test rax, rax; js end; add rbx, 24; jmp next
        "4889d8 5d 5b c3"  # end: mov rax, rbx; pop rbp, rbx; ret
    )
}
#: Of a mapping of variables, what may not be written yet. More of it would take memory.
_MOST_UNWRITTEN_BYTES = 64 << 10
#: In VmFlags of memory that nothing special is asked for: it may be read, written and run, and counts as used.
_PLAIN = {"rd", "wr", "mr", "mw", "me", "ac"}
#: The same: its pages are watched for writes, as those of all memory are.
_WATCHED = {"sd"}
#: A mapping of which less is in use, such as one of thread stacks, would take more memory in large pages.
_LEAST_USED = 0.75
#: The kernel refuses to move a page that something else uses at the moment.
_TRIES = 5
_SMAPS = Path("/proc/self/smaps")
_MAPPING = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) (\S+)p ([0-9a-f]+) (\S+ \d+) *(.*)\n"
    r"Size:.*\n(?:\w+:.*\n)*?Rss: +(\d+) kB\n(?:\w+:.*\n)*?Anonymous: +(\d+) kB\n(?:\w+:.*\n)*?VmFlags:(.*)",
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
    written_bytes: int  #: of them, those that differ from the file
    accounted: bool  #: whether it was writable at some time
    plain: bool = True  #: whether nothing special was asked for, such as that a fork leaves it out

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def anonymous(self) -> bool:
        """Writable, and in use."""
        return not self.file and self.rights == "rw-" and self.used_bytes >= _LEAST_USED * self.size

    @property
    def of_file(self) -> bool:
        """Not of the kernel, such as a stack."""
        return self.file not in {"", _NO_FILE}

    @property
    def constant(self) -> bool:
        """Of a file, and never writable."""
        return self.of_file and not self.accounted and self.rights in {"r--", "r-x"}

    @property
    def variables(self) -> bool:
        """Of a library, or small memory such as what follows its variables. Not memory for objects."""
        if not self.plain or self.rights != "rw-" or not (self.of_file or not self.file):
            return False
        most = _HUGE_BYTES if self.of_file else _ARENA_BYTES
        return self.size < most and self.size - self.written_bytes <= _MOST_UNWRITTEN_BYTES

    @property
    def unwritten(self) -> bool:
        """Of a file, and the same as in the file."""
        return self.of_file and not self.written_bytes

    def continues(self, other: Mapping) -> bool:
        """Whether it follows another one in memory and in its file."""
        return self.start == other.end and self.file == other.file and self.offset == other.offset + other.size


class _Allocator(ctypes.Structure):
    """PyObjectArenaAllocator: where Python's allocator of objects takes memory from, 1 MiB at a time."""

    _fields_ = (("context", ctypes.c_void_p), ("take", ctypes.c_void_p), ("give_back", ctypes.c_void_p))


class _Move(ctypes.Structure):
    """A copy that takes the place of what it is a copy of."""

    _fields_ = (("copy", ctypes.c_void_p), ("size", ctypes.c_size_t), ("place", ctypes.c_void_p))


class _Room(ctypes.Structure):
    """The context of another allocator: memory that is given out from its beginning."""

    _fields_ = (
        ("next", ctypes.c_size_t),
        ("end", ctypes.c_size_t),
        ("take", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


@contextlib.contextmanager
def gathering() -> Iterator[None]:
    """While libraries are imported: their objects lie together, and no library is loaded in between."""
    code = _TAKING.get(os.uname().machine)
    taking = call_table.runnable(code) if code is not None else None
    if taking is None:
        yield
        return
    own = _Allocator()
    pythonapi.PyObject_GetArenaAllocator(ctypes.byref(own))
    start = kernel.map_room(_ARENAS_BYTES)
    room = _Room(-(-start // _HUGE_BYTES) * _HUGE_BYTES, start + _ARENAS_BYTES, own.take, own.context)
    # Memory of both is given back in the same way: it is unmapped.
    pythonapi.PyObject_SetArenaAllocator(ctypes.byref(_Allocator(ctypes.addressof(room), taking, own.give_back)))
    try:
        yield
    finally:
        pythonapi.PyObject_SetArenaAllocator(ctypes.byref(own))
        if room.next < room.end:
            kernel.unmap(room.next, room.end - room.next)


def collapse() -> None:
    """After the libraries are imported. It stops at the first page that the host refuses, or has no memory for."""
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


def merge_variables() -> None:
    """In a process with one thread: nothing else may write to the variables while they are copied."""
    code = _MOVING.get(os.uname().machine)
    moving = call_table.runnable(code) if code is not None else None
    if moving is None:
        return
    found = [*groups(_own())]
    moves = (_Move * len(found))(*[_Move(kernel.map_room(size), size, start) for start, size in found])
    begin = ctypes.addressof(moves)
    kernel.function_at(moving)(begin, begin + ctypes.sizeof(moves))


def release_files(*, threads: bool) -> None:
    """After the start: unmap what was read of files and not written. What is used again comes from the page cache.

    A fork does not copy the entries of such mappings, so no child has more page faults for it. `threads`: others run,
    and may write to a library's variables at this moment.
    """
    for each in _own():
        if each.unwritten and (each.constant or not threads):
            kernel.forget(each.start, each.size)


def releasing() -> list[Step]:
    """In the zygote after its start, for children that have warmed up: the same for libraries that it does not use."""
    return [kernel.forgetting(each.start, each.size) for each in _own() if each.constant and not each.used_bytes]


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
            written_bytes=int(written_kib) * 1024,
            accounted=" ac" in flags,
            plain={*flags.split()} - _WATCHED == _PLAIN,
        )
        for start, end, rights, offset, file, name, used_kib, written_kib, flags in _MAPPING.findall(smaps)
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


def groups(found: Sequence[Mapping]) -> Iterator[tuple[int, int]]:
    """Start and length of variables that lie together in several mappings, one of a file among them."""
    group: list[Mapping] = []
    for each in [*found, None]:
        if each is not None and each.variables and (not group or each.start == group[-1].end):
            group.append(each)
            continue
        if len(group) > 1 and any(one.of_file for one in group):
            yield group[0].start, group[-1].end - group[0].start
        group = [each] if each is not None and each.variables else []


def ranges(found: Sequence[Mapping]) -> Iterator[int]:
    """The addresses at which a large page can begin: anonymous memory that is in use."""
    for each in found:
        if each.anonymous:
            yield from range(-(-each.start // _HUGE_BYTES) * _HUGE_BYTES, each.end - _HUGE_BYTES + 1, _HUGE_BYTES)

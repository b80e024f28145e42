"""Calls of C functions, one after the other, without Python in between.

A child that makes forty calls in Python copies two hundred pages for it: functions, arguments, results and frames have
reference counts. Here the calls and their arguments lie in a table, and 85 bytes of machine code make them. They are
assembled from the listing below; there is no compiler where a worker's image is built. On another machine, or where
memory cannot be made one that can be run, Python makes the calls.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import resource
import select
import struct
from collections.abc import Callable, Iterable, Sequence

from runner import kernel
from runner.kernel import Step

#: Larger than any.
_NO_DESCRIPTOR = (1 << 31) - 1
_LIMIT = 6  #: of arguments: those that a function of C gets in registers
#: Takes the first place of a table in rdi and its end in rsi. Returns the place of the call that failed, or the end.
#: A place has eight pointers: the function, six arguments, and where its result goes.
_CODE = {
    "x86_64": bytes.fromhex(
        "53 55 4154"  # push rbx, rbp, r12
        "4889fb 4889f5"  # mov rbx, rdi; mov rbp, rsi
        "4839eb 743e"  # next: cmp rbx, rbp; je end
        "488b4308 488b38"  # mov rax, [rbx+8]; mov rdi, [rax]
        "488b4310 488b30"  # mov rax, [rbx+16]; mov rsi, [rax]
        "488b4318 488b10"  # mov rax, [rbx+24]; mov rdx, [rax]
        "488b4320 488b08"  # mov rax, [rbx+32]; mov rcx, [rax]
        "488b4328 4c8b00"  # mov rax, [rbx+40]; mov r8, [rax]
        "488b4330 4c8b08"  # mov rax, [rbx+48]; mov r9, [rax]
        "31c0 ff13"  # xor eax, eax; call [rbx]
        "488b4b38 8901"  # mov rcx, [rbx+56]; mov [rcx], eax
        "85c0 7806"  # test eax, eax; js end
        "4883c340 ebbd"  # add rbx, 64; jmp next
        "4889d8 415c 5d 5b c3"  # end: mov rax, rbx; pop r12, rbp, rbx; ret
    )
}
_Run = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, use_errno=True)
_Place = ctypes.c_void_p * (2 + _LIMIT)


class CallTable:
    """Prepared before the fork, as its steps are."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = tuple(steps)
        self._held: list[object] = []  #: what the table points to
        self._run = _machine_code() if all(map(_is_of_c, self._steps)) else None
        places = [self._place(step) for step in self._steps] if self._run is not None else []
        self._table = (_Place * len(places))(*places)
        self._begin = ctypes.c_void_p(ctypes.addressof(self._table))
        self._end = ctypes.c_void_p(ctypes.addressof(self._table) + ctypes.sizeof(self._table))

    def perform(self) -> None:
        """Raises OSError at the first call that fails."""
        if self._run is None:
            kernel.perform(self._steps)
            return
        at = self._run(self._begin, self._end)
        if at != self._end.value:
            raise kernel.failure(self._steps[(at - (self._begin.value or 0)) // ctypes.sizeof(_Place)].doing)

    def _place(self, step: Step) -> ctypes.Array[ctypes.c_void_p]:
        result = ctypes.c_long() if step.result is None else step.result
        pointers = [self._pointer(each) for each in step.arguments]
        rest = [self._pointer(0)] * (_LIMIT - len(pointers))
        function = ctypes.cast(step.function, ctypes.c_void_p).value  # type: ignore[arg-type]
        return _Place(function, *pointers, *rest, self._pointer(result))

    def _pointer(self, argument: object) -> int:
        """To a number that is read when the call is made, or to one that is known now."""
        if not isinstance(argument, ctypes.c_long | ctypes.c_void_p):
            argument = ctypes.c_void_p(self._number(argument))
        self._held.append(argument)
        return ctypes.addressof(argument)

    def _number(self, argument: object) -> int | None:
        if isinstance(argument, int | None):
            return argument
        self._held.append(argument)
        if isinstance(argument, bytes):
            return ctypes.cast(ctypes.c_char_p(argument), ctypes.c_void_p).value
        return ctypes.addressof(argument)  # type: ignore[arg-type]


def _is_of_c(step: Step) -> bool:
    return isinstance(step.function, ctypes._CFuncPtr)  # type: ignore[attr-defined] # noqa: SLF001


@functools.cache
def _machine_code() -> Callable[[ctypes.c_void_p, ctypes.c_void_p], int] | None:
    code = _CODE.get(os.uname().machine)
    address = _runnable(code) if code is not None else None
    return _Run(address) if address is not None else None


def _runnable(code: bytes) -> int | None:
    """The address of machine code in memory of its own. None where that is refused."""
    address = kernel.map_room(mmap.PAGESIZE)
    ctypes.memmove(address, code, len(code))
    return address if kernel.allow_running(address, mmap.PAGESIZE) else None


# ---- calls for descriptors ----


def taking_descriptors(kept: int, ends: Sequence[ctypes.c_long]) -> list[Step]:
    """Keep the standard streams and the channel, and close every other descriptor."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    return [
        _replacing(ends[0], kept, os.O_CLOEXEC),
        _replacing(null, 0),
        _replacing(ends[1], 1),
        _replacing(ends[2], 2),
        *closing_range(3, kept),
        *closing_range(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ]


def closing_range(first: int, end: int) -> list[Step]:
    """All descriptors from the first on, up to the end."""
    try:
        kernel.perform([kernel.calling("close_range", _NO_DESCRIPTOR, _NO_DESCRIPTOR, 0)])
    except OSError:  # before Linux 5.9
        return [Step(_close_range, (first, end), "close")]
    return [kernel.calling("close_range", first, end - 1, 0)] if first < end else []


def _close_range(first: int, end: int) -> int:
    os.closerange(first, end)
    return 0


def _replacing(old: ctypes.c_long | int, new: int, flags: int = 0) -> Step:
    """Make a descriptor a copy of another one."""
    return kernel.calling("dup3", old, new, flags)


def sending(fd: int, message: bytes) -> Step:
    return Step(kernel.libc.send, (fd, message, len(message), 0), "send")


def waiting(fd: int, timeout_s: float, found: ctypes.c_long) -> Step:
    """Until a descriptor is readable. `found`: 1, or 0 if the time has passed."""
    polled = ctypes.create_string_buffer(struct.pack("=ihh", fd, select.POLLIN, 0))
    return Step(kernel.libc.poll, (polled, 1, int(timeout_s * 1000)), "poll", found)

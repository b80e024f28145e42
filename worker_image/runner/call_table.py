"""Calls of C functions, one after the other, without Python in between.

A child that makes forty calls in Python copies two hundred pages for it: functions, arguments, results and frames have
reference counts. Here the calls and their arguments lie in a table, and 93 bytes of machine code make them. They are
assembled from the listing below; there is no compiler where a worker's image is built. On another machine, or where
memory cannot be made one that can be run, Python makes the calls.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import resource
from collections.abc import Callable, Iterable, Sequence

from runner import kernel
from runner.kernel import Step

#: Larger than any.
_NO_DESCRIPTOR = (1 << 31) - 1
_LIMIT = 6  #: of arguments: those that a function of C gets in registers
#: Takes the first place of a table in rdi and its end in rsi. Returns the place of the call that failed, or the end.
#: A place has nine pointers: the function, six arguments, where its result goes, and the next place if that is 0.
_CODE = {
    "x86_64": bytes.fromhex(
        "53 55 4154"  # push rbx, rbp, r12
        "4889fb 4889f5"  # mov rbx, rdi; mov rbp, rsi
        "4839eb 7446"  # next: cmp rbx, rbp; je end
        "488b4308 488b38"  # mov rax, [rbx+8]; mov rdi, [rax]
        "488b4310 488b30"  # mov rax, [rbx+16]; mov rsi, [rax]
        "488b4318 488b10"  # mov rax, [rbx+24]; mov rdx, [rax]
        "488b4320 488b08"  # mov rax, [rbx+32]; mov rcx, [rax]
        "488b4328 4c8b00"  # mov rax, [rbx+40]; mov r8, [rax]
        "488b4330 4c8b08"  # mov rax, [rbx+48]; mov r9, [rax]
        "31c0 ff13"  # xor eax, eax; call [rbx]
        "488b4b38 8901"  # mov rcx, [rbx+56]; mov [rcx], eax
        "85c0 780e"  # test eax, eax; js end
        "488b4b40 488d5b48"  # mov rcx, [rbx+64]; lea rbx, [rbx+72]
        "480f44d9 ebb5"  # cmovz rbx, rcx; jmp next
        "4889d8 415c 5d 5b c3"  # end: mov rax, rbx; pop r12, rbp, rbx; ret
    )
}
_Place = ctypes.c_void_p * (3 + _LIMIT)


class CallTable:
    """Prepared before the fork, as its steps are."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = tuple(steps)
        self._labels = {step.label: at for at, step in enumerate(self._steps) if step.label}
        self._held: list[object] = []  #: what the table points to
        self._unused = kernel.number()  #: takes the results that no step needs
        self.stopped_at = 0  #: the number of the step that has failed
        self._run = _machine_code() if all(map(_is_of_c, self._steps)) else None
        self._table = (_Place * len(self._steps))()
        self._begin = ctypes.c_void_p(ctypes.addressof(self._table))
        self._end = ctypes.c_void_p(ctypes.addressof(self._table) + ctypes.sizeof(self._table))
        if self._run is not None:
            self._table[:] = [self._place(at, step) for at, step in enumerate(self._steps)]

    def perform(self) -> None:
        """Raises OSError at the first call that fails."""
        if self._run is None:
            self._perform_in_python()
            return
        at = self._run(self._begin, self._end)
        if at != self._end.value:
            self.stopped_at = (at - (self._begin.value or 0)) // ctypes.sizeof(_Place)
            raise kernel.failure(self._steps[self.stopped_at].doing)

    def _perform_in_python(self) -> None:
        at = 0
        while at < len(self._steps):
            self.stopped_at, step = at, self._steps[at]
            value = step.function(*step.arguments)
            if value < 0:
                raise kernel.failure(step.doing)
            if step.result is not None:
                step.result.value = value
            at = self._after(at) if value else self._after(at, step.if_zero)

    def _after(self, at: int, label: str = "") -> int:
        return self._labels[label] if label else at + 1

    def _place(self, at: int, step: Step) -> ctypes.Array[ctypes.c_void_p]:
        result = self._unused if step.result is None else step.result
        pointers = [self._pointer(each) for each in step.arguments]
        rest = [self._pointer(0)] * (_LIMIT - len(pointers))
        function = ctypes.cast(step.function, ctypes.c_void_p).value  # type: ignore[arg-type]
        after = ctypes.addressof(self._table) + self._after(at, step.if_zero) * ctypes.sizeof(_Place)
        return _Place(function, *pointers, *rest, self._pointer(result), after)

    def _pointer(self, argument: object) -> int:
        """To a number that is read when the call is made, or to one that is known now."""
        if not isinstance(argument, ctypes.c_long | ctypes.c_int | ctypes.c_void_p):
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
    address = runnable(code) if code is not None else None
    return kernel.function_at(address) if address is not None else None


def runnable(code: bytes) -> int | None:
    """The address of machine code in memory of its own. None where that is refused."""
    address = kernel.map_room(mmap.PAGESIZE)
    ctypes.memmove(address, code, len(code))
    return address if kernel.allow_running(address, mmap.PAGESIZE) else None


# ---- calls for descriptors ----


def taking_descriptors(kept: int, ends: Sequence[ctypes.c_int]) -> list[Step]:
    """Keep the standard streams and the channel, and close every other descriptor.

    stdin is opened anew: flags and locks belong to an open file, and copies of one descriptor would share them with
    the children before and after.
    """
    return [
        _replacing(ends[0], kept, os.O_CLOEXEC),
        kernel.calling("close", 0),
        Step(kernel.libc.open, (os.devnull.encode(), os.O_RDONLY), f"open {os.devnull}"),  # the lowest number: 0
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


def _replacing(old: ctypes.c_int | int, new: int, flags: int = 0) -> Step:
    """Make a descriptor a copy of another one."""
    return kernel.calling("dup3", old, new, flags)


def sending(fd: int, message: bytes) -> Step:
    return Step(kernel.libc.send, (fd, message, len(message), 0), "send")


def receiving(fd: int, first: bytearray, size: ctypes.c_long) -> Step:
    """Wait until something has come. `size`: how many bytes of `first` it takes; 0 if the other end is closed."""
    room = (ctypes.c_char * len(first)).from_buffer(first)
    return Step(kernel.libc.recv, (fd, room, len(first), 0), "recv", size)

"""Tells which system calls a job is denied, and where: for who wonders why a program does not work in here.

The second filter then raises SIGSYS instead of failing the call. The handler writes a line to stderr, lets the call
fail as it would have, and the job goes on:

    denied: socket(0x2, 0x1, 0x0) at line 7

Calls that only the container's filter refuses are refused by this one too, so all are told. Source of the layouts:
siginfo_t and ucontext_t of the C library. For looking only: a job can mask the signal, and then it is killed by it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import sys
from types import FrameType

from runner import syscalls
from runner.fault import FILENAME

_SA_SIGINFO = 4
_SIGNAL_SET_BYTES = 128
_NUMBER_OFFSET = 24  # of si_syscall in siginfo_t
#: Offsets in ucontext_t: of what the call returns, and of its first three arguments.
_REGISTERS = {"x86_64": (144, (104, 112, 136)), "aarch64": (184, (184, 192, 200))}
_MOST_LINES = 200

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class Teller:
    """Installed once, by the child, before the filter. Keep it: the handler lives as long as this object."""

    def __init__(self) -> None:
        self._names = syscalls.names()
        self._result, self._arguments = _REGISTERS[platform.machine()]
        self._told: set[tuple[str, str]] = set()
        self._handler = _Handler(self._denied)

    def install(self) -> None:
        address = ctypes.cast(self._handler, ctypes.c_void_p).value
        action = struct.pack(f"=Q{_SIGNAL_SET_BYTES}siiQ", address, b"", _SA_SIGINFO, 0, 0)
        if ctypes.CDLL(None).sigaction(signal.SIGSYS, action, None) != 0:
            raise OSError(errno.EINVAL, "sigaction")

    def _denied(self, _signal: int, facts: int, context: int) -> None:
        number = ctypes.c_int.from_address(facts + _NUMBER_OFFSET).value
        arguments = ", ".join(f"{ctypes.c_uint64.from_address(context + at).value:#x}" for at in self._arguments)
        ctypes.c_int64.from_address(context + self._result).value = -errno.EPERM
        self._tell(f"{self._names.get(number, f'system call {number}')}({arguments})", _place(sys._getframe()))  # noqa: SLF001

    def _tell(self, call: str, place: str) -> None:
        if (call, place) not in self._told and len(self._told) < _MOST_LINES:
            self._told.add((call, place))
            os.write(2, f"denied: {call}{place}\n".encode())


def _place(frame: FrameType | None) -> str:
    """The innermost line of the job's own code."""
    while frame is not None:
        if frame.f_code.co_filename == FILENAME:
            return f" at line {frame.f_lineno}"
        frame = frame.f_back
    return ""

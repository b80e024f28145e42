"""Reports which system calls a job is denied, and at which line, for users who wonder why a program does not work.

With `explain_denials` the second filter raises SIGSYS instead of failing the call. The handler here writes a line to
stderr and lets the call fail as it would have failed, and the job goes on:

    denied: socket(0x2, 0x1, 0x0) at line 7

Calls that only the container's filter refuses are refused by this filter too, so all of them are reported. A job can
block the signal; then the signal kills it. Source of the layouts: siginfo_t and ucontext_t of the C library.
"""

from __future__ import annotations

import ctypes
import errno
import os
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


class DenialReporter:
    """The child installs it before the filter. The handler lives as long as this object."""

    _installed: DenialReporter | None = None

    def __init__(self) -> None:
        self._names = syscalls.names()
        self._result, self._arguments = _REGISTERS[os.uname().machine]
        self._reported: set[tuple[str, str]] = set()
        self._handler = _Handler(self._denied)

    def install(self) -> None:
        DenialReporter._installed = self
        address = ctypes.cast(self._handler, ctypes.c_void_p).value
        action = struct.pack(f"=Q{_SIGNAL_SET_BYTES}siiQ", address, b"", _SA_SIGINFO, 0, 0)
        if ctypes.CDLL(None).sigaction(signal.SIGSYS, action, None) != 0:
            raise OSError(errno.EINVAL, "sigaction")

    def _denied(self, _signal: int, facts: int, context: int) -> None:
        number = ctypes.c_int.from_address(facts + _NUMBER_OFFSET).value
        arguments = ", ".join(f"{ctypes.c_uint64.from_address(context + at).value:#x}" for at in self._arguments)
        ctypes.c_int64.from_address(context + self._result).value = -errno.EPERM
        self._report(f"{self._names.get(number, f'system call {number}')}({arguments})", _place(sys._getframe()))  # noqa: SLF001

    def _report(self, call: str, place: str) -> None:
        if (call, place) not in self._reported and len(self._reported) < _MOST_LINES:
            self._reported.add((call, place))
            os.write(2, f"denied: {call}{place}\n".encode())


def _place(frame: FrameType | None) -> str:
    """The innermost line of the job's own code."""
    while frame is not None:
        if frame.f_code.co_filename == FILENAME:
            return f" at line {frame.f_lineno}"
        frame = frame.f_back
    return ""

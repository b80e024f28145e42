"""`Client(decode="process")`: values are decoded in a helper process, which this process starts and limits.

    caller's thread                          helper process (decoder_process.py)
    frames ──▶ shared memory ──────────────▶ decodes, and encodes the value again
    value  ◀── decodes the new head  ◀────── the new head; for each large array the number of the frame that it came in

The bytes that a job made are parsed in the helper. If they crash it, or take too much time or memory, the result ends
`error` and the next value gets another helper. This process parses what the helper wrote, with the same checks. The
contents of large arrays are not parsed by either: this process uses the frames that it has.

Limit: if a job takes over a helper through a fault in native code, the helper can send any bytes to this process. Then
the checks of `pool.values.decode` apply to them, as without a helper.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from pool import values, wire
from pool.client.per_process import PerProcess
from pool.errors import ValueCodecError

#: The most helpers of one client. Further callers wait for one.
MAX_HELPERS = 4
#: Limits of one value: a fixed part, and a part for each byte of its frames.
CPU_S, CPU_S_PER_MIB = 10.0, 1.0
MEMORY_BYTES, MEMORY_PER_BYTE = 1 << 30, 4
#: The wall time of one value: three times its CPU time, because the machine may be busy, plus this.
EXTRA_S = 10.0
#: For the start of a helper, which imports numpy and pandas.
START_S = 60.0
MAX_REPLY_BYTES = 65_536
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "PYTHONTZPATH")
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pool.client.decoder_process import main; main()"


class Request(msgspec.Struct, frozen=True):
    """The sizes of the frames, which stand one after another in the shared memory, and the limits of this value."""

    sizes: list[int]
    cpu_s: float
    memory: int


class Reply(msgspec.Struct, frozen=True):
    """The size of the new head, and where its buffers are: in a frame (its number, from 1 on), or new (minus its size).

    The head and the new buffers stand one after another in the shared memory.
    """

    head: int = 0
    buffers: list[int] = []
    error: str = ""


_to_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class ProcessDecoder:
    """`decode` for any number of threads, also in forked children."""

    def __init__(self) -> None:
        self._helpers = PerProcess(Helpers)

    def decode(self, frames: Sequence[wire.Frame]) -> object:
        """The value. Raises ValueCodecError, also when the helper crashes or goes over a limit."""
        return self._helpers[os.getpid()].decode(frames)

    def close(self) -> None:
        helpers = self._helpers.get(os.getpid())
        if helpers is not None:
            helpers.close()


class Helpers:
    """The helper processes of one process."""

    def __init__(self) -> None:
        self._room = threading.BoundedSemaphore(MAX_HELPERS)
        self._idle: deque[Helper] = deque()
        self._closed = False

    def decode(self, frames: Sequence[wire.Frame]) -> object:
        with self._room:
            helper = self._take()
            try:
                anew = helper.reencode(frames)
            except BaseException:
                helper.kill()  # also after KeyboardInterrupt: its answer would be taken for the next value's
                raise
            self._put_back(helper)
        return values.decode(anew)

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().kill()

    def _take(self) -> Helper:
        with contextlib.suppress(IndexError):
            while True:
                helper = self._idle.pop()
                if helper.lives():
                    return helper
                helper.kill()
        return Helper()

    def _put_back(self, helper: Helper) -> None:
        self._idle.append(helper)
        if self._closed:
            self.close()


class Helper:
    """One helper process and the memory that it shares with this one."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket: Final = ours
        self._given: Final = os.memfd_create("pool-given")
        self._made: Final = os.memfd_create("pool-made")
        fds = (theirs.fileno(), self._given, self._made)
        try:
            # A session of its own: Ctrl-C in a terminal is for this process.
            process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path), *map(str, fds)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"OPENBLAS_NUM_THREADS": "1"} | {name: os.environ[name] for name in _KEPT if name in os.environ},
                pass_fds=fds,
                start_new_session=True,
            )
        except BaseException:
            self._close()
            raise
        finally:
            theirs.close()
        self.pid: Final = process.pid
        self._status: int | None = None
        process.returncode = 0  # this class waits for it; in a forked child `Popen` would warn that it still runs
        if self._receive(START_S) != b"ready":
            self.kill()
            raise ValueCodecError(f"the decoder process did not start: {self._end()}")

    def lives(self) -> bool:
        return self._reap(os.WNOHANG) is None

    def reencode(self, frames: Sequence[wire.Frame]) -> list[wire.Frame]:
        """The frames of the same value, encoded anew."""
        sizes = [len(frame) for frame in frames]
        total = sum(sizes)
        at = 0
        for frame, size in zip(frames, sizes, strict=True):
            write(self._given, frame, at)
            at += size
        cpu_s = CPU_S + CPU_S_PER_MIB * total / (1 << 20)
        request = Request(sizes, cpu_s, MEMORY_BYTES + MEMORY_PER_BYTE * total)
        with contextlib.suppress(OSError):  # it has ended: see the answer
            self._socket.send(msgspec.msgpack.encode(request), socket.MSG_NOSIGNAL)
        reply = self._reply(3 * cpu_s + EXTRA_S)
        if reply.error:
            raise ValueCodecError(reply.error[:1000])
        anew = self._frames(reply, frames, most=most_bytes(total))
        for fd in (self._given, self._made):
            os.ftruncate(fd, 0)
        return anew

    def _frames(self, reply: Reply, frames: Sequence[wire.Frame], *, most: int) -> list[wire.Frame]:
        """The head and its buffers. Each frame is used at most once, and new buffers are within the limit."""
        numbers = [number for number in reply.buffers if number > 0]
        size = reply.head - sum(number for number in reply.buffers if number < 0)
        once = len(set(numbers)) == len(numbers) and max(numbers, default=0) < len(frames)
        if not once or reply.head < 1 or size > most:
            raise ValueCodecError("the decoder process sent no valid answer: frames that it did not get, or too large")
        anew: list[wire.Frame] = []
        at = 0
        for number in (-reply.head, *reply.buffers):
            if number > 0:
                anew.append(frames[number])
            else:
                anew.append(buffer := bytearray(-number))
                at += os.preadv(self._made, [buffer], at)
        return anew

    def kill(self) -> None:
        if self.lives():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._reap(0)
        self._close()

    def _reply(self, wait_s: float) -> Reply:
        answer = self._receive(wait_s)
        if answer is None:
            raise ValueCodecError(f"decoding took longer than {wait_s:.0f} s")
        if not answer:
            raise ValueCodecError(f"decoding ended its process: {self._end()}")
        try:
            return _to_reply.decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueCodecError(f"the decoder process sent no valid answer: {error}") from None

    def _receive(self, wait_s: float) -> bytes | None:
        """One message; empty: the helper has ended; None: the time is over."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(wait_s * 1000):
            return None
        try:
            return self._socket.recv(MAX_REPLY_BYTES)
        except ConnectionResetError:
            return b""

    def _end(self) -> str:
        deadline = time.monotonic() + 5  # the socket is closed a moment before the process can be waited for
        while (status := self._reap(os.WNOHANG)) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        code = None if status is None else os.waitstatus_to_exitcode(status)
        if code == -signal.SIGXCPU:
            return "it used more CPU time than a value may take"
        return f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"

    def _reap(self, flags: int) -> int | None:
        """The wait status; None while it runs."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, flags)
            except ChildProcessError:  # the program itself waits for all its children
                pid, status = self.pid, 0
            self._status = status if pid else None
        return self._status

    def _close(self) -> None:
        self._socket.close()
        for fd in (self._given, self._made):
            with contextlib.suppress(OSError):
                os.close(fd)


def most_bytes(total: int) -> int:
    """The largest size of a value of so many bytes after it was encoded again."""
    return 2 * total + (1 << 16)


def write(fd: int, frame: wire.Frame, at: int) -> None:
    left = memoryview(frame).cast("B")
    while left:
        count = os.pwrite(fd, left, at)
        at, left = at + count, left[count:]

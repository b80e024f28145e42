"""Messages between the runner and a child over a stream socket, and the report that begins a child's answer.

    message   ┌───────────┬───────────┬───────────┬───┬─────────┬─────────┬───
              │ u32 count │ u64 size0 │ u64 size1 │ … │ frame 0 │ frame 1 │ …                             big endian
              └───────────┴───────────┴───────────┴───┴─────────┴─────────┴───
    report    ┌────────────┬────────────┬──────────┬──────────┬────────────┬─────────────┬───────────┐
    (frame 0) │ u8 outcome │ i32 exit   │ u8 about │ u8 files │ u8 pending │ u64 started │ u64 ended │  CLOCK_MONOTONIC,
              └────────────┴────────────┴──────────┴──────────┴────────────┴─────────────┴───────────┘  ns
    answer    [report, error, *(file name, content), *value]

If exit handlers or threads of the job still run after its code has ended, the child sends two answers. The first is
`pending` and has the value, the second has the files.

The runner sends a job with `send`, and the parked child reads it with `receive`; both block. The answer comes from a
process that has run hostile code, so the runner reads it with a `Collector`: it never blocks, and it checks every count
and size before it allocates memory. The runner decodes nothing in an answer but the report, which has a fixed layout.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from pool import wire
from pool.model import Outcome

_COUNT = struct.Struct("!I")
_SIZE = struct.Struct("!Q")
_REPORT = struct.Struct("!BiBBBQQ")
_READ_BYTES = 256 * 1024

#: The outcomes that a child may claim, by number. Only the runner gives the others, from what the kernel reports.
CLAIMS = (Outcome.OK, Outcome.ERROR, Outcome.MEMORY, Outcome.OUTPUT, Outcome.REJECTED)
#: What the child's error is about, by number: a limit, its value, or nothing that is known.
ABOUT = (
    "",
    "tmp",
    "nofile",
    "processes",
    "value",
    "inodes",
    "input",
    "files",
    "programs",
    "not called",
    "not returned",
    "interrupt",
)
_NO_EXIT_CODE = -1

Frame = bytes | bytearray | memoryview


class ChannelError(Exception):
    """The child sent something that is not an answer, or more than the cap."""


def send(sock: socket.socket, frames: Sequence[Frame]) -> None:
    """Send one message, blocking. Raises OSError when the other end is closed."""
    sizes = [memoryview(frame).nbytes for frame in frames]
    head = _COUNT.pack(len(frames)) + b"".join(map(_SIZE.pack, sizes))
    if sum(sizes) <= _READ_BYTES:
        sock.sendall(b"".join((head, *frames)))
        return
    sock.sendall(head)
    for frame in frames:
        sock.sendall(frame)


def receive(sock: socket.socket) -> list[bytearray]:
    """Wait for one message. Raises EOFError when the other end closes before its end."""
    (count,) = _COUNT.unpack(_exactly(sock, _COUNT.size))
    head = _exactly(sock, count * _SIZE.size)
    return [_exactly(sock, size) for (size,) in _SIZE.iter_unpack(head)]


def _exactly(sock: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        got = sock.recv_into(view)
        if not got:
            raise EOFError("the channel was closed")
        view = view[got:]
    return buffer


@dataclass(slots=True, kw_only=True)
class Collector:
    """Reads one message from a non-blocking socket. `frames` is None until the message is complete.

    1. Call `feed` when the socket is readable. It raises ChannelError at the first byte of a message that is not
       allowed; do not call it after that.
    2. It never holds more than `max_bytes` of frames and `max_frames` frames.
    """

    sock: socket.socket
    max_bytes: int
    max_frames: int
    frames: list[bytearray] | None = None
    closed: bool = False
    over_cap: bool = False  #: the message was refused only because of its size
    _parts: list[bytearray] = field(default_factory=lambda: [bytearray(_COUNT.size)])  # count, sizes, then the frames
    _at: int = 0  # index of the part that is being read
    _filled: int = 0  # bytes of it that were read

    def feed(self) -> None:
        """Take what is there, without waiting."""
        try:
            while self.frames is None and not self.closed:
                part = memoryview(self._parts[self._at])
                got = self.sock.recv_into(part[self._filled : self._filled + _READ_BYTES])
                self.closed = not got
                self._filled += got
                if self._filled == len(part):
                    self._next_part()
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True

    def _next_part(self) -> None:
        """A part is complete. The count announces the sizes, the sizes the frames. Empty frames are skipped."""
        if self._at == 0:
            (count,) = _COUNT.unpack(self._parts[0])
            if not 1 <= count <= self.max_frames:
                raise ChannelError(f"a message has 1 to {self.max_frames} frames, not {count}")
            self._parts.append(bytearray(count * _SIZE.size))
        elif self._at == 1:
            sizes = [size for (size,) in _SIZE.iter_unpack(self._parts[1])]
            if sum(sizes) > self.max_bytes:
                self.over_cap = True
                raise ChannelError(f"a message has at most {self.max_bytes} bytes, not {sum(sizes)}")
            self._parts += map(bytearray, sizes)
        self._at, self._filled = self._at + 1, 0
        while self._at < len(self._parts) and not self._parts[self._at]:
            self._at += 1
        if self._at == len(self._parts):
            self.frames = self._parts[2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a child claims about the job that it ran."""

    outcome: Outcome
    started_ns: int
    ended_ns: int
    exit_code: int | None = None
    about: str = ""  #: one of ABOUT
    files: int = 0
    pending: bool = False  #: a second answer follows

    def pack(self) -> bytes:
        code = _NO_EXIT_CODE if self.exit_code is None else self.exit_code
        claim, about = CLAIMS.index(self.outcome), ABOUT.index(self.about)
        return _REPORT.pack(claim, code, about, self.files, self.pending, self.started_ns, self.ended_ns)

    @classmethod
    def unpack(cls, frame: Frame) -> Report | None:
        """None for bytes that are not a report."""
        if len(frame) != _REPORT.size:
            return None
        claim, code, about, files, pending, started_ns, ended_ns = _REPORT.unpack(frame)
        if claim >= len(CLAIMS) or about >= len(ABOUT):
            return None
        return cls(
            outcome=CLAIMS[claim],
            started_ns=started_ns,
            ended_ns=ended_ns,
            exit_code=None if code == _NO_EXIT_CODE else code & 0xFF,
            about=ABOUT[about],
            files=files,
            pending=bool(pending),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, in its parts. None of the frames is decoded."""

    report: Report
    error: Frame
    names: tuple[str, ...]
    contents: Sequence[Frame]
    value: Sequence[Frame]

    @classmethod
    def of(cls, frames: Sequence[bytearray]) -> Answer | None:
        """None for frames that are not an answer, and for an answer with a file whose name is not allowed."""
        report = Report.unpack(frames[0])
        if report is None or report.files > wire.MAX_FILES_OUT or len(frames) < 2 + 2 * report.files:
            return None
        end = 2 + 2 * report.files
        names = file_names(frames[2:end:2]) if report.files else ()
        return cls(report, frames[1], names, frames[3:end:2], frames[end:]) if len(names) == report.files else None


def file_names(frames: Sequence[bytearray]) -> tuple[str, ...]:
    """The allowed names among these frames, in order and without repetition."""
    found = dict.fromkeys(bytes(frame).decode(errors="replace") for frame in frames if len(frame) <= 255)
    return tuple(name for name in found if wire.is_relative_name(name) and "\ufffd" not in name)

"""Messages between the runner and a child over a stream socket, and the report that begins a child's answer.

    message   ┌───────────┬───────────┬───────────┬───┬─────────┬─────────┬───
              │ u32 count │ u64 size0 │ u64 size1 │ … │ frame 0 │ frame 1 │ …                             big endian
              └───────────┴───────────┴───────────┴───┴─────────┴─────────┴───
    report    ┌────────────┬────────────┬──────────┬──────────┬────────────┬─────────────┬───────────┐
    (frame 0) │ u8 outcome │ i32 exit   │ u8 about │ u8 files │ u8 pending │ u64 started │ u64 ended │  CLOCK_MONOTONIC,
              └────────────┴────────────┴──────────┴──────────┴────────────┴─────────────┴───────────┘  ns
    answer    [report, error, *(file name, content), *value]
    warm-up   no frames                              to a parked child whose worker is idle, before its job
    byte code [COMPILED, byte code or nothing]       before the answer of a child that was asked for it

If exit handlers or threads of the job still run after its code has ended, the child sends two answers. The first is
`pending` and has the value, the second has the files.

The runner sends a job with `send`, and the parked child reads it with `receive`; both block. The answer comes from a
process that has run hostile code, so the runner reads it with a `Collector`: it never blocks, and it checks every count
and size before it allocates memory. The runner decodes nothing in an answer but the report, which has a fixed layout.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Sequence
from itertools import accumulate, pairwise

from msgspec import Struct

from pool import wire
from pool.outcome import Outcome

_COUNT = struct.Struct("!I")
_SIZE = struct.Struct("!Q")
_REPORT = struct.Struct("!BiBBBQQ")
_READ_BYTES = 256 * 1024
#: All of a small message.
FIRST_READ_BYTES = 16 * 1024
#: Reads in one turn of the loop: a child that sends byte after byte must not delay the deadline of its job.
READS_PER_TURN = 16

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
    "module",
)
_NO_EXIT_CODE = -1

#: To a parked child whose worker is idle: a message without frames, which is sent at most once, before the job.
WARM_UP = _COUNT.pack(0)
#: The first frame of the message with byte code.
COMPILED = b"compiled"
#: The most byte code that a child sends: it is held for the later jobs of the worker, and each reads it.
MAX_CODE_BYTES = 512 * 1024

#: Frames of an answer: the Done that is made of it has the two streams in place of the report, so one more.
MAX_FRAMES = wire.MAX_FRAMES - 1
#: Reads of a socket that nobody writes to any more. Each takes all that is there of one frame.
LAST_READS = MAX_FRAMES + 64

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


def _grown(part: bytearray, size: int) -> bytearray:
    """With zeros that take no memory before they are written to."""
    whole = bytearray(size)
    whole[: len(part)] = part
    return whole


class Collector(Struct, kw_only=True):
    """Reads messages from a socket, mostly from a non-blocking one. `frames` is None until a message is complete.

    1. Call `feed` while the socket is readable. It raises ChannelError at the first byte of a message that is not
       allowed; do not call it after that. Call `next_message` to read another one.
    2. It never holds more than `max_bytes` of frames, `max_frames` frames, and one first read besides.
    """

    sock: socket.socket
    max_bytes: int
    max_frames: int
    frames: list[bytearray] | None = None
    closed: bool = False
    over_cap: bool = False  #: the message was refused only because of its size
    _early: bytearray = bytearray()  # read, and not in a frame yet
    _parts: list[bytearray] | None = None  # the frames that the head has announced
    _at: int = 0  # index of the frame that is being read
    _filled: int = 0  # bytes of it that were read

    def feed(self, reads: int = READS_PER_TURN) -> None:
        """Take what is there, with at most `reads` reads. It waits only if the socket blocks."""
        try:
            while self.frames is None and not self.closed:
                if self._parts is None and self._read_head():
                    continue
                if not reads:
                    return
                reads -= 1
                if self._parts is not None:
                    self._fill(self._parts)
                else:
                    chunk = self.sock.recv(FIRST_READ_BYTES)
                    self.closed = not chunk
                    self._early += chunk
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True

    def wait(self) -> list[bytearray]:
        """Return the next message of a socket that blocks. Raises EOFError when the other end closes before its end."""
        self.next_message()
        while self.frames is None and not self.closed:
            self.feed()
        if self.frames is None:
            raise EOFError("the channel was closed")
        return self.frames

    def next_message(self) -> None:
        """Begin to read another one. What has come after the last one belongs to it."""
        self.frames = self._parts = None
        self._at = self._filled = 0

    def _read_head(self) -> bool:
        """The count announces the sizes, the sizes the frames. False: the head is not complete."""
        early = self._early
        if len(early) < _COUNT.size:
            return False
        (count,) = _COUNT.unpack_from(early)
        if not 1 <= count <= self.max_frames:
            raise ChannelError(f"a message has 1 to {self.max_frames} frames, not {count}")
        end = _COUNT.size + count * _SIZE.size
        if len(early) < end:
            return False
        sizes = [size for (size,) in _SIZE.iter_unpack(early[_COUNT.size : end])]
        if sum(sizes) > self.max_bytes:
            self.over_cap = True
            raise ChannelError(f"a message has at most {self.max_bytes} bytes, not {sum(sizes)}")
        if len(early) < end + sum(sizes):
            self._begin(sizes, end)
            return True
        ends = list(accumulate(sizes, initial=end))  # a small message has come as a whole
        self.frames, self._early = [early[start:end] for start, end in pairwise(ends)], early[ends[-1] :]
        return True

    def _begin(self, sizes: Sequence[int], start: int) -> None:
        """Set memory aside for the frames of a large message, and put into them what has come with the head."""
        parts: list[bytearray] = []
        for size in sizes:
            part = self._early[start : start + size]
            start += size
            if self._at == len(parts):  # all before it are complete
                complete = len(part) == size
                self._at, self._filled = self._at + complete, 0 if complete else len(part)
            parts.append(part if len(part) == size else _grown(part, size))
        self._early = self._early[start:]
        self._parts = parts
        self.frames = parts if self._at == len(parts) else None

    def _fill(self, parts: list[bytearray]) -> None:
        """Read into the frame that is not complete."""
        part = memoryview(parts[self._at])
        got = self.sock.recv_into(part[self._filled : self._filled + _READ_BYTES])
        self.closed = not got
        self._filled += got
        while self._at < len(parts) and self._filled == len(parts[self._at]):
            self._at, self._filled = self._at + 1, 0
        self.frames = parts if self._at == len(parts) else None


def trusting(sock: socket.socket) -> Collector:
    """Reads messages of any size."""
    return Collector(sock=sock, max_bytes=sys.maxsize, max_frames=sys.maxsize)


def receive(sock: socket.socket, got: bytearray) -> list[bytearray]:
    """Wait for the only message of a writer that is trusted. Raises EOFError when it closes before the end.

    `got`: what has come of it. A child calls this once; a `Collector` would cost it thirty pages.
    """
    head = _COUNT.size
    while len(got) < head or len(got) < (end := head + _COUNT.unpack_from(got)[0] * _SIZE.size):
        if not (more := sock.recv(FIRST_READ_BYTES)):
            raise EOFError("the channel was closed")
        got += more
    frames, at = [], end
    for (size,) in _SIZE.iter_unpack(got[head:end]):
        frame = got[at : at + size]
        at += size
        frames.append(frame if len(frame) == size else _completed(sock, frame, size))
    return frames


def _completed(sock: socket.socket, part: bytearray, size: int) -> bytearray:
    """The frame that begins with this part, read to its end."""
    frame, filled = _grown(part, size), len(part)
    with memoryview(frame) as view:
        while filled < size:
            if not (more := sock.recv_into(view[filled:])):
                raise EOFError("the channel was closed")
            filled += more
    return frame


class Answer(Struct):
    """What a child claims about the job that it ran, and what the job gives. The runner decodes none of the frames.

    The child puts it together step by step.
    """

    outcome: Outcome
    ended_ns: int
    started_ns: int = 0
    exit_code: int | None = None
    about: str = ""  #: what its error is about, one of ABOUT
    pending: bool = False  #: a second answer follows
    error: Frame = b""
    files: Sequence[Frame] = ()  #: names and contents in turn
    value: Sequence[Frame] = ()

    def frames(self) -> list[Frame]:
        """As it is sent."""
        code = _NO_EXIT_CODE if self.exit_code is None else self.exit_code
        claim, about, files = CLAIMS.index(self.outcome), ABOUT.index(self.about), len(self.files) // 2
        report = _REPORT.pack(claim, code, about, files, self.pending, self.started_ns, self.ended_ns)
        return [report, self.error, *self.files, *self.value]

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> Answer | None:
        """None for frames that are not an answer, and for an answer with a file whose name is not allowed."""
        if len(frames) < 2 or len(frames[0]) != _REPORT.size:
            return None
        claim, code, about, files, pending, started_ns, ended_ns = _REPORT.unpack(frames[0])
        end = 2 + 2 * files
        if claim >= len(CLAIMS) or about >= len(ABOUT) or files > wire.MAX_FILES_OUT or len(frames) < end:
            return None
        if files and len(file_names(frames[2:end:2])) != files:
            return None
        return cls(
            CLAIMS[claim],
            ended_ns,
            started_ns=started_ns,
            exit_code=None if code == _NO_EXIT_CODE else code & 0xFF,
            about=ABOUT[about],
            pending=bool(pending),
            error=frames[1],
            files=frames[2:end],
            value=frames[end:],
        )


def byte_code(frames: Sequence[bytearray]) -> bytes | None:
    """Of a message that brings it; None for every other one."""
    mine = len(frames) == 2 and frames[0] == COMPILED and len(frames[1]) <= MAX_CODE_BYTES
    return bytes(frames[1]) if mine else None


def file_names(frames: Sequence[Frame]) -> tuple[str, ...]:
    """The allowed names among these frames, in order and without repetition."""
    found = dict.fromkeys(bytes(frame).decode(errors="replace") for frame in frames if len(frame) <= 255)
    return tuple(name for name in found if wire.is_relative_name(name) and "\ufffd" not in name)

"""ZMTP 3 (RFC 23, RFC 37) as a server reads it, without a socket: bytes in, events out, every bound checked first.

    feed(bytes) ──▶ greeting ──▶ READY ──▶ frame, frame, ... ──▶ next() gives Peer once, then Ping, Pong and Parts
                                             │
    room() ◀── a large frame's own buffer ◀──┘     filled(n): bytes were read straight into it

1. Whatever the bytes, nothing but RemoteProtocolError is raised, and at the first byte that shows the fault. What was
   said before that byte has been given out. A decoder that has raised is of no further use.
2. Memory is set aside for what has arrived and never for what was announced. An unfinished message holds at most
   `limit` bytes, with something added for each of its frames, so that a million empty ones are not free.
3. However a stream is cut into pieces, its events are the same.
"""

from __future__ import annotations

import mmap
from typing import NamedTuple

from pool.daemon.zmtp.codec import GREETING_BYTES, Frame, Peer, Ping, Pong, check_greeting, read_command, read_ready
from pool.errors import RemoteProtocolError

#: What a command may have. READY holds a socket type and an identity, PING 18 bytes.
MAX_COMMAND_BYTES = 8192
#: What the holder of a frame costs, about.
FRAME_COST = 64

#: From this size on a body has pages of its own. Below, copying into memory that the heap has at hand is cheaper than
#: faulting in new pages, and a process can have only so many mappings.
LARGE_BYTES = 16 * 1024 * 1024
_FIRST_BYTES = 256 * 1024

_MORE, _LONG, _COMMAND = 1, 2, 4
_RESERVED = 0xF8
_NOTHING = memoryview(b"")


class Parts(NamedTuple):
    """A whole message."""

    frames: list[Frame]


Event = Peer | Ping | Pong | Parts


class Decoder:
    """One connection's incoming side. `limit` may be changed at any time and holds from the next frame on."""

    def __init__(self, *, limit: int, max_frames: int) -> None:
        self.limit = limit
        self.ready = False
        self._max_frames = max_frames
        self._greeted = False
        self._minor = 0
        self._chunk = _NOTHING
        self._at = 0
        self._stub = bytearray()
        self._flags = 0
        self._body: Body | None = None
        self._frames: list[Frame] = []
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of the unfinished message that are in memory."""
        return self._held + (self._body.filled if self._body is not None else 0)

    @property
    def pending(self) -> bool:
        """Whether bytes were fed that `next` has not looked at."""
        return self._at < len(self._chunk)

    # ---- bytes in ----

    def room(self) -> memoryview | None:
        """Where to read a large frame's next bytes to; None when they are to be fed. Call when `next` gave None."""
        return self._body.room() if self._body is not None else None

    def filled(self, count: int) -> None:
        """That many bytes are in the room now."""
        assert self._body is not None
        self._body.took(count)

    def feed(self, chunk: memoryview) -> None:
        """More bytes; call when `next` gave None. They must stay as they are until `settle`, or until it does again."""
        assert not self.pending
        self._chunk, self._at = chunk, 0

    def settle(self) -> None:
        """Keep what was not looked at yet, so that the memory that was fed can be used for something else."""
        if self.pending:
            self._chunk, self._at = memoryview(bytes(self._chunk[self._at :])), 0
        else:
            self._chunk, self._at = _NOTHING, 0

    # ---- events out ----

    def next(self) -> Event | None:
        """The next event; None when it takes more bytes. Raises RemoteProtocolError."""
        if not self._greeted and not self._greet():
            return None
        while True:
            if self._body is None and not self._begin_frame():
                return None
            frame = self._read_body()
            if frame is None:
                return None
            event = self._end_frame(frame)
            if event is not None:
                return event

    def _greet(self) -> bool:
        whole = self._collect(GREETING_BYTES)
        self._minor = check_greeting(self._stub)
        if whole:
            self._greeted = True
            self._stub.clear()
        return whole

    def _collect(self, count: int) -> bool:
        """Whether that many bytes are in the stub, after taking there what is missing."""
        missing = count - len(self._stub)
        if missing > 0:
            taken = self._chunk[self._at : self._at + missing]
            self._stub += taken
            self._at += len(taken)
        return len(self._stub) >= count

    def _begin_frame(self) -> bool:
        """Read flags and size, and refuse what may not follow. False when it takes more bytes."""
        if not self._collect(1):
            return False
        flags = self._stub[0]
        self._check_flags(flags)
        long = flags & _LONG
        if not self._collect(9 if long else 2):
            return False
        size = int.from_bytes(self._stub[1:])
        self._stub.clear()
        self._check_size(flags, size)
        self._flags, self._body = flags, Body(size)
        return True

    def _check_flags(self, flags: int) -> None:
        if flags & _RESERVED or flags & (_MORE | _COMMAND) == _MORE | _COMMAND:
            raise RemoteProtocolError(f"a frame begins with {flags:#04x}, which is no frame")
        if not self.ready and not flags & _COMMAND:
            raise RemoteProtocolError("a message came before READY")

    def _check_size(self, flags: int, size: int) -> None:
        if flags & _COMMAND:
            if size > MAX_COMMAND_BYTES:
                raise RemoteProtocolError(f"a command of {size} bytes, at most {MAX_COMMAND_BYTES} are taken")
            return
        if len(self._frames) >= self._max_frames:
            raise RemoteProtocolError(f"a message of more than {self._max_frames} frames")
        if self._held + FRAME_COST + size > self.limit:
            raise RemoteProtocolError(
                f"a frame of {size} bytes after {self._held}, at most {self.limit} are taken in one message now"
            )

    def _read_body(self) -> Frame | None:
        body = self._body
        assert body is not None
        if body.missing:
            taken = self._chunk[self._at : self._at + body.missing]
            self._at += len(taken)
            if body.add(taken):
                return None
        self._body = None
        return body.frame()

    def _end_frame(self, frame: Frame) -> Event | None:
        if self._flags & _COMMAND:
            return self._command(bytes(frame))
        self._frames.append(frame)
        self._held += len(frame) + FRAME_COST
        if self._flags & _MORE:
            return None
        parts, self._frames, self._held = Parts(self._frames), [], 0
        return parts

    def _command(self, body: bytes) -> Event:
        if self.ready:
            return read_command(body)
        peer = read_ready(body, self._minor)
        self.ready = True
        return peer


class Body:
    """`add` or `room` and `took` until nothing is missing, then `frame`."""

    __slots__ = ("_pages", "_small", "filled", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.filled = 0
        self._small: bytes | bytearray = b""
        self._pages: mmap.mmap | None = None

    @property
    def missing(self) -> int:
        return self.size - self.filled

    def add(self, taken: memoryview) -> int:
        """Copy some bytes of it; how many are missing now."""
        if self.size >= LARGE_BYTES:
            while taken:
                room = self.room()
                assert room is not None
                count = min(len(room), len(taken))
                room[:count] = taken[:count]
                taken = taken[count:]
                room.release()
                self.took(count)
            return self.missing
        if not self.filled:
            self._small = bytes(taken) if len(taken) == self.size else bytearray(taken)
        else:
            self._small += taken
        self.filled += len(taken)
        return self.missing

    def room(self) -> memoryview | None:
        """Where a large body goes on; None for a small one. To be released before the next call of anything."""
        if self.size < LARGE_BYTES:
            return None
        try:
            if self._pages is None:
                self._pages = mmap.mmap(-1, _FIRST_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            elif self.filled == len(self._pages):
                self._pages.resize(min(2 * self.filled, self.size))
        except OSError as error:
            raise RemoteProtocolError(f"no memory for a frame of {self.size} bytes: {error.strerror}") from None
        return memoryview(self._pages)[self.filled :]

    def took(self, count: int) -> None:
        self.filled += count

    def frame(self) -> Frame:
        """The whole body."""
        return self._small if self._pages is None else memoryview(self._pages)

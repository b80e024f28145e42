"""The incoming side of one ZMTP connection, without a socket: bytes in, events out, every bound checked first.

    next(data) ──▶ Greeting, Peer (the handshake), then Message, Ping and Pong; None: it takes more bytes
    body.room(): the socket is read straight into the pages of a large frame

1. For bad bytes it raises RemoteProtocolError and nothing else, at the first byte that shows the fault. Events of the
   bytes before it have been given out. A decoder that has raised must not be used again.
2. It sets memory aside for bytes that have arrived, never for a size that was announced. An unfinished message holds at
   most `limit` bytes. Each of its frames counts with some bytes extra, since a million empty frames take memory too.
3. The events do not depend on how the stream is cut into pieces.
"""

from __future__ import annotations

import mmap

from pool.daemon.zmtp.codec import (
    GREETING_BYTES,
    Greeting,
    Peer,
    Ping,
    Pong,
    check_greeting,
    read_command,
    read_greeting,
    read_ready,
)
from pool.errors import RemoteProtocolError
from pool.wire import Frame

#: The most that a command may have. READY holds a socket type and an identity, PING at most 18 bytes.
MAX_COMMAND_BYTES = 8192
#: About what one frame costs besides its bytes.
FRAME_COST = 64
#: Frames up to this size are decoded once they are here whole. A larger one is collected by a Body.
_WHOLE_BYTES = 8192
#: From this size on a body has pages of its own. Below, copying into memory that the heap has at hand is cheaper than
#: faulting in new pages, and a process can have only so many mappings.
LARGE_BYTES = 16 * 1024 * 1024
_FIRST_BYTES = 256 * 1024

_MORE, _LONG, _COMMAND = 1, 2, 4
_HANDSHAKE_FLAGS = frozenset({_COMMAND, _COMMAND | _LONG})
_MESSAGE_FLAGS = frozenset({0, _MORE, _LONG, _MORE | _LONG})


#: A list of frames is a whole message.
Event = Greeting | Peer | Ping | Pong | list[Frame]


class Decoder:
    """One connection's incoming bytes. `limit` may be changed at any time and holds from the next frame on."""

    def __init__(self, *, limit: int, max_frames: int) -> None:
        self.limit = limit
        self.held = 0  #: bytes in memory of what is unfinished; valid when `next` has returned None
        self.pending = False  #: whether `next` may return an event without more bytes
        self.body: Body | None = None  #: a large frame that is not whole yet; its room may be read into
        self._max_frames = max_frames
        self._greeted = False
        self._allowed = _HANDSHAKE_FLAGS  # what the next frame may begin with
        self._data = b""
        self._at = 0
        self._frames: list[Frame] = []
        self._size = 0  # of the frames, with their costs

    def next(self, data: bytes = b"") -> Event | None:
        """The next event; None when it takes more bytes. Raises RemoteProtocolError.

        `data`: bytes that have arrived. It may be given only while `pending` is False.
        """
        if data:
            self._data, self._at = self._data[self._at :] + data, 0
        if self.body is not None or not self._greeted:
            return self._continue()
        # Every small message goes through this loop, so it makes no calls.
        data, end = self._data, len(self._data)
        while self._at < end:
            flags = data[self._at]
            start = self._at + (9 if flags & _LONG else 2)
            size = data[start - 1] if start == self._at + 2 <= end else int.from_bytes(data[self._at + 1 : start])
            total = self._size + FRAME_COST + size
            plain = flags in self._allowed and not flags & _COMMAND and len(self._frames) < self._max_frames
            if not plain or start + size > end or total > self.limit:
                return self._take_other(flags, start, size)
            self._frames.append(data[start : start + size])
            self._size, self._at = total, start + size
            if not flags & _MORE:
                frames, self._frames, self._size = self._frames, [], 0
                self.pending = self._at < end
                if not self.pending:
                    self._data, self._at = b"", 0  # an idle connection holds nothing
                return frames
        return self._wait()

    def _continue(self) -> Event | None:
        """Go on with the greeting, or with a body."""
        if self.body is None:
            return self._greet()
        if not self._fill(self.body):
            return self._wait()
        body, self.body = self.body, None
        self._frames.append(body.frame())
        self._size += FRAME_COST + body.size
        if body.more:
            return self.next()
        frames, self._frames, self._size = self._frames, [], 0
        self._wait()
        self.pending = bool(self._data)
        return frames

    def _greet(self) -> Event | None:
        greeting = self._data[:GREETING_BYTES]
        check_greeting(greeting)
        if len(greeting) < GREETING_BYTES:
            return self._wait()
        self._greeted, self._at = True, GREETING_BYTES
        self.pending = self._at < len(self._data)
        return read_greeting(greeting)

    def _take_other(self, flags: int, start: int, size: int) -> Event | None:
        """A command, a frame that is not here whole, or one that is not allowed."""
        if flags not in self._allowed:
            early = "; a message came before READY" if flags in _MESSAGE_FLAGS else ""
            raise RemoteProtocolError(f"a frame begins with {flags:#04x}, which is not allowed here{early}")
        if start > len(self._data):
            return self._wait()
        if flags & _COMMAND:
            return self._take_command(start, size)
        self._check_size(size)
        if size > _WHOLE_BYTES:
            self.body, self._at = Body(size, more=bool(flags & _MORE)), start
            self._fill(self.body)
        return self._wait()

    def _check_size(self, size: int) -> None:
        if len(self._frames) >= self._max_frames:
            raise RemoteProtocolError(f"a message has more than {self._max_frames} frames")
        if self._size + FRAME_COST + size > self.limit:
            raise RemoteProtocolError(
                f"a frame of {size} bytes comes after {self._size} bytes of its message; {self.limit} are allowed now"
            )

    def _take_command(self, start: int, size: int) -> Event | None:
        if size > MAX_COMMAND_BYTES:
            raise RemoteProtocolError(f"a command has {size} bytes, {MAX_COMMAND_BYTES} are allowed")
        body = self._data[start : start + size]
        if len(body) < size:
            return self._wait()
        self._at = start + size
        self.pending = self._at < len(self._data)
        if self._allowed is _HANDSHAKE_FLAGS:
            peer = read_ready(body)
            self._allowed = _HANDSHAKE_FLAGS | _MESSAGE_FLAGS
            return peer
        return read_command(body)

    def _fill(self, body: Body) -> bool:
        """Give a body the bytes that are here of it; whether it is whole."""
        stop = self._at + body.size - body.filled
        body.add(memoryview(self._data)[self._at : stop])
        self._at = min(stop, len(self._data))
        return body.filled == body.size

    def _wait(self) -> Event | None:
        """Keep only the bytes that were not used yet."""
        self._data, self._at, self.pending = self._data[self._at :], 0, False
        self.held = self._size + len(self._data) + (self.body.filled if self.body is not None else 0)
        return None


class Body:
    """The bytes of one large frame while they arrive. Its memory grows with what is here, up to the announced size.

    From LARGE_BYTES on it has pages of its own: they grow by moving page tables and not bytes, they cost nothing until
    they are written, and they go back to the system at once when the last view of the frame is gone.
    """

    __slots__ = ("_pages", "_small", "filled", "more", "size")

    def __init__(self, size: int, *, more: bool = False) -> None:
        self.size = size
        self.more = more  #: whether another frame follows
        self.filled = 0
        self._small = bytearray()
        self._pages: mmap.mmap | None = None

    def add(self, data: memoryview) -> None:
        """Copy its next bytes."""
        if self.size < LARGE_BYTES:
            self._small += data
            self.filled += len(data)
            return
        while data:
            with self._grow() as room:
                count = min(len(room), len(data))
                room[:count] = data[:count]
            self.filled += count
            data = data[count:]

    def room(self) -> memoryview | None:
        """Where to read the next bytes to, then add their number to `filled`; None for a body without pages.

        To be released before the next call.
        """
        return self._grow() if self.size >= LARGE_BYTES else None

    def _grow(self) -> memoryview:
        try:
            if self._pages is None:
                self._pages = mmap.mmap(-1, _FIRST_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            elif self.filled == len(self._pages):
                self._pages.resize(min(2 * self.filled, self.size))
        except OSError as error:
            raise RemoteProtocolError(f"no memory for a frame of {self.size} bytes: {error.strerror}") from None
        return memoryview(self._pages)[self.filled :]

    def frame(self) -> Frame:
        """The whole body."""
        return self._small if self._pages is None else memoryview(self._pages)

"""ZMTP 3 with the NULL mechanism (RFC 23 and RFC 37), without a socket: bytes to events, and messages to bytes.

    frame     flags (1 more, 2 long, 4 command), size of 1 or 8 bytes, body; the rest is in commands.py

    Decoder.next(data) ──▶ Greeting, Peer (the handshake), then messages, Ping and Pong; None: it takes more bytes
    pack(frames) ──▶ the buffers to send

Bytes of a peer that break the protocol raise RemoteProtocolError, and nothing else is raised for any.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from pool.daemon.zmtp import commands
from pool.daemon.zmtp.body import Body
from pool.errors import RemoteProtocolError
from pool.wire import Frame

#: Frames up to this size are joined with their neighbours; a larger one is sent from where it lies.
_JOIN_BYTES = 16 * 1024
#: The most that a command may have. READY holds a socket type and an identity, PING at most 18 bytes.
MAX_COMMAND_BYTES = 8192
#: About what one frame costs besides its bytes.
FRAME_COST = 64
#: Frames up to this size are decoded once they are here whole. A larger one is collected by a Body.
_WHOLE_BYTES = 8192
_MORE, _LONG, _COMMAND = 1, 2, 4
_HANDSHAKE_FLAGS = frozenset({_COMMAND, _COMMAND | _LONG})
_MESSAGE_FLAGS = frozenset({0, _MORE, _LONG, _MORE | _LONG})

Buffer = bytes | memoryview


#: A list of frames is a whole message.
Event = commands.Greeting | commands.Peer | commands.Ping | commands.Pong | list[Frame]


# ---- what comes in ----


class Decoder:
    """One connection's incoming bytes. `limit` may be changed at any time and holds from the next frame on.

    1. It raises at the first byte that shows a fault. Events of the bytes before it have been given out. A decoder that
       has raised must not be used again.
    2. It sets memory aside for bytes that have arrived, never for a size that was announced. An unfinished message
       holds at most `limit` bytes. Each of its frames counts with some bytes extra, since a million empty frames take
       memory too.
    3. The events do not depend on how the stream is cut into pieces.
    """

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
        if self._frames or self.body is not None or self._allowed is _HANDSHAKE_FLAGS:
            return self._continue()
        # Nearly every message is here whole. It goes through this loop, which calls little and checks at the end.
        data, at, more = self._data, self._at, _MORE
        frames: list[Frame] = []
        try:
            while more:
                more, size = data[at], data[at + 1]
                if more > _MORE:
                    if more & ~_MORE != _LONG:
                        return self._take_frames()
                    more, size, at = more & _MORE, int.from_bytes(data[at + 1 : at + 9]), at + 7
                at += 2
                frames.append(data[at : at + size])
                at += size
        except IndexError:  # it is not here whole
            return self._take_frames()
        total, end = at - self._at + FRAME_COST * len(frames), len(data)
        if at > end or total > self.limit or len(frames) > self._max_frames:
            return self._take_frames()
        self._at, self.pending = at, at < end
        if at == end:
            self._data, self._at = b"", 0  # an idle connection holds nothing
        return frames

    def _continue(self) -> Event | None:
        """Go on with the greeting, or with a message of which a part was taken."""
        if not self._greeted:
            return self._greet()
        if self.body is None:
            return self._take_frames()
        if not self._fill(self.body):
            return self._wait()
        body, self.body = self.body, None
        self._frames.append(body.frame())
        self._size += FRAME_COST + body.size
        return self._take_frames() if body.more else self._end_message()

    def _take_frames(self) -> Event | None:
        """Frame by frame: a command, a fault, or a message that is not here whole, or nearly over the limit."""
        while self._at < len(self._data):
            flags = self._data[self._at]
            start = self._at + (9 if flags & _LONG else 2)
            size = int.from_bytes(self._data[self._at + 1 : start])
            if flags not in self._allowed or flags & _COMMAND or start + size > len(self._data):
                return self._take_other(flags, start, size)
            self._check_size(size)
            self._frames.append(self._data[start : start + size])
            self._size += FRAME_COST + size
            self._at = start + size
            if not flags & _MORE:
                return self._end_message()
        return self._wait()

    def _end_message(self) -> list[Frame]:
        frames, self._frames, self._size = self._frames, [], 0
        self._wait()
        self.pending = bool(self._data)
        return frames

    def _greet(self) -> Event | None:
        greeting = self._data[: commands.GREETING_BYTES]
        commands.check_greeting(greeting)
        if len(greeting) < commands.GREETING_BYTES:
            return self._wait()
        self._greeted, self._at = True, commands.GREETING_BYTES
        self.pending = self._at < len(self._data)
        return commands.read_greeting(greeting)

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
            peer = commands.read_ready(body)
            self._allowed = _HANDSHAKE_FLAGS | _MESSAGE_FLAGS
            return peer
        return commands.read_command(body)

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


# ---- what goes out ----


class _Heads(dict[int, bytes]):
    """What frames begin with, by their size. Each is made on first use; pack() asks for small sizes only."""

    def __init__(self, flags: int) -> None:
        super().__init__()
        self._flags = flags

    def __missing__(self, size: int) -> bytes:
        self[size] = found = _head(self._flags, size)
        return found


def _head(flags: int, size: int) -> bytes:
    return bytes((flags, size)) if size < 256 else bytes((flags | _LONG,)) + size.to_bytes(8)


_MORE_FOLLOW, _LAST = _Heads(_MORE), _Heads(0)
_BYTES = frozenset({bytes})


def pack(frames: Sequence[Frame]) -> list[Buffer]:
    """The buffers of one message, in order. A large frame is not copied."""
    sizes = [*map(len, frames)]
    if max(sizes) > _JOIN_BYTES or not _BYTES.issuperset(map(type, frames)):
        return _pack_large(frames)
    heads = [*map(_MORE_FOLLOW.__getitem__, sizes)]
    heads[-1] = _LAST[sizes[-1]]
    return [b"".join(chain.from_iterable(zip(heads, frames, strict=True)))]


def _pack_large(frames: Sequence[Frame]) -> list[Buffer]:
    buffers: list[Buffer] = []
    joined: list[Buffer] = []
    for left, frame in zip(reversed(range(len(frames))), frames, strict=True):
        view = memoryview(frame).cast("B")
        joined.append(_head(_MORE if left else 0, len(view)))
        if len(view) <= _JOIN_BYTES:
            joined.append(view)
        else:
            buffers += b"".join(joined), view
            joined.clear()
    return [*buffers, b"".join(joined)] if joined else buffers

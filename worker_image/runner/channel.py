"""Frames over a stream socket between processes of one worker. Standard library only.

    ┌───────────┬───────────┬───────────┬───┬─────────┬─────────┬───
    │ u32 count │ u64 size0 │ u64 size1 │ … │ frame 0 │ frame 1 │ …     big endian
    └───────────┴───────────┴───────────┴───┴─────────┴─────────┴───

`send` and `receive` block and are for the two ends that trust each other: runner to parked child. The way back comes
from a process that has run hostile code, so the runner reads it with a `Collector`: never blocking, every count and
size checked before a byte of memory is set aside for it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

_COUNT = struct.Struct("!I")
_SIZE = struct.Struct("!Q")
#: A page-cache friendly bite; larger reads only grow the copy.
_READ_BYTES = 256 * 1024

Frame = bytes | bytearray | memoryview


class ChannelError(Exception):
    """The other end sent what is no message, or more than it may."""


def send(sock: socket.socket, frames: Sequence[Frame]) -> None:
    """Send one message, blocking. Raises OSError when the other end is gone."""
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


class Collector:
    """Collects one message from a non-blocking socket. `frames` is None until the message is complete.

    1. `feed` is called when the socket is readable and takes what is there; it raises ChannelError on the first sign
       of a message that is not allowed, and must not be called again after that.
    2. At most `max_bytes` of frames and `max_frames` frames are ever held.
    """

    def __init__(self, sock: socket.socket, *, max_bytes: int, max_frames: int) -> None:
        self._sock = sock
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._head = bytearray()
        self._buffers: list[bytearray] | None = None
        self._at = 0  # the buffer being filled
        self._filled = 0  # how much of it
        self.closed = False
        self.over_cap = False  # the message was refused for its size alone
        self.frames: list[bytearray] | None = None

    def feed(self) -> None:
        """Take what is there without waiting."""
        while self.frames is None and not self.closed and self._step():
            pass

    def _step(self) -> bool:
        """One read; False when there is nothing more to be had now."""
        try:
            return self._read_head() if self._buffers is None else self._read_frame(self._buffers)
        except BlockingIOError:
            return False
        except OSError:
            self.closed = True
            return False

    def _read_head(self) -> bool:
        wanted = _COUNT.size
        if len(self._head) >= _COUNT.size:
            (count,) = _COUNT.unpack_from(self._head)
            if not 1 <= count <= self._max_frames:
                raise ChannelError(f"a message has 1 to {self._max_frames} frames, not {count}")
            wanted += count * _SIZE.size
        if len(self._head) < wanted:
            return self._extend_head(wanted)
        self._lay_out()
        return True

    def _extend_head(self, wanted: int) -> bool:
        chunk = self._sock.recv(wanted - len(self._head))
        self._head += chunk
        self.closed = not chunk
        return bool(chunk)

    def _lay_out(self) -> None:
        sizes = [size for (size,) in _SIZE.iter_unpack(self._head[_COUNT.size :])]
        if sum(sizes) > self._max_bytes:
            self.over_cap = True
            raise ChannelError(f"a message has at most {self._max_bytes} bytes, not {sum(sizes)}")
        self._buffers = [bytearray(size) for size in sizes]
        self._skip_full(self._buffers)

    def _read_frame(self, buffers: list[bytearray]) -> bool:
        view = memoryview(buffers[self._at])[self._filled : self._filled + _READ_BYTES]
        got = self._sock.recv_into(view)
        self._filled += got
        self.closed = not got
        self._skip_full(buffers)
        return bool(got)

    def _skip_full(self, buffers: list[bytearray]) -> None:
        while self._at < len(buffers) and self._filled == len(buffers[self._at]):
            self._at += 1
            self._filled = 0
        if self._at == len(buffers):
            self.frames = buffers

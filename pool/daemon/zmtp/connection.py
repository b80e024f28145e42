"""One connection of a libzmq peer over AF_UNIX: handshake, messages in, messages out. It never blocks.

    epoll ──▶ owner is woken ──▶ receive() ──▶ Decoder ──▶ frames      a large frame is read into its own pages
    send() ──▶ kernel, or Outbox ──▶ epoll says writable ──▶ kernel

Bytes are read in the order in which they were written, so a peer's end is met after all it has said. A peer that cannot
be written to is read on. Descriptors that a peer sends along are dropped by the kernel: nothing here asks for them.
"""

from __future__ import annotations

import itertools
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pool.daemon.zmtp import codec
from pool.daemon.zmtp.codec import Frame, Peer, Ping
from pool.daemon.zmtp.decoder import Decoder, Event, Parts
from pool.daemon.zmtp.poller import Poller
from pool.errors import RemoteProtocolError

#: Reads for one message before the others get their turn.
_READS_PER_TURN = 8
#: PINGs and PONGs in a second. libzmq sends as many as its ZMQ_HEARTBEAT_IVL says, and nobody sets that to 10 ms.
_CONTROLS_PER_S = 100
_CREDENTIALS = struct.Struct("3i")


class Credentials(NamedTuple):
    """Who connected, from the kernel."""

    pid: int
    uid: int
    gid: int


class Speech(NamedTuple):
    """What the two ends are to each other, and how much the peer may say in one message."""

    ours: str  #: our socket type
    theirs: str
    limit: int
    max_frames: int


class Connection:
    """`wake` is called when there may be something to receive."""

    def __init__(self, sock: socket.socket, speech: Speech, poller: Poller, *, wake: Callable[[], None]) -> None:
        sock.setblocking(False)
        self.credentials = Credentials(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
        self.ended = False
        self.received = 0
        self.born = self.read_at = self.written_at = time.monotonic()
        self.out = Outbox()
        self._sock = sock
        self._speech = speech
        self._poller = poller
        self._wake = wake
        self._decoder = Decoder(limit=speech.limit, max_frames=speech.max_frames)
        self._deaf = False
        self._controls = 0
        self._controls_at = self.read_at
        poller.add(sock.fileno(), self._heard)
        self._post([codec.GREETING])

    # ---- state ----

    @property
    def ready(self) -> bool:
        """Whether the handshake is over."""
        return self._decoder.ready

    @property
    def held(self) -> int:
        """Bytes of an unfinished message."""
        return self._decoder.held

    @property
    def more(self) -> bool:
        """Whether `receive` may give something before the socket is readable again."""
        return self._decoder.pending

    def allow(self, limit: int) -> None:
        """From its next frame on, a message may have so many bytes."""
        self._decoder.limit = limit

    # ---- in ----

    def want_read(self, *, wanted: bool) -> None:
        """Whether `wake` is called when the peer has sent something."""
        self._poller.want_read(self._sock.fileno(), wanted=wanted)

    def receive(self) -> list[Frame] | None:
        """The next message; None when there is none for now. Sets `ended` at the end. Raises RemoteProtocolError."""
        reads = 0
        while True:
            event = self._decoder.next()
            if isinstance(event, Parts):
                self._decoder.settle()
                return event.frames
            if event is not None:
                self._hear_control(event)
            elif reads == _READS_PER_TURN or not self._read():
                return None
            else:
                reads += 1

    def _read(self) -> bool:
        try:
            room = self._decoder.room()
            if room is None:
                count = self._sock.recv_into(self._poller.scratch)
                self._decoder.feed(self._poller.scratch[:count])
            else:
                with room:
                    count = self._sock.recv_into(room)
                self._decoder.filled(count)
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if not count:
            self.ended = True
            return False
        self.received += count
        self.read_at = time.monotonic()
        return True

    def _hear_control(self, event: Event) -> None:
        if isinstance(event, Peer):
            if event.kind != self._speech.theirs:
                raise RemoteProtocolError(f"a {event.kind:.16} socket does not talk with this one")
            self._post([codec.ready(self._speech.ours)])
            return
        self._count_control()
        if isinstance(event, Ping) and not self.out.size:
            self._post([codec.pong(event.context)])

    def _count_control(self) -> None:
        if self.read_at - self._controls_at >= 1:
            self._controls, self._controls_at = 0, self.read_at
        self._controls += 1
        if self._controls > _CONTROLS_PER_S:
            raise RemoteProtocolError(f"more than {_CONTROLS_PER_S} commands in a second")

    # ---- out ----

    def send(self, frames: Sequence[Frame]) -> bool:
        """False when nobody is there to take it."""
        if not self._deaf:
            self._post(codec.pack(frames))
        return not self._deaf

    def refuse(self, reason: str) -> None:
        """Say why the connection will be closed now."""
        if not self._deaf and not self.out.size:
            self._post([codec.error(reason)])

    def _post(self, buffers: Sequence[bytes | memoryview]) -> None:
        waiting = self.out.size > 0
        self.out.put(buffers)
        if not waiting:
            self.written_at = time.monotonic()
            self.flush()

    def flush(self) -> None:
        """Write what the kernel takes."""
        before = self.out.size
        try:
            self.out.write(self._sock)
        except OSError:
            self._deaf = True
            self.out.clear()
        if self.out.size < before:
            self.written_at = time.monotonic()
        self._poller.want_write(self._sock.fileno(), wanted=self.out.size > 0)

    # ---- epoll ----

    def _heard(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self.flush()
        if mask & ~select.EPOLLOUT:
            self._wake()

    def close(self) -> None:
        self._poller.remove(self._sock.fileno())
        self._sock.close()
        self.out.clear()


#: Buffers given to the kernel in one call.
_BUFFERS = 64

Buffer = bytes | memoryview


class Outbox:
    """Bytes that the peer has not taken yet. `size` and `messages` are the owner's to hold against its caps."""

    def __init__(self) -> None:
        self._buffers: deque[Buffer] = deque()
        self._ends: deque[int] = deque()  # of each message, counted from the first byte ever
        self._written = 0
        self._queued = 0

    @property
    def size(self) -> int:
        return self._queued - self._written

    @property
    def messages(self) -> int:
        return len(self._ends)

    def put(self, buffers: Sequence[Buffer]) -> None:
        self._buffers.extend(buffers)
        self._queued += sum(map(len, buffers))
        self._ends.append(self._queued)

    def write(self, sock: socket.socket) -> None:
        """Write until all is gone or the kernel takes no more. Raises OSError when nobody is there to read it."""
        try:
            while self._buffers:
                count = sock.sendmsg(itertools.islice(self._buffers, _BUFFERS), (), socket.MSG_NOSIGNAL)
                self._forget(count)
        except BlockingIOError:
            return

    def _forget(self, count: int) -> None:
        self._written += count
        while self._buffers and count >= len(self._buffers[0]):
            count -= len(self._buffers.popleft())
        if count:
            self._buffers[0] = memoryview(self._buffers[0])[count:]
        while self._ends and self._ends[0] <= self._written:
            self._ends.popleft()

    def clear(self) -> None:
        self._buffers.clear()
        self._ends.clear()
        self._written = self._queued

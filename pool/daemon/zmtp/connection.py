"""One connection of a libzmq peer over a Unix socket: handshake, messages, heartbeats. It never blocks.

    epoll ──▶ on_readable ──▶ receive() ──▶ Decoder ──▶ frames          a large frame is read into its own pages
    send() ──▶ kernel; what it does not take ──▶ SendQueue ──▶ epoll: writable ──▶ kernel

Bytes are read in the order in which they were written, so the peer's end comes after its last message. A peer that
does not take what we write can still send. The kernel drops descriptors that a peer sends along, since nothing asks
for them.
"""

from __future__ import annotations

import itertools
import math
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from pool.daemon.zmtp import codec, commands
from pool.daemon.zmtp.body import Body
from pool.daemon.zmtp.codec import Buffer, Decoder, Event
from pool.daemon.zmtp.commands import Greeting, Peer, Ping
from pool.errors import RemoteProtocolError
from pool.wire import Frame

_READ_BYTES = 64 * 1024
#: Reads and commands in one `receive`, so that other connections have their turn.
_STEPS_PER_TURN = 16
#: PINGs and PONGs that a peer may send in a second. libzmq sends one each ZMQ_HEARTBEAT_IVL, which is a second or more.
_CONTROLS_PER_S = 100
#: PONGs that wait to be written. A peer for which more are waiting does not read: the oldest are dropped.
_CONTROLS_QUEUED = 16
#: Buffers given to the kernel in one call; it takes at most 1024.
_BUFFERS = 64
_CREDENTIALS = struct.Struct("3i")  # pid, uid and gid of the peer, from the kernel


Call = Callable[[], object]


class Poller(Protocol):
    """Watches descriptors for the loop: tells when one can be read or written."""

    def add(self, fd: int, on_readable: Call, on_writable: Call | None = None) -> None: ...
    def remove(self, fd: int) -> None: ...
    def want_read(self, fd: int, *, wanted: bool) -> None: ...
    def want_write(self, fd: int, *, wanted: bool) -> None: ...
    def wait(self, timeout_s: float) -> None: ...


class Timeouts(NamedTuple):
    """After how many seconds a connection is ended, and why."""

    handshake: float = 5.0  #: without READY
    stalled: float = 60.0  #: a message has begun, in or out, and no byte of it moves
    message: float = 120.0  #: a message has begun, in or out, and is not over, whatever moves
    ping_after: float = 30.0  #: silent for so long, a peer is sent a PING
    pong: float = 30.0  #: nothing has come since that PING


#: For every connection that is not given others.
TIMEOUTS = Timeouts()


class Terms(NamedTuple):
    """The socket types of the two ends, and how much the peer may send."""

    kind: str  #: our socket type
    peer_kind: str
    max_message: int  #: bytes
    max_frames: int
    timeouts: Timeouts


class SendQueue:
    """Bytes that the kernel has not taken yet: messages in order, and commands, which go out between two messages.

    The owner holds `size` and `messages` against its caps.
    """

    def __init__(self) -> None:
        self.size = 0  #: bytes
        self.messages = 0  #: that are not written to their end
        self.began_at = 0.0  #: when writing the first of them began
        self._current: deque[Buffer] = deque()  # what is left of the message or the commands that are being written
        self._in_message = False
        self._messages: deque[Sequence[Buffer]] = deque()
        self._commands: deque[bytes] = deque()

    def put(self, message: Sequence[Buffer], now: float, *, written: int = 0) -> None:
        """Add a message. `written`: so many of its bytes are written already; the queue must be empty then."""
        self.size += sum(map(len, message))
        self.messages += 1
        self._messages.append(message)
        if written:
            self._begin(now)
            self._remove(written)

    def put_command(self, command: bytes) -> None:
        if len(self._commands) == _CONTROLS_QUEUED:
            self.size -= len(self._commands.popleft())
        self.size += len(command)
        self._commands.append(command)

    def write(self, sock: socket.socket, now: float) -> None:
        """Write until all is written or the kernel takes no more. Raises OSError if the peer is gone."""
        try:
            while self.size:
                if not self._current:
                    self._begin(now)
                self._remove(sock.sendmsg(itertools.islice(self._current, _BUFFERS), (), socket.MSG_NOSIGNAL))
        except BlockingIOError:
            return

    def _begin(self, now: float) -> None:
        """Commands go first, then the next message."""
        self._in_message = not self._commands
        self._current.extend(self._commands or self._messages.popleft())
        self._commands.clear()
        self.began_at = now

    def _remove(self, count: int) -> None:
        self.size -= count
        while self._current and count >= len(self._current[0]):
            count -= len(self._current.popleft())
        if count:
            self._current[0] = memoryview(self._current[0])[count:]
        if not self._current and self._in_message:
            self.messages -= 1

    def clear(self) -> None:
        for waiting in (self._current, self._messages, self._commands):
            waiting.clear()
        self.size = self.messages = 0


class Connection:
    """One peer. `on_readable` is called when there may be something to receive."""

    def __init__(self, sock: socket.socket, terms: Terms, poller: Poller, *, on_readable: Callable[[], object]) -> None:
        sock.setblocking(False)
        _, self.user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        self.ready = False  #: whether the handshake is over
        self.ended = False  #: whether the peer has closed its end, and everything before that was received
        self.held = 0  #: bytes of an unfinished message
        self.more = False  #: whether `receive` may return a message before the socket is readable again
        self.queue = SendQueue()
        self._sock = sock
        self._terms = terms
        self._poller = poller
        self.decoder: Final = Decoder(limit=terms.max_message, max_frames=terms.max_frames)
        self._deaf = False  # whether nobody takes what we write
        self._minor = 0  # the peer speaks ZMTP 3.minor
        self._born_at = self._read_at = self._written_at = self._controls_at = time.monotonic()
        self._message_at: float | None = None  # when the message that is coming in began
        self._pinged_at = 0.0
        self._ttl_s = 0.0
        self._controls = 0
        poller.add(sock.fileno(), on_readable, self._flush)
        self._send_command(commands.GREETING)

    def close(self) -> None:
        self._poller.remove(self._sock.fileno())
        self._sock.close()
        self.queue.clear()

    # ---- in ----

    def want_read(self, *, wanted: bool) -> None:
        """Whether `on_readable` is called when the peer has sent something or has closed its end."""
        self._poller.want_read(self._sock.fileno(), wanted=wanted)

    def receive(self) -> list[Frame] | None:
        """The next message; None if there is none for now. Raises RemoteProtocolError."""
        decoder = self.decoder
        for _ in range(_STEPS_PER_TURN):
            data = b""
            if not decoder.pending:
                try:
                    data = self._sock.recv(_READ_BYTES) if decoder.body is None else self._read_body(decoder.body)
                except BlockingIOError:
                    break
                except OSError:
                    self.ended = True
                    break
                if not data and decoder.body is None:
                    self.ended = True
                    break
                self._read_at = time.monotonic()
            event = decoder.next(data)
            if isinstance(event, list):
                self.held, self.more, self._message_at = 0, decoder.pending, None
                return event
            if event is not None:
                self._handle_command(event)
        self.held, self.more = decoder.held, decoder.pending
        if self._message_at is None or not self.held:
            self._message_at = self._read_at if self.held else None
        return None

    def _read_body(self, body: Body) -> bytes:
        """Bytes of a large frame; b"" if they were read into its own pages. Raises OSError, also at the peer's end."""
        room = body.room()
        if room is None:
            data = self._sock.recv(_READ_BYTES)
            count = len(data)
        else:
            with room:
                data, count = b"", self._sock.recv_into(room)
            body.filled += count
        if not count:
            raise ConnectionResetError
        return data

    def _handle_command(self, event: Event) -> None:
        if isinstance(event, Greeting):
            self._minor = event.minor
            self._send_command(commands.ready(self._terms.kind))
        elif isinstance(event, Peer):
            if event.kind != self._terms.peer_kind:
                raise RemoteProtocolError(f"a {event.kind:.16} socket cannot talk with a {self._terms.kind} socket")
            self.ready = True
        else:
            self._count_control()
            if isinstance(event, Ping):
                self._ttl_s = event.ttl_s
                self._send_command(commands.pong(event.context))

    def _count_control(self) -> None:
        if self._read_at - self._controls_at >= 1:
            self._controls, self._controls_at = 0, self._read_at
        self._controls += 1
        if self._controls > _CONTROLS_PER_S:
            raise RemoteProtocolError(f"more than {_CONTROLS_PER_S} PINGs and PONGs came in a second")

    # ---- out ----

    def send(self, frames: Sequence[Frame], *, first: Sequence[Frame] = ()) -> bool:
        """Write a message, and queue the part that the kernel does not take. False if the peer is gone.

        `first`: a small message that goes before it, in the same write.
        """
        if self._deaf:
            return False
        message = codec.pack(frames)
        if first:
            message[0] = b"".join((*codec.pack(first), message[0]))
        if self.queue.size:
            self.queue.put(message, time.monotonic())
            return True
        try:
            written = self._sock.sendmsg(message[:_BUFFERS], (), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            written = 0
        except OSError:
            self._deaf = True
            return False
        if len(message) > 1 or written < len(message[0]):
            self._queue_rest(message, written)
        return not self._deaf

    def _queue_rest(self, message: list[Buffer], written: int) -> None:
        """The kernel has taken so many bytes of the message."""
        if written < sum(map(len, message)):
            self._written_at = time.monotonic()
            self.queue.put(message, self._written_at, written=written)
            self._flush()

    def refuse(self, reason: str) -> None:
        """Tell the peer why the connection will be closed now."""
        if not self.queue.size:
            self._send_command(commands.error(reason))

    def _send_command(self, command: bytes) -> None:
        if not self._deaf:
            self.queue.put_command(command)
            self._flush()

    def _flush(self) -> None:
        """Write as much as the kernel takes."""
        before, now = self.queue.size, time.monotonic()
        try:
            self.queue.write(self._sock, now)
        except OSError:
            self._deaf = True
            self.queue.clear()
        if self.queue.size < before:
            self._written_at = now
        self._poller.want_write(self._sock.fileno(), wanted=self.queue.size > 0)

    # ---- time ----

    def check(self, now: float) -> str | None:
        """Send a PING if it is due. Why the connection has to be ended now, in one word; None if it has not.

        To be called once in a while, after a receive.
        """
        limits = self._terms.timeouts
        since_limit = {
            "no_handshake": (None if self.ready else self._born_at, limits.handshake),
            "slow_message": (self._message_at, limits.message),
            "slow_reader": (self.queue.began_at if self.queue.messages else None, limits.message),
            "stalled": (self._written_at if self.queue.size else None, limits.stalled),
        }
        for reason, (since, limit) in since_limit.items():
            if since is not None and now - since > limit:
                return reason
        return self._check_silence(now, limits)

    def _check_silence(self, now: float, limits: Timeouts) -> str | None:
        pinged = self._pinged_at >= self._read_at
        most_silent = {
            "stalled": limits.stalled if self.held else math.inf,
            "ttl": self._ttl_s or math.inf,
            "no_pong": self._pinged_at + limits.pong - self._read_at if pinged else math.inf,
        }
        for reason, limit in most_silent.items():
            if self._is_silent(now, limit):
                return reason
        knows_ping = self.ready and self._minor >= 1  # a peer of ZMTP 3.0 need not answer: libzmq 4.1 does not
        if knows_ping and not pinged and not self.queue.size and self._is_silent(now, limits.ping_after):
            self._pinged_at = now
            self._send_command(commands.ping())
        return None

    def _is_silent(self, now: float, seconds: float) -> bool:
        """Whether nothing has come for so long. What waits to be read has come: the loop may have been busy."""
        if now - self._read_at <= seconds:
            return False
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass  # `receive` meets the end
        return False

"""The clients of one listening socket: their connections, and the limits on what all of them together may cost.

    client ──▶ Connection ──▶ serve ──▶ handle(address, user, frames)    one message of each client in turn
    client ◀── Connection ◀── send(address, message)                     False: the client is gone or does not read

An address is the number of a connection and is never used again. Garbage, a late handshake, a message that stalls, an
answer that is not taken and a PING without a PONG end that connection only. A user whose connections hold too much
memory loses the connection that holds most. A client that was cut off connects again and asks for what it missed.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from pool import wire
from pool.daemon.zmtp.connection import TIMEOUTS, Connection, Poller, Terms, Timeouts
from pool.daemon.zmtp.listening import ListeningSocket
from pool.errors import ConfigError, RemoteProtocolError

log = structlog.get_logger(__name__)

_MIB = 1024 * 1024
_BACKLOG = 128
#: Connections accepted in one turn.
_ACCEPTS_PER_TURN = 32
#: Messages taken in a turn; and as how many of them a part of a large one counts, of which a megabyte may be read.
_PER_TURN, _PART_COUNTS = 64, 4

#: Called with a message, and the address and the user id of its client.
Serve = Callable[[bytes, str, Sequence[wire.Frame]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The bounds on the clients of a socket."""

    message: int  #: bytes of one message; a little more than is allowed, so that a job too large gets an answer
    connections: int
    connections_each: int  #: of one user
    incoming: int  #: bytes of unfinished messages
    incoming_each: int
    outgoing: int  #: bytes of answers that were not taken yet
    outgoing_each: int
    answers: int  #: that wait for one connection


SUBMIT = Caps(
    message=wire.MAX_JOB_BYTES + _MIB,
    connections=512,
    connections_each=256,
    incoming=512 * _MIB,
    incoming_each=384 * _MIB,
    outgoing=1024 * _MIB,
    outgoing_each=512 * _MIB,
    answers=10_000,
)
ADMIN = Caps(
    message=_MIB,
    connections=64,
    connections_each=32,
    incoming=16 * _MIB,
    incoming_each=8 * _MIB,
    outgoing=64 * _MIB,
    outgoing_each=32 * _MIB,
    answers=100,
)


class Budget:
    """Bytes that peers make the daemon hold, by user and in all. The owner of the bytes reports every change."""

    def __init__(self, *, each: int, total: int) -> None:
        self._each = each
        self._total = total
        self._held: Counter[int] = Counter()

    def change(self, user: int, by: int) -> None:
        self._held[user] += by
        if self._held[user] <= 0:
            del self._held[user]

    def of(self, user: int) -> int:
        return self._held[user]

    def excess(self) -> int | None:
        """The user who holds too much: more than one may, or the most of all when all hold too much together."""
        if not self._held:
            return None
        user, held = max(self._held.items(), key=lambda item: item[1])
        return user if held > self._each or self._held.total() > self._total else None


class _Client:
    """A connection, and the bytes it was charged for."""

    __slots__ = ("address", "connection", "held", "queued", "user")

    def __init__(self, address: bytes, connection: Connection) -> None:
        self.address = address
        self.connection = connection
        self.user = connection.user
        self.held = 0
        self.queued = 0


class ClientListener:
    """Behaves like a ROUTER towards DEALER sockets. Used from the loop's thread only."""

    def __init__(
        self,
        poller: Poller,
        path: Path,
        mode: int,
        *,
        group: str | None = None,
        caps: Caps,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        self.counts: Counter[str] = Counter()  #: connections that we ended, by reason
        self.on_end: Callable[[bytes], object] = lambda _: None  #: called with the address of each that has ended
        self.ready: dict[bytes, None] = {}  #: clients that `serve` is to try, in the order of their turn
        self._name = path.name
        self._poller = poller
        self._caps = caps
        self._bind = partial(ListeningSocket, path, mode, group=group, backlog=_BACKLOG)
        self._socket = self._bind()
        self._terms = Terms("ROUTER", "DEALER", caps.message, wire.MAX_FRAMES + 2, timeouts)
        self._number = 0
        self._clients: dict[bytes, _Client] = {}
        self._paused: set[int] = set()  # users
        self._incoming = Budget(each=caps.incoming_each, total=caps.incoming)
        self._outgoing = Budget(each=caps.outgoing_each, total=caps.outgoing)
        self._logged = 0
        self._is_missing = False  # whether the socket was removed, and could not be made again
        self._listening = False
        self._listen()

    # ---- new connections ----

    def _listen(self) -> None:
        if not self._listening:
            self._poller.add(self._socket.fileno(), self._accept)
            self._listening = True

    def _restore(self) -> None:
        """Bind again if the path was removed, as programs that tidy up do. The connections stay."""
        if not self._listening or os.path.exists(self._socket.path):  # noqa: PTH110 - a path that cannot be looked at is not there
            return
        try:
            fresh = self._bind()
        except (OSError, ConfigError) as error:  # the directory is gone too, or no descriptor is left
            if not self._is_missing:
                text = "the socket was removed and cannot be made again, so nobody can connect; it is tried each second"
                log.error(text, action="socket_missing", socket=str(self._socket.path), error=str(error))  # noqa: TRY400
            self._is_missing = True
            return
        self._accept()  # who has connected before
        self._poller.remove(self._socket.fileno())
        self._socket.close()
        self._socket, self._listening, self._is_missing = fresh, False, False
        log.warning("the socket was removed and is there again", action="socket_restored", socket=self._name)

    def _accept(self) -> None:
        try:
            for _ in range(_ACCEPTS_PER_TURN):
                sock = self._socket.accept()
                if sock is None:
                    return
                self._number += 1
                address = self._number.to_bytes(8)
                on_readable = partial(self.ready.setdefault, address)
                self._admit(_Client(address, Connection(sock, self._terms, self._poller, on_readable=on_readable)))
        except OSError:  # no descriptor is left; new connections wait until the next sweep
            self.counts["no_descriptors"] += 1
            self._poller.remove(self._socket.fileno())
            self._listening = False

    def _admit(self, client: _Client) -> None:
        of_user = sum(each.user == client.user for each in self._clients.values())
        self._clients[client.address] = client
        if client.user in self._paused:
            client.connection.want_read(wanted=False)
        if of_user >= self._caps.connections_each:
            self._end(client, "too_many")
        elif len(self._clients) > self._caps.connections:
            self._end(self._surplus(client), "too_many")

    def _surplus(self, newcomer: _Client) -> _Client:
        """The newest connection of the user who has most of them, so that several users cannot shut out another one."""
        held = Counter(each.user for each in self._clients.values())
        return self._of(max(held, key=lambda user: (held[user], user == newcomer.user)))[-1]

    # ---- messages in ----

    def serve(self, handle: Serve) -> None:
        """Pass messages to `handle`, one of each client after the other, until the turn is over."""
        left = _PER_TURN
        while left > 0 and self.ready:
            client = self._clients[next(iter(self.ready))]
            connection = client.connection
            del self.ready[client.address]
            try:
                frames = connection.receive()
            except RemoteProtocolError as error:
                connection.refuse(error.message)
                self._end(client, "garbage")
                continue
            if connection.held != client.held:
                self._charge(client)
            if connection.ended:
                self._end(client, None)
            elif connection.more:
                self.ready[client.address] = None
            left -= _PART_COUNTS if frames is None else 1
            if frames is not None:
                handle(client.address, str(client.user), frames)

    def pause(self, user: str) -> None:
        """Receive nothing from any connection of this user until `resume`. His messages stay in the sockets."""
        self._paused.add(int(user))
        for client in self._of(int(user)):
            client.connection.want_read(wanted=False)
            self.ready.pop(client.address, None)

    def resume(self, user: str) -> None:
        """Receive again from the user's connections."""
        self._paused.discard(int(user))
        for client in self._of(int(user)):
            client.connection.want_read(wanted=True)
            self.ready[client.address] = None

    def _charge(self, client: _Client) -> None:
        """Count the bytes that the connection holds now. If they are too many, end the user's largest connection."""
        grown = client.connection.held - client.held
        self._incoming.change(client.user, grown)
        client.held += grown
        if grown > 0 and (user := self._incoming.excess()) is not None:
            self._end(max(self._of(user), key=lambda each: each.held), "too_much")

    def _of(self, user: int) -> list[_Client]:
        return [each for each in self._clients.values() if each.user == user]

    # ---- messages out ----

    def send(
        self,
        address: bytes,
        message: wire.Message,
        payload: Sequence[wire.Frame] = (),
        *,
        first: wire.Message | None = None,
    ) -> bool:
        """False when the client is gone or does not read. `first`: another message, to be written before."""
        client = self._clients.get(address)
        if client is None:
            return False
        queue = client.connection.queue
        frames = wire.encode(message, payload)
        sent = (
            client.connection.send(frames)
            if first is None
            else client.connection.send(frames, first=wire.encode(first))
        )
        if queue.size != client.queued:
            self._settle(client)
            if queue.messages > self._caps.answers:
                self._end(client, "not_read")
            else:
                self._relieve()
        return sent and address in self._clients

    def queued_bytes(self, address: bytes) -> int | None:
        """Bytes that this client has not taken yet; None when it is gone."""
        client = self._clients.get(address)
        return None if client is None else client.connection.queue.size

    def _settle(self, client: _Client) -> None:
        queued = client.connection.queue.size
        if queued != client.queued:
            self._outgoing.change(client.user, queued - client.queued)
            client.queued = queued

    def _relieve(self) -> None:
        """When a user leaves too many bytes untaken, end the slowest readers of that user."""
        user = self._outgoing.excess()
        if user is None:
            return
        for each in self._of(user):
            self._settle(each)
        while self._outgoing.excess() == user:
            slowest = max(self._of(user), key=lambda each: each.queued)
            if slowest.connection.queue.messages == 1 and slowest.queued == self._outgoing.of(user):
                return  # one answer of any size may always wait
            self._end(slowest, "not_read")

    # ---- the end ----

    def _end(self, client: _Client, reason: str | None) -> None:
        if self._clients.pop(client.address, None) is None:
            return
        self.ready.pop(client.address, None)
        self._incoming.change(client.user, -client.held)
        self._outgoing.change(client.user, -client.queued)
        if reason is not None:
            self.counts[reason] += 1
        client.connection.close()
        self.on_end(client.address)

    def sweep(self, now: float) -> None:
        """To be called every second or so: end connections that are over a timeout, and log how many were ended."""
        self._restore()
        self._listen()
        for client in list(self._clients.values()):
            self._settle(client)
            if (reason := client.connection.check(now)) is not None:
                self._end(client, reason)
        if self.counts.total() > self._logged:
            self._logged = self.counts.total()
            log.warning("connections were ended or refused", action="connections", socket=self._name, **self.counts)

    def close(self, *, linger_s: float) -> None:
        """Stop listening, write as much as the clients take within that time, and end all connections."""
        self._poller.remove(self._socket.fileno())
        self._socket.close()
        until = time.monotonic() + linger_s
        while any(each.connection.queue.size for each in self._clients.values()):
            left = until - time.monotonic()
            if left <= 0:
                break
            self._poller.wait(left)
        for client in list(self._clients.values()):
            self._end(client, None)

"""A door: one listening socket, its clients' connections, and what all of them together may cost.

    client ─▶ connection ─▶ receive() ─▶ (address, user, frames)      one message of each client in turn
    client ◀─ connection ◀─ send(address)                             False: the client is gone or does not read

An address is the number of a connection and is never given twice. Garbage, a late handshake, a message that stops in
the middle or an answer that is never taken ends that connection only. Whoever makes us hold too much loses the
connection that holds the most of it: a client that does not read is cut off, comes again and asks for what it missed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from pool import wire
from pool.daemon.zmtp.connection import Connection, Speech
from pool.daemon.zmtp.poller import ListeningSocket, Poller
from pool.errors import RemoteProtocolError

log = structlog.get_logger(__name__)

_MIB = 1024 * 1024
_BACKLOG = 128
#: Taken in one go before others are heard.
_ACCEPTS_PER_TURN = 32
#: Connections read for one message; with many that send much, the others in the loop are to have their turn.
_LOOKED_AT = 16
_HANDSHAKE_S = 5.0
#: A message that has begun, or an answer that waits to be taken, has to move within this time.
_STALLED_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a door's clients may cost."""

    message: int  #: bytes of one message; a little over what is allowed is taken, so that it can be refused in words
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


class _Client:
    """A connection and what it was charged."""

    __slots__ = ("address", "connection", "held", "queued", "user")

    def __init__(self, address: bytes, connection: Connection) -> None:
        self.address = address
        self.connection = connection
        self.user = connection.credentials.uid
        self.held = 0
        self.queued = 0


class ClientListener:
    """Behaves towards DEALER sockets as a ROUTER does. Used from the loop's thread only."""

    def __init__(self, poller: Poller, path: Path, mode: int, *, group: str | None = None, caps: Caps) -> None:
        self.counts: Counter[str] = Counter()  #: connections that were ended by us, by reason
        self._name = path.name
        self._poller = poller
        self._caps = caps
        self._listener = ListeningSocket(path, mode, group=group, backlog=_BACKLOG)
        self._speech = Speech("ROUTER", "DEALER", caps.message, wire.MAX_FRAMES + 2)
        self._number = 0
        self._clients: dict[bytes, _Client] = {}
        self._waiting: dict[bytes, _Client] = {}  # in the order of their turn
        self._paused: dict[int, dict[bytes, _Client]] = {}  # by user: those who would be waiting
        self._incoming = Budget(each=caps.incoming_each, total=caps.incoming)
        self._outgoing = Budget(each=caps.outgoing_each, total=caps.outgoing)
        self._told = 0
        self._listening = False
        self._listen()

    @property
    def waiting(self) -> bool:
        """Whether `receive` may give something."""
        return bool(self._waiting)

    # ---- who comes ----

    def _listen(self) -> None:
        if not self._listening:
            self._poller.add(self._listener.fileno(), self._knocked)
            self._listening = True

    def _knocked(self, _: int) -> None:
        try:
            for _ in range(_ACCEPTS_PER_TURN):
                sock = self._listener.accept()
                if sock is None:
                    return
                self._number += 1
                address = self._number.to_bytes(8)
                wake = partial(self._spoken, address)
                self._admit(_Client(address, Connection(sock, self._speech, self._poller, wake=wake)))
        except OSError:  # no descriptors left; who knocks is heard again after the next sweep
            self.counts["no_descriptors"] += 1
            self._poller.remove(self._listener.fileno())
            self._listening = False

    def _spoken(self, address: bytes) -> None:
        client = self._clients[address]
        paused = self._paused.get(client.user)
        if paused is not None:
            client.connection.want_read(wanted=False)
        (self._waiting if paused is None else paused).setdefault(address, client)

    def _admit(self, client: _Client) -> None:
        of_user = sum(each.user == client.user for each in self._clients.values())
        self._clients[client.address] = client
        if len(self._clients) > self._caps.connections or of_user >= self._caps.connections_each:
            self._end(client, "too_many")

    # ---- what they say ----

    def receive(self) -> tuple[bytes, str, list[wire.Frame]] | None:
        """Address, user and frames of the next message; None when there is none, or not soon."""
        for _ in range(min(len(self._waiting), _LOOKED_AT)):
            address, client = next(iter(self._waiting.items()))
            del self._waiting[address]
            try:
                frames = client.connection.receive()
            except RemoteProtocolError as error:
                client.connection.refuse(error.message)
                self._end(client, "garbage")
                continue
            self._charge(client)
            if client.connection.ended:
                self._end(client, None)
            elif client.connection.more:
                self._waiting[address] = client
            if frames is not None:
                return address, str(client.user), frames
        return None

    def pause(self, user: str) -> None:
        """Receive nothing from any connection of this user until `resume`. What it sends stays in the socket."""
        number = int(user)
        self._paused[number] = {address: each for address, each in self._waiting.items() if each.user == number}
        for address in self._paused[number]:
            del self._waiting[address]

    def resume(self, user: str) -> None:
        """Receive again from the user's connections."""
        clients = self._paused.pop(int(user))
        for client in clients.values():
            client.connection.want_read(wanted=True)
        self._waiting.update(clients)

    def _charge(self, client: _Client) -> None:
        """Count what the connection holds now; too much ends the largest of whoever has too much."""
        held = client.connection.held
        grown = held > client.held
        self._incoming.change(client.user, held - client.held)
        client.held = held
        if grown and (user := self._incoming.excess()) is not None:
            self._end(max(self._of(user), key=lambda each: each.held), "too_much")

    def _of(self, user: int) -> list[_Client]:
        return [each for each in self._clients.values() if each.user == user]

    # ---- what they are told ----

    def send(self, address: bytes, message: wire.Message, payload: Sequence[wire.Frame] = ()) -> bool:
        """False when the client is gone or does not read."""
        client = self._clients.get(address)
        if client is None:
            return False
        sent = client.connection.send(wire.encode(message, payload))
        self._settle(client)
        if client.connection.out.messages > self._caps.answers:
            self._end(client, "not_read")
        elif client.queued:
            self._relieve()
        return sent and client.address in self._clients

    def queued_bytes(self, address: bytes) -> int | None:
        """Bytes that this client has not taken yet; None when it is gone."""
        client = self._clients.get(address)
        return None if client is None else client.connection.out.size

    def _settle(self, client: _Client) -> None:
        queued = client.connection.out.size
        self._outgoing.change(client.user, queued - client.queued)
        client.queued = queued

    def _relieve(self) -> None:
        """End the slowest reader of whoever leaves too much untaken. It will come again and ask for what it missed."""
        user = self._outgoing.excess()
        if user is None:
            return
        for each in self._of(user):
            self._settle(each)
        while self._outgoing.excess() == user:
            slowest = max(self._of(user), key=lambda each: each.queued)
            if slowest.connection.out.messages == 1 and slowest.queued == self._outgoing.of(user):
                return  # one answer of any size may always wait
            self._end(slowest, "not_read")

    # ---- who goes ----

    def _end(self, client: _Client, reason: str | None) -> None:
        if self._clients.pop(client.address, None) is None:
            return
        self._paused.get(client.user, self._waiting).pop(client.address, None)
        self._incoming.change(client.user, -client.held)
        self._outgoing.change(client.user, -client.queued)
        if reason is not None:
            self.counts[reason] += 1
        client.connection.close()

    def sweep(self, now: float) -> None:
        """Once in a while: end what does not move, and say what was ended."""
        self._listen()
        for client in list(self._clients.values()):
            self._settle(client)
            connection = client.connection
            if not connection.ready:
                if now - connection.born > _HANDSHAKE_S:
                    self._end(client, "no_handshake")
            elif (connection.held and now - connection.read_at > _STALLED_S) or (
                connection.out.size and now - connection.written_at > _STALLED_S
            ):
                self._end(client, "stalled")
        if self.counts.total() > self._told:
            self._told = self.counts.total()
            log.warning("connections were ended or refused", action="door", door=self._name, **self.counts)

    def close(self, *, linger_s: float) -> None:
        """Write what the clients still take within that time, and end."""
        self._poller.remove(self._listener.fileno())
        self._listener.close()
        until = time.monotonic() + linger_s
        while any(each.connection.out.size for each in self._clients.values()):
            left = until - time.monotonic()
            if left <= 0:
                break
            self._poller.wait(left)
        for client in list(self._clients.values()):
            self._end(client, None)


class Budget:
    """Kept by whoever holds the bytes: every change is told."""

    def __init__(self, *, each: int, total: int) -> None:
        self._each = each
        self._total = total
        self._held: Counter[int] = Counter()

    def change(self, user: int, by: int) -> None:
        if not by:
            return
        self._held[user] += by
        if self._held[user] <= 0:
            del self._held[user]

    def of(self, user: int) -> int:
        return self._held[user]

    def excess(self) -> int | None:
        """The user who holds too much: over the cap for each, or the most of all when all together are over theirs."""
        if not self._held:
            return None
        user, held = max(self._held.items(), key=lambda item: item[1])
        return user if held > self._each or self._held.total() > self._total else None

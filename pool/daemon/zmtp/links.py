"""The workers' links: each worker has a directory and a socket of its own, and one connection with each daemon.

The daemon binds `link.sock` and the runner connects; the directory is mounted read-only into that one container. So the
socket says which worker a message comes from, and no path that a container can change is ever used. The first
connection is the runner's. A later one comes from the same container and is refused.

A daemon that adopts a worker binds the socket anew in the same directory. There the first message must prove that it is
the runner's; a connection that ends before it has sent one leaves the link open for the next.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from pool import wire
from pool.daemon.zmtp.connection import Connection, Poller, Terms, Timeouts
from pool.daemon.zmtp.listening import ListeningSocket
from pool.daemon.zmtp.offer import FileOffer
from pool.errors import RemoteProtocolError

log = structlog.get_logger(__name__)

#: Messages that wait to be taken by one worker. A worker has one job at a time, which takes three.
_HIGH_WATER = 64
#: Messages taken from one worker in a turn.
_PER_TURN = 16
#: The runner's user is another one than the daemon's, and connecting to a Unix socket takes write permission on it. The
#: directory above all links is closed to everybody else.
_SOCKET_MODE = 0o666
_DIRECTORY_MODE = 0o711
#: The most that a worker without a lease may send in one message: names, numbers, and why it is broken.
UNLEASED_BYTES = 64 * 1024 + 4096


class LinkOwner(Protocol):
    """Gets the messages of a worker, and is told when its link cannot be used any more."""

    def receive(self, worker_id: str, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> None: ...
    def lost(self, worker_id: str, reason: str) -> None: ...


class WorkerLink:
    """The link of one worker."""

    def __init__(
        self, poller: Poller, worker_id: str, directory: Path, terms: Terms, *, on_readable: Callable[[], object]
    ) -> None:
        self.connection: Connection | None = None
        #: The runner was found, and has not said anything to this daemon. It may have tried before, so that its latest
        #: connection counts.
        self.adopting = False
        self.directory = directory
        self.offered: FileOffer | None = None
        self._worker_id = worker_id
        self._poller = poller
        self._terms = terms
        self._on_readable = on_readable
        directory.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        directory.chmod(_DIRECTORY_MODE)
        self._socket: ListeningSocket | None = ListeningSocket(directory / "link.sock", _SOCKET_MODE, backlog=1)
        poller.add(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            sock = self._socket.accept()
        except OSError as error:  # no descriptor is left; the boot deadline ends this worker
            log.error("a worker cannot connect", action="no_accept", worker=self._worker_id, error=str(error))  # noqa: TRY400
            self._stop_listening()
            return
        if sock is None:
            return
        if self.adopting:
            self.drop_connection()
        if self.connection is None:
            self.connection = Connection(sock, self._terms, self._poller, on_readable=self._on_readable)
            return
        self._stop_listening()
        sock.close()
        log.warning("a second connection was refused", action="second_peer", worker=self._worker_id)

    def drop_connection(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def offer(self, descriptor: int, on_refused: Callable[[], None]) -> None:
        """A file to the runner, until `withdraw`. The descriptor is closed in any case. Raises OSError."""
        self.withdraw()
        try:
            self.offered = FileOffer(self._poller, self.directory, descriptor, mode=_SOCKET_MODE, on_refused=on_refused)
        except OSError:
            os.close(descriptor)
            raise

    def withdraw(self) -> None:
        if self.offered is not None:
            self.offered.close()
            self.offered = None

    def _stop_listening(self) -> None:
        if self._socket is not None:
            self._poller.remove(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        self._stop_listening()
        self.withdraw()
        self.drop_connection()


class WorkerLinks:
    """All links, by worker id. Used from the loop's thread only."""

    def __init__(self, poller: Poller, root: Path, timeouts: Timeouts) -> None:
        self.ready: dict[str, None] = {}  #: workers whose messages are to be taken, in the order of their turn
        self._poller = poller
        self._root = root
        self._terms = Terms("PAIR", "PAIR", UNLEASED_BYTES, wire.MAX_FRAMES + 2, timeouts)
        self._count = 0
        self._links: dict[str, WorkerLink] = {}
        self._owners: dict[str, LinkOwner] = {}

    def open(self, worker_id: str, owner: LinkOwner) -> Path:
        """Bind a link in a new directory, which is to be mounted and is named by a number. Raises OSError."""
        self._count += 1
        try:
            return self._bind(worker_id, owner, self._count)
        except OSError:
            shutil.rmtree(self._root / str(self._count), ignore_errors=True)
            raise

    def reopen(self, worker_id: str, owner: LinkOwner, number: int) -> None:
        """Bind a link in the directory that an earlier daemon has made. Raises OSError."""
        self._count = max(self._count, number)
        self._bind(worker_id, owner, number)
        self._links[worker_id].adopting = True

    def _bind(self, worker_id: str, owner: LinkOwner, number: int) -> Path:
        on_readable = partial(self.ready.setdefault, worker_id)
        directory = self._root / str(number)
        self._links[worker_id] = WorkerLink(self._poller, worker_id, directory, self._terms, on_readable=on_readable)
        self._owners[worker_id] = owner
        return directory

    def close(self, worker_id: str) -> None:
        """Close a worker's link and remove its directory. An unknown worker is ignored."""
        link = self._links.pop(worker_id, None)
        self._owners.pop(worker_id, None)
        self.ready.pop(worker_id, None)
        if link is not None:
            link.close()
            with contextlib.suppress(OSError):  # rmtree of Python 3.11 does not ignore all of them
                shutil.rmtree(link.directory, ignore_errors=True)

    def close_all(self) -> None:
        """Leave the directories, so that the next daemon can adopt their workers."""
        for link in self._links.values():
            link.close()
        self._links.clear()

    def send(
        self, worker_id: str, message: wire.Message, payload: Sequence[wire.Frame] = (), *, answer_bytes: int = 0
    ) -> bool:
        """False if there is no such worker, it has not connected, or its connection has ended.

        `answer_bytes`: the most that it may send in one message from now on, until it has sent Done.
        """
        link = self._links.get(worker_id)
        if link is None or (connection := link.connection) is None or connection.queue.messages >= _HIGH_WATER:
            return False
        if answer_bytes:
            connection.decoder.limit = max(UNLEASED_BYTES, answer_bytes)
        return connection.send(wire.encode(message, payload))

    def offer(self, worker_id: str, descriptor: int, on_refused: Callable[[], None]) -> bool:
        """Let the worker have a file, to read, until it has sent Done. The descriptor is closed in any case.

        False: it cannot be offered. `on_refused` is called if the worker cannot use it.
        """
        link = self._links.get(worker_id)
        if link is None:
            os.close(descriptor)
            return False
        try:
            link.offer(descriptor, on_refused)
        except OSError as error:
            log.warning("a worker gets its job without a file", action="no_offer", worker=worker_id, error=str(error))
            return False
        return True

    def receive(self, worker_id: str) -> None:
        """Read a worker's messages. A connection that breaks is read to its end: its last messages still count."""
        self.ready.pop(worker_id, None)
        link = self._links.get(worker_id)
        if link is None or (connection := link.connection) is None:
            return  # closed in this turn, because of what another worker has sent
        owner = self._owners[worker_id]
        try:
            for _ in range(_PER_TURN):
                if (frames := connection.receive()) is None:
                    break
                message, payload = wire.decode(wire.from_runner, frames)
                link.adopting = False
                if isinstance(message, wire.Done):
                    connection.decoder.limit = UNLEASED_BYTES
                    if link.offered is not None:
                        link.withdraw()
                owner.receive(worker_id, message, payload)
                if not connection.more or worker_id not in self._links:
                    break
        except RemoteProtocolError as error:
            owner.lost(worker_id, f"it broke the protocol: {error}")
            return
        if (connection.ended or connection.more) and worker_id in self._links:
            self._go_on(worker_id, link, connection)

    def _go_on(self, worker_id: str, link: WorkerLink, connection: Connection) -> None:
        """Receive more in the next turn, or report the end of the link."""
        if connection.ended and link.adopting:
            link.drop_connection()
        elif connection.ended:
            self._owners[worker_id].lost(
                worker_id, "its end of the link was closed: the runner has ended or was killed"
            )
        elif connection.more:
            self.ready[worker_id] = None

    def sweep(self, now: float) -> None:
        """To be called every second or so: report workers whose connection is over a timeout."""
        for worker_id, link in list(self._links.items()):
            if link.connection is not None and (reason := link.connection.check(now)) is not None:
                self._owners[worker_id].lost(worker_id, f"its link was ended: {reason}")

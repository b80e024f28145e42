"""The daemon's ends of the workers' links: one directory and one socket for each worker, and one connection ever.

The daemon binds `link.sock` and the runner connects; the directory is mounted read-only into that one container. So who
a worker is follows from the socket that its words came through, and no path that a container can change is ever used.
The first connection is the runner's. Whoever connects after it is in the same container and is not let in.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from pool import wire
from pool.daemon.zmtp.connection import Connection, Speech
from pool.daemon.zmtp.poller import ListeningSocket, Poller
from pool.errors import RemoteProtocolError

log = structlog.get_logger(__name__)

#: Messages that wait to be taken by one worker. One job at a time needs three.
_HIGH_WATER = 64
#: Messages taken from one worker before the others get their turn; one that floods must not hold up the loop.
_PER_TURN = 16
#: The runner's user differs from the daemon's, and connecting to a Unix socket takes write permission on it. The
#: directory above all links is closed to everybody else.
_SOCKET_MODE = 0o666
_DIRECTORY_MODE = 0o711
#: What a worker without a lease may say in one message: names, numbers, and why it is broken.
UNLEASED_BYTES = 64 * 1024 + 4096


class WorkerLink:
    """One worker's link. Used from the loop's thread only."""

    def __init__(self, poller: Poller, worker_id: str, directory: Path, *, wake: Callable[[], None]) -> None:
        self.worker_id = worker_id
        self.directory = directory
        self._poller = poller
        self._wake = wake
        self._speech = Speech("PAIR", "PAIR", UNLEASED_BYTES, wire.MAX_FRAMES + 2)
        self._connection: Connection | None = None
        directory.mkdir(mode=_DIRECTORY_MODE)
        directory.chmod(_DIRECTORY_MODE)
        self._listener: ListeningSocket | None = ListeningSocket(directory / "link.sock", _SOCKET_MODE, backlog=1)
        poller.add(self._listener.fileno(), self._knocked)

    def _knocked(self, _: int) -> None:
        assert self._listener is not None
        try:
            sock = self._listener.accept()
        except OSError as error:  # no descriptors left; the boot deadline ends this worker
            log.error("a worker could not be let in", action="no_accept", worker=self.worker_id, error=str(error))  # noqa: TRY400
            self._shut()
            return
        if sock is None:
            return
        if self._connection is None:
            self._connection = Connection(sock, self._speech, self._poller, wake=self._wake)
            return
        self._shut()
        sock.close()
        log.warning("somebody else in its container has connected", action="second_peer", worker=self.worker_id)

    @property
    def more(self) -> bool:
        return self._connection is not None and self._connection.more

    @property
    def ended(self) -> bool:
        """Whether the runner's end was closed, and everything it had said was received."""
        return self._connection is not None and self._connection.ended

    def set_limit(self, size: int) -> None:
        """What the worker may say in one message from now on."""
        if self._connection is not None:
            self._connection.allow(max(size, UNLEASED_BYTES))

    def send(self, message: wire.Message, payload: Sequence[wire.Frame] = ()) -> bool:
        """False when nobody is at the other end, or it does not take anything any more."""
        link = self._connection
        return link is not None and link.out.messages < _HIGH_WATER and link.send(wire.encode(message, payload))

    def receive(self) -> tuple[wire.FromRunner, Sequence[wire.Frame]] | None:
        """The next message; None when there is none. Raises RemoteProtocolError on the first that is not allowed."""
        frames = self._connection.receive() if self._connection is not None else None
        return None if frames is None else wire.decode(wire.from_runner, frames)

    def _shut(self) -> None:
        if self._listener is not None:
            self._poller.remove(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        self._shut()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        shutil.rmtree(self.directory, ignore_errors=True)


Receive = Callable[[str, wire.FromRunner, Sequence[wire.Frame]], None]
Lose = Callable[[str, str], None]


class WorkerLinks:
    """All links, by worker id, and those of them that have something to say."""

    def __init__(self, poller: Poller, root: Path) -> None:
        self._poller = poller
        self._root = root
        self._count = 0
        self._links: dict[str, WorkerLink] = {}
        self._waiting: dict[str, WorkerLink] = {}

    @property
    def waiting(self) -> list[WorkerLink]:
        """Those that can be heard, in the order of their turn."""
        return list(self._waiting.values())

    def open(self, worker_id: str) -> Path:
        """Bind a link; the directory to be mounted."""
        self._count += 1
        link = WorkerLink(self._poller, worker_id, self._root / str(self._count), wake=lambda: self._spoken(worker_id))
        self._links[worker_id] = link
        return link.directory

    def _spoken(self, worker_id: str) -> None:
        self._waiting.setdefault(worker_id, self._links[worker_id])

    def close(self, worker_id: str) -> None:
        """Forget a worker; unknown ones are no error."""
        link = self._links.pop(worker_id, None)
        self._waiting.pop(worker_id, None)
        if link is not None:
            link.close()

    def set_limit(self, worker_id: str, size: int) -> None:
        """What a worker may say in one message from now on."""
        link = self._links.get(worker_id)
        if link is not None:
            link.set_limit(size)

    def send(self, worker_id: str, message: wire.Message, payload: Sequence[wire.Frame] = ()) -> bool:
        link = self._links.get(worker_id)
        return link is not None and link.send(message, payload)

    def receive(self, link: WorkerLink, *, on_message: Receive, on_lost: Lose) -> None:
        """Take what a link has. One that breaks has been read to its end: what was said still counts."""
        worker_id = link.worker_id
        self._waiting.pop(worker_id, None)
        try:
            for _ in range(_PER_TURN):
                if self._links.get(worker_id) is not link:
                    return
                if (heard := link.receive()) is None:
                    break
                on_message(worker_id, *heard)
        except RemoteProtocolError as error:
            on_lost(worker_id, f"it broke the protocol: {error}")
            return
        if link.ended:
            on_lost(worker_id, "its end of the link was closed: the runner has ended or was killed")
        elif link.more and self._links.get(worker_id) is link:
            self._waiting[worker_id] = link

    def close_all(self) -> None:
        for worker_id in list(self._links):
            self.close(worker_id)

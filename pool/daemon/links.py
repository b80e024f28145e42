"""The daemon's ends of the workers' links: one directory, one socket and one monitor for each worker.

The daemon binds `link.sock` and the runner connects; the directory is mounted read-only into that one container. So who
a worker is follows from the socket that its words came through, and no path that a container can change is ever used.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from pool import wire
from pool.errors import RemoteProtocolError

#: Messages in flight to or from one worker. One job at a time needs three; the rest is beats while the loop is busy.
_HIGH_WATER = 64
#: Messages taken from one worker before the others get their turn; one that floods must not hold up the loop.
_PER_TURN = 16
#: The runner's user differs from the daemon's, and connecting to a Unix socket takes write permission on it. The
#: directory above all links is closed to everybody else.
_SOCKET_MODE = 0o666
_DIRECTORY_MODE = 0o711


class Link:
    """One worker's link. Used from the loop's thread only."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=_DIRECTORY_MODE)
        directory.chmod(_DIRECTORY_MODE)
        self.socket = context.socket(zmq.PAIR)
        self.socket.set_hwm(_HIGH_WATER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        path = directory / "link.sock"
        self.socket.bind(f"ipc://{path}")
        path.chmod(_SOCKET_MODE)

    def send(self, message: wire.Message, payload: Sequence[wire.Frame] = ()) -> bool:
        """False when nobody is at the other end, or it does not take anything any more."""
        try:
            self.socket.send_multipart(wire.encode(message, payload), flags=zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def receive(self) -> tuple[wire.FromRunner, Sequence[wire.Frame]] | None:
        """The next message; None when there is none. Raises RemoteProtocolError on the first that is not allowed."""
        try:
            frames = self.socket.recv_multipart(flags=zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        return wire.decode(wire.from_runner, [frame.buffer for frame in frames])

    def hung_up(self) -> bool:
        """Whether the runner's end was closed; call when the monitor is readable."""
        with contextlib.suppress(zmq.Again):
            return bool(recv_monitor_message(self.monitor, zmq.NOBLOCK)["event"] == zmq.EVENT_DISCONNECTED)
        return False

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)
        shutil.rmtree(self.directory, ignore_errors=True)


Hear = Callable[[str, wire.FromRunner, Sequence[wire.Frame]], None]
Lose = Callable[[str, str], None]


class Links:
    """All links, by worker id, and their place in the loop's poller."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], poller: zmq.Poller, root: Path) -> None:
        self._context = context
        self._poller = poller
        self._root = root
        self._count = 0
        self._links: dict[str, Link] = {}
        self._owners: dict[zmq.Socket[bytes], str] = {}

    def open(self, worker_id: str) -> Path:
        """Bind a link; the directory to be mounted."""
        self._count += 1
        link = Link(self._context, self._root / str(self._count))
        self._links[worker_id] = link
        for socket in (link.socket, link.monitor):
            self._owners[socket] = worker_id
            self._poller.register(socket, zmq.POLLIN)
        return link.directory

    def close(self, worker_id: str) -> None:
        """Forget a worker; unknown ones are no error."""
        link = self._links.pop(worker_id, None)
        if link is None:
            return
        for socket in (link.socket, link.monitor):
            self._poller.unregister(socket)
            del self._owners[socket]
        link.close()

    def send(self, worker_id: str, message: wire.Message, payload: Sequence[wire.Frame] = ()) -> bool:
        link = self._links.get(worker_id)
        return link is not None and link.send(message, payload)

    def owns(self, socket: object) -> bool:
        return socket in self._owners

    def hear(self, socket: zmq.Socket[bytes], *, on_message: Hear, on_lost: Lose) -> None:
        """Take what a readable socket has. A link that breaks is first read to its end: what was said still counts."""
        worker_id = self._owners.get(socket)
        if worker_id is None:
            return
        link = self._links[worker_id]
        hung_up = socket is link.monitor and link.hung_up()
        try:
            for _ in itertools.count() if hung_up else range(_PER_TURN):
                if (heard := link.receive()) is None:
                    break
                on_message(worker_id, *heard)
                if worker_id not in self._links:
                    return
        except RemoteProtocolError as error:
            on_lost(worker_id, f"it broke the protocol: {error}")
            return
        if hung_up:
            on_lost(worker_id, "its end of the link was closed: the runner has ended or was killed")

    def close_all(self) -> None:
        for worker_id in list(self._links):
            self.close(worker_id)

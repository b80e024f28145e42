"""The loop's sockets: submit.sock and admin.sock for people, the links for workers, and a wake-up for threads.

One thread, one `zmq.Poller`. A message that is not valid costs its sender an answer and nobody else anything.
"""

from __future__ import annotations

import contextlib
import grp
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from pool import wire
from pool.daemon.links import Links
from pool.errors import ConfigError

#: Messages queued for one client before the daemon stops sending to it; it asks again for what it missed.
_CLIENT_HIGH_WATER = 10_000
#: Half-open connections are given up after this, so that they cannot pile up.
_HANDSHAKE_MS = 5_000


class Wakeup:
    """Lets other threads, and signal handlers, end the loop's wait."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)


class Door:
    """A ROUTER socket on a path, with the permissions it has from its first moment on."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], path: Path, mode: int, group: str | None = None
    ) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.set_hwm(_CLIENT_HIGH_WATER)
        self.socket.setsockopt(zmq.LINGER, 1000)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
        self.socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        path.unlink(missing_ok=True)
        before = os.umask(0o777 & ~mode)
        try:
            self.socket.bind(f"ipc://{path}")
        finally:
            os.umask(before)
        if group is not None:
            os.chown(path, -1, _group_id(group))
        path.chmod(mode)

    def receive(self) -> tuple[bytes, str, list[wire.Frame]] | None:
        """Address, user and frames of the next message; None when there is none."""
        try:
            first, *rest = self.socket.recv_multipart(flags=zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        return first.bytes, _user_of(rest), [frame.buffer for frame in rest]

    def send(self, address: bytes, message: wire.Message, payload: Sequence[wire.Frame] = ()) -> bool:
        """False when the client is gone or does not read."""
        try:
            self.socket.send_multipart([address, *wire.encode(message, payload)], flags=zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            return False
        return True


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"daemon.submit_group: there is no group {name!r}; create it or name another one") from None


def _user_of(frames: Sequence[zmq.Frame]) -> str:
    """The peer's user id, which libzmq takes from the socket's credentials: "localhost:uid:gid:pid"."""
    if not frames:
        return "nobody"
    try:
        return str(int(str(frames[0].get("Peer-Address")).split(":")[1]))
    except (zmq.ZMQError, IndexError, ValueError):
        return "nobody"


class Transport:
    """All sockets of the daemon, made at once and closed at once."""

    def __init__(self, *, submit: Path, admin: Path, links: Path, submit_mode: int, submit_group: str | None) -> None:
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self.wakeup = Wakeup()
        try:
            self.submit = Door(self._context, submit, submit_mode, submit_group)
            self.admin = Door(self._context, admin, 0o600)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.links = Links(self._context, self._poller, links)
        self._watches: dict[int, Callable[[], None]] = {}
        for source in (self.submit.socket, self.admin.socket, self.wakeup.fd):
            self._poller.register(source, zmq.POLLIN)

    def poll(self, timeout_s: float) -> list[zmq.Socket[bytes] | int]:
        """Sources that can be read, links first: an answer frees a worker for the submit that follows."""
        ready = [source for source, _ in self._poller.poll(max(0, int(timeout_s * 1000 + 0.999)))]
        return sorted(ready, key=self.links.owns, reverse=True)

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call back once, from `poll`'s caller, when a descriptor becomes readable."""
        self._watches[fd] = call
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        if self._watches.pop(fd, None) is not None:
            self._poller.unregister(fd)
            os.close(fd)

    def fire(self, fd: int) -> None:
        """Run the callback of a watched descriptor and drop the watch."""
        call = self._watches.get(fd)
        self.unwatch(fd)
        if call is not None:
            call()

    def close(self) -> None:
        self.links.close_all()
        for fd in list(self._watches):
            self.unwatch(fd)
        self._context.destroy(linger=1000)
        os.close(self.wakeup.fd)

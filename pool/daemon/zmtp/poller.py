"""The loop's one epoll: a call for each descriptor, and the buffer that all connections read small things into."""

from __future__ import annotations

import contextlib
import grp
import math
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

from pool.errors import ConfigError

#: As much as a Unix socket holds, about.
_SCRATCH_BYTES = 256 * 1024

Heard = Callable[[int], None]


class Poller:
    """Level-triggered: a descriptor that was not read to its end is told again."""

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._epoll = select.epoll()
        self._calls: dict[int, Heard] = {}
        self._writers: set[int] = set()
        self._unread: set[int] = set()

    def add(self, fd: int, heard: Heard) -> None:
        """Call with the event mask whenever it can be read, has ended, or can be written if that is wanted."""
        self._epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = heard

    def want_write(self, fd: int, *, wanted: bool) -> None:
        if wanted != (fd in self._writers):
            (self._writers.add if wanted else self._writers.discard)(fd)
            self._modify(fd)

    def want_read(self, fd: int, *, wanted: bool) -> None:
        """Without it, what can be read wakes nobody."""
        if wanted == (fd in self._unread):
            (self._unread.discard if wanted else self._unread.add)(fd)
            self._modify(fd)

    def _modify(self, fd: int) -> None:
        mask = (0 if fd in self._unread else select.EPOLLIN) | (select.EPOLLOUT if fd in self._writers else 0)
        self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        """Before the descriptor is closed. One that is not there is no error."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._writers.discard(fd)
            self._unread.discard(fd)

    def wait(self, timeout_s: float) -> None:
        """Sleep until something can be done, and make the calls."""
        for fd, mask in self._epoll.poll(math.ceil(timeout_s * 1000) / 1000):
            heard = self._calls.get(fd)
            if heard is not None:
                heard(mask)

    def close(self) -> None:
        self._epoll.close()


class Wakeup:
    """Lets other threads, and signal handlers, end the loop's wait."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self.fd, 1)

    def clear(self, _: int = 0) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)


class ListeningSocket:
    """Bound and listening from the start; `close` leaves the path to whoever owns the directory."""

    def __init__(self, path: Path, mode: int, *, group: str | None = None, backlog: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            _bind(self._socket, path, mode)
            if group is not None:
                os.chown(path, -1, _group_id(group))
            path.chmod(mode)
            self._socket.listen(backlog)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> socket.socket | None:
        """The next who has connected; None when there is none. Raises OSError when no descriptor is left."""
        try:
            return self._socket.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            return None

    def close(self) -> None:
        self._socket.close()


def _bind(sock: socket.socket, path: Path, mode: int) -> None:
    path.unlink(missing_ok=True)
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"daemon.submit_group: there is no group {name!r}; create it or name another one") from None

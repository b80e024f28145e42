"""What the loop waits for: one epoll for all descriptors, the wake-up by other threads, and listening sockets."""

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

Call = Callable[[], object]


class Poller:
    """A level-triggered epoll: a descriptor that was not read to its end is reported again."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, tuple[Call, Call | None]] = {}
        self._masks: dict[int, int] = {}  # events that each descriptor is to be reported for

    def add(self, fd: int, on_readable: Call, on_writable: Call | None = None) -> None:
        """Make the first call when the descriptor is readable or has ended, the second when it is writable, if that is
        wanted.
        """
        self._calls[fd], self._masks[fd] = (on_readable, on_writable), 0
        self._set(fd, select.EPOLLIN)

    def want_read(self, fd: int, *, wanted: bool) -> None:
        """Whether the descriptor is reported when it is readable or has ended. At first it is."""
        self._set(fd, self._masks[fd] | select.EPOLLIN if wanted else self._masks[fd] & ~select.EPOLLIN)

    def want_write(self, fd: int, *, wanted: bool) -> None:
        """Whether the descriptor is reported when it is writable. At first it is not."""
        self._set(fd, self._masks[fd] | select.EPOLLOUT if wanted else self._masks[fd] & ~select.EPOLLOUT)

    def _set(self, fd: int, mask: int) -> None:
        """Without any event it is taken out of the epoll, which would go on to report its end."""
        before, self._masks[fd] = self._masks[fd], mask
        if mask == before:
            return
        if not mask:
            self._epoll.unregister(fd)
        elif not before:
            self._epoll.register(fd, mask)
        else:
            self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        """To be called before the descriptor is closed. One that was not added is no error."""
        if self._calls.pop(fd, None) is not None:
            self._set(fd, 0)
            del self._masks[fd]

    def wait(self, timeout_s: float) -> None:
        """Sleep until something has happened, then make the calls."""
        for fd, mask in self._epoll.poll(math.ceil(timeout_s * 1000) / 1000):
            on_readable, on_writable = self._calls.get(fd, (None, None))
            if on_writable is not None and mask & select.EPOLLOUT:
                on_writable()
            if on_readable is not None and mask & ~select.EPOLLOUT:
                on_readable()

    def close(self) -> None:
        self._epoll.close()


class Wakeup:
    """Lets other threads and signal handlers end the loop's wait."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)


class ListeningSocket:
    """A Unix socket that has its permissions from the moment its path exists. `close` does not remove the path."""

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
        """The next connection; None if there is none. Raises OSError when the process has no descriptor left."""
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

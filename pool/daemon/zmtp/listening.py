"""A Unix socket that peers connect to."""

from __future__ import annotations

import grp
import os
import socket
from pathlib import Path

from pool.errors import ConfigError


class ListeningSocket:
    """A Unix socket that has its permissions, and listens, from the moment its path exists.

    `close` does not remove the path. A socket that is there already is replaced.
    """

    def __init__(self, path: Path, mode: int, *, group: str | None = None, backlog: int) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            unready = path.with_suffix(".new")  # no longer than the path, whose length is limited
            _bind(self._socket, unready, mode)
            if group is not None:
                os.chown(unready, -1, _group_id(group))
            unready.chmod(mode)
            self._socket.listen(backlog)
            unready.replace(path)
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

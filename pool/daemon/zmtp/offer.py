"""A file for a worker: the payload of its job, which is not sent over the link.

    daemon                                     runner
      binds w/7/body.sock
      ──── Run, over the link ──────────────▶
                                               connects; the daemon stops listening and removes the path
      ──── one byte, with the descriptor ───▶
      ◀─── the end, or REFUSED ──────────────  it cannot map the file: the daemon sends the payload over the link

The descriptor can only read, and the file belongs to the daemon's user alone. The directory is mounted into that one
container, read-only, so the peer is the worker. Nothing else that it sends is read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from pool.daemon.zmtp.connection import Poller
from pool.daemon.zmtp.listening import ListeningSocket

#: In the directory of the link.
NAME = "body.sock"
REFUSED = b"r"
_GIVEN = b"g"


class FileOffer:
    """One descriptor, for the first peer that connects. It is closed when it was given, or by `close`."""

    def __init__(
        self, poller: Poller, directory: Path, descriptor: int, *, mode: int, on_refused: Callable[[], None]
    ) -> None:
        """Raises OSError; the descriptor is then the caller's."""
        self._path = directory / NAME
        self._poller = poller
        self._on_refused = on_refused
        self._descriptor: int | None = None
        self._peer: socket.socket | None = None
        self._socket: ListeningSocket | None = ListeningSocket(self._path, mode, backlog=1)
        self._descriptor = descriptor
        poller.add(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            peer = self._socket.accept()
        except OSError:  # no descriptor is left; the runner finds that the connection has ended
            self.close()
            return
        if peer is None:
            return
        self._stop_listening()
        peer.setblocking(False)
        self._peer = peer
        self._poller.add(peer.fileno(), self._receive)
        assert self._descriptor is not None, "it is given once"
        try:
            socket.send_fds(peer, [_GIVEN], [self._descriptor])
        except OSError:  # the runner has gone
            self.close()
        self._close_descriptor()

    def _receive(self) -> None:
        assert self._peer is not None
        try:
            said = self._peer.recv(1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self.close()
        if said == REFUSED:
            self._on_refused()

    def _stop_listening(self) -> None:
        if self._socket is not None:
            self._poller.remove(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)

    def _close_descriptor(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def close(self) -> None:
        """Any number of times."""
        self._stop_listening()
        self._close_descriptor()
        if self._peer is not None:
            self._poller.remove(self._peer.fileno())
            self._peer.close()
            self._peer = None

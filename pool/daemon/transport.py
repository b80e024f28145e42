"""The loop's sockets: submit.sock and admin.sock for people, the links for workers, and a wake-up for threads.

One thread, one epoll. The peers are libzmq's; this end is our own (`zmtp.py`, `stream.py`), because libzmq counts whole
messages and single frames: a peer whose message never ends makes it hold as much as it likes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pool.daemon.doors import ADMIN, SUBMIT, Door
from pool.daemon.links import Link, Links
from pool.daemon.stream_poll import Poller

#: How often the doors look for what does not move.
_SWEEP_S = 1.0
#: Answers that were given last are written for so long when the daemon ends.
_LINGER_S = 1.0

#: Something to be served: a worker's link, a door, or a descriptor that somebody watches.
Source = Link | Door | int


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


class Transport:
    """All sockets of the daemon, made at once and closed at once."""

    def __init__(self, *, submit: Path, admin: Path, links: Path, submit_mode: int, submit_group: str | None) -> None:
        self._poller = Poller()
        self.wakeup = Wakeup()
        self.submit = Door(self._poller, submit, submit_mode, group=submit_group, caps=SUBMIT)
        self.admin = Door(self._poller, admin, 0o600, caps=ADMIN)
        self.links = Links(self._poller, links)
        self._watches: dict[int, Callable[[], None]] = {}
        self._due: dict[int, None] = {}
        self._sweep_at = 0.0
        self._poller.add(self.wakeup.fd, partial(self._fell_due, self.wakeup.fd))

    def poll(self, timeout_s: float) -> list[Source]:
        """What can be served, links first: an answer frees a worker for the submit that follows."""
        self._poller.wait(0.0 if self._waiting() else max(0.0, timeout_s))
        self._sweep(time.monotonic())
        due, self._due = list(self._due), {}
        return [*self.links.waiting, *due, *self._waiting_doors()]

    def _waiting(self) -> bool:
        return bool(self.links.waiting or self._waiting_doors())

    def _waiting_doors(self) -> list[Door]:
        return [door for door in (self.submit, self.admin) if door.waiting]

    def _sweep(self, now: float) -> None:
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_S
            for door in (self.submit, self.admin):
                door.sweep(now)

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call back once, from `poll`'s caller, when a descriptor becomes readable."""
        self._watches[fd] = call
        self._poller.add(fd, partial(self._fell_due, fd))

    def _fell_due(self, fd: int, _: int) -> None:
        self._due[fd] = None

    def unwatch(self, fd: int) -> None:
        if self._watches.pop(fd, None) is not None:
            self._poller.remove(fd)
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
        self.submit.close(linger_s=_LINGER_S)
        self.admin.close(linger_s=_LINGER_S)
        self._poller.close()
        os.close(self.wakeup.fd)

"""All sockets of the daemon, and one turn of its loop: wait, then serve all that can be read or written.

A turn serves workers first, because an answer frees a worker for the job that is submitted next. Every source has a
quota in a turn, so that one that floods does not keep the others waiting.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pool.daemon.zmtp.connection import TIMEOUTS, Call, Timeouts
from pool.daemon.zmtp.links import WorkerLinks
from pool.daemon.zmtp.listener import ADMIN, SUBMIT, ClientListener, Serve

#: How often connections are checked against their timeouts.
_SWEEP_S = 1.0
#: A worker's link has only one of them, the time of a message. The core judges the rest: a worker has a deadline for
#: its start, sends heartbeats while it is idle, and has the deadline of its job.
_LINK_TIMEOUTS = Timeouts(handshake=math.inf, stalled=math.inf, ping_after=math.inf)
#: How long `close` goes on writing the last answers.
_LINGER_S = 1.0


class Epoll:
    """What the loop waits for. A level-triggered epoll: a descriptor that was not read to its end is reported again."""

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
        """To be called before the descriptor is closed. One that was not added is ignored."""
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


class Handlers(NamedTuple):
    """What to call with a client's message, its address and its user id. Workers' messages go to their link's owner."""

    on_submit: Serve
    on_admin: Serve


class Transport:
    """Used from the loop's thread, except for `call_soon`."""

    def __init__(
        self,
        *,
        submit: Path,
        admin: Path,
        links: Path,
        submit_mode: int,
        submit_group: str | None,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        self._poller = Epoll()
        self._wakeup = Wakeup()
        self.submit = ClientListener(
            self._poller, submit, submit_mode, group=submit_group, caps=SUBMIT, timeouts=timeouts
        )
        self.admin = ClientListener(self._poller, admin, 0o600, caps=ADMIN, timeouts=timeouts)
        self.links = WorkerLinks(self._poller, links, _LINK_TIMEOUTS._replace(message=timeouts.message))
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._watched: dict[int, Callable[[], None]] = {}
        self._readable: dict[int, None] = {}  # of the watched descriptors
        self._sweep_at = 0.0
        #: Monotonic seconds: what workers and clients had sent by then was received, but for clients that send a lot.
        self.served_until = 0.0
        self._poller.add(self._wakeup.fd, self._wakeup.clear)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Have the loop call it, and end the loop's wait. May be called from any thread and from a signal handler."""
        self._calls.put(function)
        self._wakeup.set()

    def run_once(self, timeout_s: float, handlers: Handlers) -> None:
        """One turn. It waits only while there is nothing to serve."""
        began = time.monotonic()
        serves = self.links.ready or self.submit.ready or self.admin.ready
        self._poller.wait(0.0 if serves else max(0.0, timeout_s))
        for worker_id in list(self.links.ready):
            self.links.receive(worker_id)
        if self._readable or not self._calls.empty():
            self._run_calls()
        if self.submit.ready:
            self.submit.serve(handlers.on_submit)
        if self.admin.ready:
            self.admin.serve(handlers.on_admin)
        if not self.links.ready:  # a worker may send only so much, so it is soon empty
            self.served_until = began
        if began >= self._sweep_at:
            self._sweep(began)

    def _sweep(self, now: float) -> None:
        self._sweep_at = now + _SWEEP_S
        self.submit.sweep(now)
        self.admin.sweep(now)
        self.links.sweep(now)

    # ---- descriptors and other threads ----

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call back once when a descriptor becomes readable. It is ours from now on, and closed after the call."""
        self._watched[fd] = call
        self._poller.add(fd, lambda: self._readable.setdefault(fd, None))

    def unwatch(self, fd: int) -> None:
        """Close a watched descriptor without the call. One that is not watched is ignored."""
        self._readable.pop(fd, None)
        if self._watched.pop(fd, None) is not None:
            self._poller.remove(fd)
            os.close(fd)

    def _run_calls(self) -> None:
        for fd in list(self._readable):
            call = self._watched.get(fd)
            self.unwatch(fd)
            if call is not None:
                call()
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()()

    def close(self) -> None:
        """Close everything, after the clients were given a second to take their last answers."""
        self.links.close_all()
        for fd in list(self._watched):
            self.unwatch(fd)
        self.submit.close(linger_s=_LINGER_S)
        self.admin.close(linger_s=_LINGER_S)
        self._poller.close()
        os.close(self._wakeup.fd)

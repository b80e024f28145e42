"""The loop's one epoll: a call for each descriptor, and the buffer that all connections read small things into."""

from __future__ import annotations

import math
import select
from collections.abc import Callable

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

    def add(self, fd: int, heard: Heard) -> None:
        """Call with the event mask whenever it can be read, has ended, or can be written if that is wanted."""
        self._epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = heard

    def want_write(self, fd: int, *, wanted: bool) -> None:
        if wanted == (fd in self._writers):
            return
        self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))
        (self._writers.add if wanted else self._writers.discard)(fd)

    def remove(self, fd: int) -> None:
        """Before the descriptor is closed. One that is not there is no error."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._writers.discard(fd)

    def wait(self, timeout_s: float) -> None:
        """Sleep until something can be done, and make the calls."""
        for fd, mask in self._epoll.poll(math.ceil(timeout_s * 1000) / 1000):
            heard = self._calls.get(fd)
            if heard is not None:
                heard(mask)

    def close(self) -> None:
        self._epoll.close()

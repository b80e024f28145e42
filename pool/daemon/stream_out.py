"""What waits to be written to one peer: whole messages, in order, by reference. It never blocks."""

from __future__ import annotations

import itertools
import socket
from collections import deque
from collections.abc import Sequence

#: Buffers given to the kernel in one call.
_BUFFERS = 64

Buffer = bytes | memoryview


class Outbox:
    """Bytes that the peer has not taken yet. `size` and `messages` are the owner's to hold against its caps."""

    def __init__(self) -> None:
        self._buffers: deque[Buffer] = deque()
        self._ends: deque[int] = deque()  # of each message, counted from the first byte ever
        self._written = 0
        self._queued = 0

    @property
    def size(self) -> int:
        return self._queued - self._written

    @property
    def messages(self) -> int:
        return len(self._ends)

    def put(self, buffers: Sequence[Buffer]) -> None:
        self._buffers.extend(buffers)
        self._queued += sum(map(len, buffers))
        self._ends.append(self._queued)

    def write(self, sock: socket.socket) -> None:
        """Write until all is gone or the kernel takes no more. Raises OSError when nobody is there to read it."""
        try:
            while self._buffers:
                count = sock.sendmsg(itertools.islice(self._buffers, _BUFFERS), (), socket.MSG_NOSIGNAL)
                self._forget(count)
        except BlockingIOError:
            return

    def _forget(self, count: int) -> None:
        self._written += count
        while self._buffers and count >= len(self._buffers[0]):
            count -= len(self._buffers.popleft())
        if count:
            self._buffers[0] = memoryview(self._buffers[0])[count:]
        while self._ends and self._ends[0] <= self._written:
            self._ends.popleft()

    def clear(self) -> None:
        self._buffers.clear()
        self._ends.clear()
        self._written = self._queued

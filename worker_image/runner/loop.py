"""The runner's loop: calls handlers of descriptors that are readable, and timers that are due."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from typing import NoReturn


class Loop:
    def __init__(self) -> None:
        #: What to call when, in monotonic seconds. Each is called once.
        self.timers: dict[Callable[[], object], float] = {}
        #: What to call, once, before the next wait.
        self.first: Callable[[], object] | None = None
        #: What to call when a descriptor that is watched is readable. Another one may take its place.
        self.handlers: dict[int, Callable[[], object]] = {}
        #: Not epoll: the kernel bounds the descriptors that all epolls of a user watch, and a job is of the same user.
        self._poll = select.poll()

    def watch(self, handler: Callable[[], object], fd: int) -> None:
        self._poll.register(fd, select.POLLIN)
        self.handlers[fd] = handler

    def unwatch(self, *fds: int | None) -> None:
        """Those that are watched. Call it before they are closed."""
        for fd in fds:
            if fd is not None and self.handlers.pop(fd, None) is not None:
                self._poll.unregister(fd)

    def run(self) -> NoReturn:
        """Wait for what comes next, and handle all that has come; again and again, until a handler raises."""
        while True:
            if (first := self.first) is not None:
                self.first = None
                first()
            wait_s = min(self.timers.values()) - time.monotonic()
            for fd, _ in self._poll.poll(max(0, math.ceil(wait_s * 1000))):
                if handler := self.handlers.get(fd):  # it may have been removed in this turn
                    handler()
            now = time.monotonic()
            if now >= min(self.timers.values()):
                for timer in [timer for timer, due in self.timers.items() if now >= due]:
                    if self.timers.pop(timer, None) is not None:
                        timer()

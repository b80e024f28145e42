"""An object that each process has for itself, also when it was forked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

T = TypeVar("T")


class PerProcess(dict[int, T]):
    """One T for each process, by its pid: made when it is first asked for, and made anew after a fork.

    A forked child inherits locks that nobody will release, queues that nobody will read and sockets that it must not
    touch. So it makes its own and leaves the parent's as they are.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        super().__init__()
        self._make = make
        self._locks: dict[int, AbstractContextManager[bool]] = {}

    def __missing__(self, pid: int) -> T:
        # setdefault is atomic. The lock is this process's own, so one that was held during the fork does not matter.
        with self._locks.setdefault(pid, threading.RLock()):
            if pid not in self:
                made = self._make()
                if pid not in self:  # a signal's handler, which the lock lets in, may have made one meanwhile
                    self.clear()
                    self[pid] = made
            return self[pid]

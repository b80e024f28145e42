"""State that belongs to one process: made at first use, and made anew after a fork.

A forked child inherits locks that nobody will release, queues that nobody will read and sockets that it must not touch.
So the child takes none of it: it starts from nothing, and what the parent had is left as it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One T for each process."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._locks: dict[int, threading.Lock] = {}
        self._made: tuple[int, T] | None = None

    def peek(self) -> T | None:
        """This process's T, if it has been made."""
        made = self._made
        return made[1] if made is not None and made[0] == os.getpid() else None

    def get(self) -> T:
        found = self.peek()
        if found is not None:
            return found
        # setdefault is atomic, and the lock is this process's own: one that was held during the fork is not waited for.
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            found = self.peek()
            if found is None:
                found = self._make()
                self._made = (os.getpid(), found)
            return found

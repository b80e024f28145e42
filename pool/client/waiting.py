"""Waits of a caller's thread that Ctrl-C and other signals can end, and the pauses of a call while a pool is busy.

CPython runs a signal's handler between two instructions, or when the signal interrupts a wait. A signal that arrives
just before the main thread sleeps, or in another thread, interrupts nothing: its handler would run after the wait,
perhaps never. So these waits consist of slices. The end of a slice is not signalled by TimeoutError, because a handler
may raise that too.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from pool.errors import BacklogFullError, BusyError

T = TypeVar("T")

#: The longest time, in seconds, until a signal is noticed.
SLICE_S = 1.0
#: How long a caller who leaves waits until the daemon has confirmed that his jobs are cancelled.
CANCEL_S = 1.0
#: The pause before a request is sent again where the daemon names none; and the longest one, so that a repaired pool is
#: found soon.
RETRY_S, RETRY_MOST_S = 1.0, 5.0
#: The most that is added to a named pause, as a share of it.
JITTER = 0.5

#: Threads that receive the answers of a client, by their idents.
receiving: set[int] = set()


def never_answered() -> RuntimeError:
    """The error of a wait for an answer on one of these threads."""
    return RuntimeError(
        "a destructor, which the garbage collector has called on the thread of a Client, waits for a job: that thread "
        "could then not receive the answer; wait in another thread"
    )


def take(queue: SimpleQueue[T], wait_s: float | None) -> T:
    """The next item. Raises queue.Empty after `wait_s` seconds (None: never)."""
    if threading.get_ident() in receiving:
        raise never_answered()
    deadline = math.inf if wait_s is None else time.monotonic() + wait_s
    while True:
        left_s = deadline - time.monotonic()
        try:
            return queue.get(timeout=max(0.0, min(left_s, SLICE_S)))
        except Empty:
            if left_s <= 0:
                raise


def until_true(changed: threading.Condition, predicate: Callable[[], bool]) -> None:
    """Return when the predicate is true. The caller holds the condition."""
    while not changed.wait_for(predicate, SLICE_S):
        pass


def until_ended(thread: threading.Thread) -> None:
    """Return when the thread has ended."""
    while thread.is_alive():
        thread.join(SLICE_S)


class Patience:
    """How long a call that waits for one job tries again while the backlog is full. None: it does not."""

    def __init__(self, wait_s: float | None) -> None:
        self._deadline = None if wait_s is None else time.monotonic() + wait_s

    def left_s(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def pause_s(self, error: BacklogFullError) -> float:
        """Seconds until the next try. Raises the error when less time than that would be left for its answer."""
        pause_s, left_s = pause_after(error), self.left_s()
        if left_s is None or 2 * pause_s >= left_s:
            raise error
        return pause_s


def pause_after(error: BusyError) -> float:
    """The pause that the daemon named plus up to half of it, so that refused clients do not all come back together."""
    named = error.fields.get("retry_after_s")
    pause_s = max(0.0, float(named)) if isinstance(named, int | float) else RETRY_S
    return min(pause_s * random.uniform(1.0, 1.0 + JITTER), RETRY_MOST_S)  # noqa: S311 - spreads, protects nothing

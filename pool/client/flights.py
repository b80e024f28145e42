"""Requests that are under way together, and their ends as they come, in the caller's thread.

    start ──▶ I/O thread ──▶ daemon ──answer──▶ queue ──▶ next
                  ▲                                │ busy
                  └── again, when another has ended, or after `retry_after_s` ──┘

A request that a full or unavailable pool turns away is so not lost: it waits here, and the deadline of all is its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from pool.client.ledger import Delivery, Request
from pool.errors import BusyError, ResultTimeoutError

#: When to ask again where the daemon does not say; and the longest wait, so that a repaired pool is soon found.
AGAIN_S, AGAIN_MOST_S = 1.0, 5.0

K = TypeVar("K")
Answer = Future[Delivery | None]
Ask = Callable[[], Request]


class _Waiting(NamedTuple, Generic[K]):
    at: float
    key: K
    ask: Ask


class Flights(Generic[K]):
    """Used by one thread. `wait_s`: seconds from now for all of it; None: as long as it takes."""

    def __init__(self, wait_s: float | None) -> None:
        self._wait_s = wait_s
        self._deadline = None if wait_s is None else time.monotonic() + wait_s
        self._open: dict[K, tuple[Ask, Request]] = {}
        self._turned_away: deque[_Waiting[K]] = deque()
        self._ended: SimpleQueue[tuple[K, Answer]] = SimpleQueue()
        self._why_busy: dict[K, BusyError] = {}  # of those that were turned away, also while they ask again

    def __len__(self) -> int:
        """Those under way and those that were turned away."""
        return len(self._open) + len(self._turned_away)

    def start(self, key: K, ask: Ask) -> None:
        """`ask` sends the request; it is called again when the pool was busy."""
        request = ask()
        self._open[key] = ask, request
        request.answer.add_done_callback(lambda answer: self._ended.put((key, answer)))

    def requests(self) -> Iterable[Request]:
        """Those that have no answer yet."""
        return [request for _, request in self._open.values()]

    def next(self) -> tuple[K, Answer]:
        """The next one that has its answer. Raises ResultTimeoutError when the time is over."""
        while True:
            self._try_again(time.monotonic())
            try:
                key, answer = self._ended.get(timeout=self._patience_s())
            except Empty:
                self._check_time()
                continue
            ask, _ = self._open.pop(key)
            self._why_busy.pop(key, None)
            error = answer.exception()
            if isinstance(error, BusyError):
                self._why_busy[key] = error
                self._turned_away.append(_Waiting(time.monotonic() + _again_s(error), key, ask))
                self._check_time()
                continue
            if self._turned_away:  # the one that has ended made room
                self._start_first()
            return key, answer

    def _try_again(self, now: float) -> None:
        while self._turned_away and self._turned_away[0].at <= now:
            self._start_first()

    def _start_first(self) -> None:
        first = self._turned_away.popleft()
        self.start(first.key, first.ask)

    def _patience_s(self) -> float | None:
        times = [] if self._deadline is None else [self._deadline]
        times += [each.at for each in self._turned_away]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _check_time(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            why = self._turned_away_for()
            busy = f"; the pool was busy: {why.message}" if why is not None else ""
            jobs = "1 job has" if len(self) == 1 else f"{len(self)} jobs have"
            raise ResultTimeoutError(
                f"{jobs} not ended within {self._wait_s:g} s{busy}", timeout_s=self._wait_s
            ) from why

    def _turned_away_for(self) -> BusyError | None:
        """Why the pool has not taken the last of those that it has not taken."""
        taken = {key for key, (_, request) in self._open.items() if request.accepted}
        return next((error for key, error in reversed(self._why_busy.items()) if key not in taken), None)


def _again_s(error: BusyError) -> float:
    told = error.fields.get("retry_after_s")
    return min(max(0.0, float(told)), AGAIN_MOST_S) if isinstance(told, int | float) else AGAIN_S

"""Several requests at a time with one deadline. A request that a busy pool refuses is sent again.

start ──▶ I/O thread ──▶ daemon ──answer──▶ queue ──▶ next
              ▲                                │ busy
              └── again, when another has ended, or after `retry_after_s` ──┘
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from pool.client.pending import JobFuture
from pool.client.waiting import pause_after, take
from pool.errors import BusyError, ResultTimeoutError

F = TypeVar("F", bound=JobFuture[Any])


class _Refused(NamedTuple, Generic[F]):
    at: float  #: when to send it again
    number: int
    begin: Callable[[], F]


class Retry(Generic[F]):
    """Futures by number. Used by one thread.

    `wait_s`: seconds from now for all of them; None: no limit. `before_waiting` is called when `next` is about to
    block, and may raise. `arrived` is called, on any thread, when a future has ended.
    """

    def __init__(
        self,
        wait_s: float | None,
        *,
        before_waiting: Callable[[], object] = lambda: None,
        arrived: Callable[[], object] = lambda: None,
    ) -> None:
        self._wait_s = wait_s
        self._deadline = None if wait_s is None else time.monotonic() + wait_s
        self._before_waiting = before_waiting
        self._arrived = arrived
        self._open: dict[int, tuple[Callable[[], F], F]] = {}
        self._refused: deque[_Refused[F]] = deque()
        self._ended: SimpleQueue[tuple[int, F]] = SimpleQueue()
        self._taken: deque[tuple[int, F]] = deque()  # out of `_ended`
        self._busy: dict[int, BusyError] = {}  # the last refusal of those that have not ended since

    def __len__(self) -> int:
        """The number of requests that are under way or wait to be sent again."""
        return len(self._open) + len(self._refused)

    def start(self, number: int, begin: Callable[[], F]) -> None:
        """`begin` sends the request; it is called again after a BusyError."""
        future = begin()
        self._open[number] = begin, future
        future.add_done_callback(lambda _: self._put(number, future))

    def unanswered(self) -> list[F]:
        return [future for _, future in self._open.values() if not future.done()]

    def next(self) -> tuple[int, F]:
        """The next future that has ended. Raises ResultTimeoutError when the time is over."""
        while (found := self.poll()) is None:
            self._before_waiting()
            with contextlib.suppress(Empty):
                self._taken.append(take(self._ended, self.until_next_s()))
        return found

    def poll(self) -> tuple[int, F] | None:
        """The next future that has ended; None if none has. Raises ResultTimeoutError when the time is over."""
        self._send_again(time.monotonic())
        while (answer := self._take()) is not None:
            number, future = answer
            begin, _ = self._open.pop(number)
            self._busy.pop(number, None)
            error = None if future.cancelled() else future.exception()
            if not isinstance(error, BusyError):
                self._send_first()  # there is room for it now
                return answer
            self._busy[number] = error
            self._refused.append(_Refused(time.monotonic() + pause_after(error), number, begin))
            self._check_time()
        self._check_time()
        return None

    def until_next_s(self) -> float | None:
        """Seconds until the time is over or a request is to be sent again; None: never."""
        times = [] if self._deadline is None else [self._deadline]
        times += [each.at for each in self._refused]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _put(self, number: int, future: F) -> None:
        self._ended.put((number, future))
        self._arrived()

    def _take(self) -> tuple[int, F] | None:
        with contextlib.suppress(Empty):
            return self._taken.popleft() if self._taken else self._ended.get_nowait()
        return None

    def _send_again(self, now: float) -> None:
        while self._refused and self._refused[0].at <= now:
            self._send_first()

    def _send_first(self) -> None:
        if self._refused:
            first = self._refused.popleft()
            self.start(first.number, first.begin)

    def _check_time(self) -> None:
        if self._deadline is None or time.monotonic() < self._deadline:
            return
        why = self._last_refusal()
        busy = f"; the pool was busy: {why.message}" if why is not None else ""
        jobs = "1 job has" if len(self) == 1 else f"{len(self)} jobs have"
        raise ResultTimeoutError(f"{jobs} not ended within {self._wait_s:g} s{busy}", timeout_s=self._wait_s) from why

    def _last_refusal(self) -> BusyError | None:
        """The latest refusal of a job that the pool has not accepted."""
        accepted = {number for number, (_, future) in self._open.items() if future.accepted}
        return next((error for number, error in reversed(self._busy.items()) if number not in accepted), None)

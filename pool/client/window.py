"""`Window` keeps a bounded number of jobs under way. `map`, `submit_many`, `results` and `executor.map` run on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Generic, TypeVar, cast

from pool.client import checks
from pool.client.pending import Delivery, JobFuture
from pool.client.retry import Retry

Progress = Callable[[int, int | None], object]
Answer = JobFuture[Delivery | None]
Begin = Callable[[], Answer]
F = TypeVar("F", bound=JobFuture[Any])

#: The most jobs ahead of the next result: enough to keep a large pool busy, without filling its backlog.
WINDOW = 128
MAX_WINDOW = 100_000


class Window(Generic[F]):
    """Has at most `width` jobs at a time that were begun and not yet yielded, and yields their futures.

    `begins`: functions that send a job each and return its future. One is taken when there is room for it. `on_end` is
    called with number and future as soon as a job has ended; `again` before that, and it may return what begins another
    job in its place.
    """

    def __init__(
        self,
        begins: Iterable[Callable[[], F]],
        retry: Retry[F],
        *,
        width: int,
        on_end: Callable[[int, F], object] = lambda *_: None,
        again: Callable[[int, F], Callable[[], F] | None] = lambda *_: None,
    ) -> None:
        self._again = again
        self._begins = iter(begins)
        self.retry = retry
        self._width = width
        self._on_end = on_end
        self._ended: dict[int, F] = {}
        self._begun = 0
        self._given = 0

    def run(self, *, in_order: bool, leave: Callable[[Iterable[F]], object]) -> Iterator[F]:
        """The futures, ended: in the order of `begins`, or as they end. The first jobs begin with this call.

        `leave` gets the futures that have not ended when the iteration ends, for whatever reason.
        """
        steps = self._steps(in_order=in_order, leave=leave)
        next(steps)  # start the generator, so that its `finally` runs even if nobody iterates over it
        return cast("Iterator[F]", steps)

    def _steps(self, *, in_order: bool, leave: Callable[[Iterable[F]], object]) -> Iterator[F | None]:
        try:
            self.fill()
            yield None
            while self.unfinished():
                while (future := self.ready(in_order=in_order)) is None:
                    self.end(*self.retry.next())
                yield future
        finally:
            leave(self.retry.unanswered())

    def fill(self) -> None:
        """Begin jobs while there is room."""
        while self._begun < self._given + self._width and (begin := next(self._begins, None)) is not None:
            self.retry.start(self._begun, begin)
            self._begun += 1

    def unfinished(self) -> bool:
        """Whether there are jobs that were begun and not yielded."""
        return self._given < self._begun

    def ready(self, *, in_order: bool) -> F | None:
        """The next future to yield, if it has ended. The next job begins in its place."""
        number = self._given if in_order else next(iter(self._ended), -1)
        future = self._ended.pop(number, None)
        if future is not None:
            self._given += 1
            self.fill()
        return future

    def end(self, number: int, future: F) -> None:
        """Note that a job has ended."""
        if (begin := self._again(number, future)) is not None:
            self.retry.start(number, begin)
            return
        self._ended[number] = future
        self._on_end(number, future)


class Counter:
    """Counts jobs and calls the user's function. The total is known if the input has a length."""

    def __init__(self, progress: Progress | None, jobs: Iterable[object]) -> None:
        if progress is not None and not callable(progress):
            raise checks.invalid("progress", f"it is {checks.kind(progress)}", "give a function of (done, total)")
        self._progress = progress
        self._total = len(jobs) if isinstance(jobs, Sized) else None
        self._done = 0

    def one_more(self, *_: object) -> None:
        self.more(1)

    def more(self, jobs: int) -> None:
        self._done += jobs
        if self._progress is not None:
            self._progress(self._done, self._total)

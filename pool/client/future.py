"""PoolFuture: a `concurrent.futures.Future` whose cancel reaches into the sandbox.

It is PENDING until its result is there, and then FINISHED or CANCELLED; a client is not told when a job starts, so
`running()` is always False, and everything that is not done can be cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class PoolFuture(Future[T]):
    """The value of a job to come. `job_id` names the job in the pool."""

    def __init__(
        self, job_id: str, *, give_up: Callable[[PoolFuture[T]], bool], resolver: Callable[[], int | None]
    ) -> None:
        super().__init__()
        self.job_id = job_id
        self._give_up = give_up
        self._resolver = resolver

    def cancel(self) -> bool:
        """Take the job from the backlog, or KILL it if it runs: unlike the futures of the standard library.

        False if it is done. Does not wait for the pool; what the job has done to the world until then is done.
        """
        if not self._give_up(self):
            return self.cancelled()
        super().cancel()
        self.set_running_or_notify_cancel()
        return True

    def result(self, timeout: float | None = None) -> T:
        self._check_waiter()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._check_waiter()
        return super().exception(timeout)

    def _check_waiter(self) -> None:
        """A callback that waits for another future would wait for the thread that it is on."""
        if not self.done() and self._resolver() == threading.get_ident():
            raise RuntimeError(
                "a callback of a PoolExecutor future waits for another future, which could then never be resolved; "
                "hang a callback on that one too, or wait in a thread of your own"
            )

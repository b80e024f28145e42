"""The futures of an executor, and the thread that resolves them.

The thread that takes a future out of `_open`, which is atomic, resolves it: the I/O thread with the answer, which
it passes to the resolver thread, or the caller of `cancel`. So each future is resolved once. Neither of these two
threads waits for the lock, because the handler of a signal that has interrupted its holder may wait for a future.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from pool.client.connection import Connection
from pool.client.job import Submission
from pool.client.pending import Delivery, JobFuture, Request
from pool.client.results import ToResult
from pool.client.waiting import CANCEL_S, until_ended, until_true
from pool.errors import BusyError, ClosedError, ExecutorClosedError, PoolError, outcome_error
from pool.model import JobResult, Timings, Usage

T = TypeVar("T")
Answer = JobFuture[Delivery | None]


class PoolFuture(JobFuture[T]):
    """The value of a job that has not ended yet: a `concurrent.futures.Future` whose `cancel` kills the job.

    It is PENDING until its result has arrived, and then FINISHED or CANCELLED. A client is not told when a job starts,
    so `running()` is always False, and every job that is not done can be cancelled. `job_id` names the job in the pool.
    `stdout`, `stderr`, `timings` and `usage` wait for its end, however it ends, as `job_result` does.
    If the job is graded, the value is its grade.
    """

    def __init__(self, job_id: str, resolver: FutureResolver, *, graded: bool = False) -> None:
        super().__init__()
        self.job_id = job_id
        self.graded = graded
        self._resolver = resolver
        self._job_result: JobResult | None = None

    def job_result(self, timeout: float | None = None) -> JobResult:
        """The whole result of the job, also when it did not end ok.

        Raises what `result` raises when there is no result: CancelledError, TimeoutError, or an error of the pool.
        """
        error = self.exception(timeout)
        if self._job_result is None:
            assert error is not None, "a value comes with its result"
            raise error
        return self._job_result

    @property
    def stdout(self) -> str:
        return self.job_result().stdout

    @property
    def stderr(self) -> str:
        return self.job_result().stderr

    @property
    def timings(self) -> Timings:
        return self.job_result().timings

    @property
    def usage(self) -> Usage:
        return self.job_result().usage

    def end(self, result: JobResult) -> None:
        """For the resolver: resolve it with the value, or with the error that the job ended with."""
        self._job_result = result
        if result.ok and result.grade_error is None:
            self.set_result(cast("T", result.grade if self.graded else result.value))
        else:
            self.set_exception(outcome_error(result))

    def cancel(self) -> bool:
        """Take the job from the backlog, or KILL it if it runs, unlike the futures of the standard library.

        False if it is done. Does not wait for the pool. Effects of the job until then remain.
        """
        if not self._resolver.give_up(self):
            return self.cancelled()
        super().cancel()
        self.set_running_or_notify_cancel()
        return True

    def result(self, timeout: float | None = None) -> T:
        self._check_waiter()
        self.until_done(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._check_waiter()
        self.until_done(timeout)
        return super().exception(0)

    def _check_waiter(self) -> None:
        if not self.done():
            self._resolver.check_waiter()


class FutureResolver:
    """The futures of one executor in one process."""

    def __init__(
        self, connection: Connection, to_result: ToResult, *, close: Callable[[], object], max_pending: int | None
    ) -> None:
        self._connection = connection
        self._to_result = to_result
        self._close = close  #: called when the last future is resolved after `finish`
        self._max_pending = max_pending
        self._changed = threading.Condition()
        self._open: dict[PoolFuture[Any], Request] = {}
        self._arrived: set[PoolFuture[Any]] = set()  # added before they leave `_open`, so that each is in one of them
        self._cancels: set[Answer] = set()
        self._answers: SimpleQueue[tuple[PoolFuture[Any], Answer] | None] = SimpleQueue()
        #: Has at most one: `setdefault` is atomic, also where the handler of a signal calls it.
        self._threads: dict[str, threading.Thread] = {}
        self._finishing = False

    def start(self, submission: Submission) -> PoolFuture[Any]:
        """Send the job, when there is room for it."""
        future: PoolFuture[Any] = PoolFuture(
            submission.message.job_id, self, graded=submission.message.grade is not None
        )
        with self._changed:
            until_true(self._changed, self._has_room)
            self._check_open()
            self._ensure_thread()
            try:
                request = self._open[future] = self._connection.submit(submission)
                self._check_open()  # the handler of a signal may have called `finish`, which had to wait for nothing
                request.add_done_callback(partial(self._answered, future))
            except BaseException:  # such as KeyboardInterrupt: `finish` would wait for an answer that never comes
                if self._open.pop(future, None) is not None:
                    with contextlib.suppress(ClosedError):
                        self._connection.cancel(future.job_id)
                raise
        return future

    def _check_open(self) -> None:
        if self._finishing:
            raise ExecutorClosedError("cannot schedule new futures after shutdown")

    def _ensure_thread(self) -> None:
        thread = self._thread
        if thread is None:
            fresh = threading.Thread(target=self._run, name="pool executor", daemon=True)
            thread = self._threads.setdefault("resolver", fresh)
            if thread is fresh:
                self._start(thread)
        if thread.ident is None:  # the handler of a signal that came in its start
            raise BusyError("this executor is starting its thread; call it again when the signal's handler has ended")

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except BaseException:
            if thread not in threading.enumerate():
                self._threads.clear()
            raise

    @property
    def _thread(self) -> threading.Thread | None:
        return self._threads.get("resolver")

    def cancel_all(self) -> None:
        cancel(self._open.copy())

    def finish(self) -> None:
        """Accept no more; end the thread after the last answer."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()
            idle = self._thread is None
            self._answers.put(None)
        if idle:
            self._close()

    def join(self) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            until_ended(thread)

    def check_waiter(self) -> None:
        """Raises RuntimeError on the resolver thread, which cannot wait for a future that it has to resolve itself."""
        if self._thread is threading.current_thread():
            raise RuntimeError(
                "a callback of a PoolExecutor future waits for another future, which could then never be resolved; "
                "add a callback to that future too, or wait in a thread of your own"
            )

    def give_up(self, future: PoolFuture[Any]) -> bool:
        """For `PoolFuture.cancel`: cancel the job. False if the future is resolved by its answer."""
        with self._changed:
            request = self._open.pop(future, None)
            if request is None:
                return False
            with contextlib.suppress(ClosedError):
                cancelling = self._connection.give_up(request)
                self._cancels.add(cancelling)
                cancelling.add_done_callback(self._cancels.discard)
            self._changed.notify_all()
            self._answers.put(None)
        return True

    def _has_room(self) -> bool:
        return self._finishing or self._max_pending is None or len(self._open) < self._max_pending

    def _answered(self, future: PoolFuture[Any], answer: Answer) -> None:
        """Called on the I/O thread: pass the answer on, without doing anything slow."""
        self._arrived.add(future)
        if self._open.pop(future, None) is None:  # it was cancelled
            self._arrived.discard(future)
            self._answers.put(None)
        else:
            self._answers.put((future, answer))

    def _run(self) -> None:
        """The resolver thread. None in the queue: look whether it is needed any more."""
        while self._open or self._arrived or not self._finishing:
            item = self._answers.get()
            if item is not None:
                self._resolve(*item)
                self._arrived.discard(item[0])
                self._tell()
            del item  # otherwise the last value would stay in memory until the next answer
        wait(list(self._cancels), CANCEL_S)
        self._close()

    def _tell(self) -> None:
        """There is room for another future. A caller who holds the lock looks for himself, within a second."""
        if self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()

    def _resolve(self, future: PoolFuture[Any], answer: Answer) -> None:
        try:
            result = self._to_result(answer.result())
        except PoolError as error:
            future.set_exception(error)
        else:
            future.end(result)


def cancel(futures: Iterable[PoolFuture[Any]]) -> None:
    for future in futures:
        future.cancel()

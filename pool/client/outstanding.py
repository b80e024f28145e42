"""The futures of an executor that are not resolved yet, and the thread that resolves them.

A future is resolved by whoever takes it out of `_open`, under the lock: the answer, which hands it to the resolver
thread, or `cancel`. So it happens once.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from typing import Any

from pool.client.client import CANCEL_S, Client
from pool.client.future import PoolFuture
from pool.client.job import Draft
from pool.client.ledger import Delivery, Request
from pool.client.results import to_result
from pool.errors import ClosedError, JobFailedError, PoolError
from pool.model import JobResult

Answer = Future[Delivery | None]


class ExecutorClosedError(ClosedError, RuntimeError):
    """This executor has been shut down."""


class JobOutcomeError(JobFailedError):
    """The job did not end ok; `result` is all that is known about it."""

    def __init__(self, result: JobResult) -> None:
        error = result.error
        what = f"{error.type}: {error.message}" if error else result.reason or "the job failed"
        trace = f"\n{error.traceback}" if error and error.traceback else ""
        super().__init__(
            f"{what} (outcome {result.outcome}){trace}",
            job_id=result.job_id,
            outcome=str(result.outcome),
            type=error.type if error else None,
            reason=result.reason,
        )
        self.result = result

    def __reduce__(self) -> tuple[type[JobOutcomeError], tuple[JobResult]]:
        return type(self), (self.result,)


class Outstanding:
    """One process's futures of one executor."""

    def __init__(self, client: Client, *, owned: bool, max_pending: int | None) -> None:
        self._client = client
        self._owned = owned
        self._max_pending = max_pending
        self._changed = threading.Condition()
        self._open: dict[PoolFuture[Any], Request] = {}
        self._cancels: set[Answer] = set()
        self._answers: SimpleQueue[tuple[PoolFuture[Any], Answer] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._finishing = False

    def start(self, draft: Draft) -> PoolFuture[Any]:
        """Send the job, when there is room for it."""
        future: PoolFuture[Any] = PoolFuture(draft.submit.job_id, give_up=self._give_up, resolver=self._resolver)
        with self._changed:
            self._changed.wait_for(self._has_room)
            if self._finishing:
                raise ExecutorClosedError("cannot schedule new futures after shutdown")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pool executor", daemon=True)
                self._thread.start()
            request = self._open[future] = self._client.begin(draft)
            request.answer.add_done_callback(partial(self._answered, future))
        return future

    def futures(self) -> list[PoolFuture[Any]]:
        with self._changed:
            return list(self._open)

    def finish(self) -> None:
        """Take no more; end the thread after the last answer."""
        with self._changed:
            first, self._finishing = not self._finishing, True
            self._changed.notify_all()
            idle = self._thread is None
            if first and not self._open:
                self._answers.put(None)
        if idle and self._owned:
            self._client.close()

    def join(self) -> None:
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _has_room(self) -> bool:
        return self._finishing or self._max_pending is None or len(self._open) < self._max_pending

    def _resolver(self) -> int | None:
        return self._thread.ident if self._thread is not None else None

    def _take(self, future: PoolFuture[Any]) -> Request | None:
        """Take the future out, or find that somebody else has. Called under the lock."""
        request = self._open.pop(future, None)
        if request is not None:
            self._changed.notify_all()
        return request

    def _answered(self, future: PoolFuture[Any], answer: Answer) -> None:
        """On the I/O thread: hand over, and nothing that could take long."""
        with self._changed:
            if self._take(future) is not None:
                self._answers.put((future, answer))
                self._end_if_last()

    def _give_up(self, future: PoolFuture[Any]) -> bool:
        """For `PoolFuture.cancel`: True if the future is the caller's to cancel."""
        with self._changed:
            request = self._take(future)
            if request is None:
                return False
            try:
                cancel = self._client.give_up(request)
            except ClosedError:
                pass
            else:
                self._cancels.add(cancel)
                cancel.add_done_callback(self._cancels.discard)
            self._end_if_last()
        return True

    def _end_if_last(self) -> None:
        if self._finishing and not self._open:
            self._answers.put(None)

    def _run(self) -> None:
        """The resolver thread."""
        while (item := self._answers.get()) is not None:
            _resolve(*item)
            del item  # or the last value would live on until the next answer
        wait(list(self._cancels), CANCEL_S)
        if self._owned:
            self._client.close()


def _resolve(future: PoolFuture[Any], answer: Answer) -> None:
    try:
        result = to_result(answer.result())
    except PoolError as error:
        future.set_exception(error)
        return
    if result.ok:
        future.set_result(result.value)
    else:
        future.set_exception(JobOutcomeError(result))

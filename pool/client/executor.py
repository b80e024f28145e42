"""PoolExecutor: the pool behind the interface of `concurrent.futures`.

    submit ──▶ Client.begin ──▶ I/O thread ──▶ daemon
                                    │ answer
    caller ◀── PoolFuture ◀── resolver thread: decodes the value, resolves the future, runs its callbacks

Callbacks run on the resolver thread, one after another, never on the I/O thread: a callback may call `client.run`,
`submit` and `cancel`. It must not wait for another future of the same executor: that is
refused with RuntimeError. `Client.run` does without this hop.

How it differs from the standard library's executors:
1. `Future.cancel()` of a running job kills it. `running()` is always False (see `future.py`).
2. A function runs in another world: its arguments and its value are copied, its globals travel with it, and what it
   raises comes back as data, inside JobOutcomeError; so do a timeout and every other outcome but ok.
3. Errors of the request itself (arguments that cannot be carried, a function that cannot be pickled) are raised by
   `submit`, at the line at fault, and not by the future.
4. The interpreter does not wait for outstanding futures when it ends; use `with`, or `shutdown`.
"""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from pool.client import checks, job
from pool.client.client import Client
from pool.client.future import PoolFuture
from pool.client.job import JobOptions, Program
from pool.client.outstanding import ExecutorClosedError, JobOutcomeError, Outstanding
from pool.client.process import PerProcess
from pool.errors import ConfigError
from pool.model import Limits

__all__ = ["ExecutorClosedError", "JobOutcomeError", "PoolExecutor", "PoolFuture"]

P = ParamSpec("P")
T = TypeVar("T")

#: Jobs that `map` keeps in the pool ahead of the one that is waited for: enough to keep a large pool busy.
MAP_WINDOW = 128


class PoolExecutor(Executor):
    """Runs functions in the pool's containers. May be used from several threads and after a fork.

    `limits` hold for every job. `max_pending`: `submit` waits while so many jobs have no answer. `client`: use this one
    and leave it open; else the executor has its own, for `endpoint`, and closes it.
    """

    def __init__(
        self,
        endpoint: str | os.PathLike[str] | None = None,
        *,
        pool: str | None = None,
        limits: Limits | None = None,
        max_pending: int | None = None,
        client: Client | None = None,
    ) -> None:
        if client is not None and endpoint is not None:
            raise ConfigError("endpoint: the client has one already; give either the endpoint or the client")
        most = checks.whole("max_pending", max_pending, 1, 1 << 31)
        self._options: JobOptions = {"limits": limits, "pool": pool}
        self._owned = client is None
        self._client = client or Client(endpoint)
        self._shut = False
        self._outstanding = PerProcess(partial(Outstanding, self._client, owned=self._owned, max_pending=most))
        # An executor that was dropped without shutdown still resolves what is under way, and then lets go.
        weakref.finalize(self, _release, self._outstanding).atexit = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> PoolFuture[T]:
        """Run `fn(*args, **kwargs)` in the pool. Source text goes to `submit_code`."""
        self._check_open()
        if not callable(fn):
            raise TypeError(f"submit takes a callable, got {type(fn).__name__}; source text goes to submit_code")
        return cast("PoolFuture[T]", self._start(job.program_of(fn), {"args": args, "kwargs": kwargs}))

    def submit_code(self, code: str, /, **options: Unpack[JobOptions]) -> PoolFuture[object]:
        """Run source text in the pool; options as for `Client.run`."""
        self._check_open()
        return self._start(code, options)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,  # noqa: ARG002 - of the interface; a job is so cheap that chunks would only cost order
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The values of `fn` in the order of the arguments; the first failure is raised where its value would be.

        At most `buffersize` jobs (128) are ahead of the value that is waited for, so endless iterables do. What is
        left when the iteration ends early is cancelled. TimeoutError after `timeout` seconds from this call.
        """
        self._check_open()
        deadline = None if timeout is None else time.monotonic() + timeout
        width = checks.whole("buffersize", buffersize, 1, 1 << 31) or MAP_WINDOW
        program = job.program_of(fn)
        futures = (self._start(program, {"args": each}) for each in zip(*iterables))  # noqa: B905 - as the stdlib
        window: deque[PoolFuture[Any]] = deque()
        try:
            window.extend(itertools.islice(futures, width))
        except BaseException:
            _cancel(window)
            raise
        return _in_order(window, futures, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the stdlib's
        """Take no more jobs. `wait` for those under way, unless this is called by a callback of one of them."""
        self._shut = True
        outstanding = self._outstanding.peek()
        if outstanding is not None:
            if cancel_futures:
                _cancel(outstanding.futures())
            outstanding.finish()
            if wait:
                outstanding.join()
        elif self._owned:
            self._client.close()

    def _check_open(self) -> None:
        if self._shut:
            raise ExecutorClosedError("cannot schedule new futures after shutdown")

    def _start(self, code: str | Program, options: JobOptions) -> PoolFuture[Any]:
        draft = self._client.draft(code, {**self._options, **options})
        return self._outstanding.get().start(draft)


def _release(executors: PerProcess[Outstanding]) -> None:
    outstanding = executors.peek()
    if outstanding is not None:
        outstanding.finish()


def _in_order(window: deque[PoolFuture[T]], futures: Iterator[PoolFuture[T]], deadline: float | None) -> Iterator[T]:
    try:
        while window:
            left = None if deadline is None else deadline - time.monotonic()
            value = window[0].result(left)
            window.popleft()
            window.extend(itertools.islice(futures, 1))
            yield value
    finally:
        _cancel(window)


def _cancel(futures: Iterable[PoolFuture[Any]]) -> None:
    for future in list(futures):
        future.cancel()

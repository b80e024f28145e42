"""PoolExecutor: the pool with the interface of `concurrent.futures`.

    submit ──▶ Connection ──▶ I/O thread ──▶ daemon
                                  │ answer
    caller ◀── PoolFuture ◀── resolver thread: decodes the value, resolves the future, runs its callbacks

Callbacks run on the resolver thread, one after another, never on the I/O thread: a callback may call `client.run`,
`submit` and `cancel`. It must not wait for another future of the same executor: that raises RuntimeError. `Client.run`
does without this thread.

Differences from the executors of the standard library:
1. `Future.cancel()` of a running job kills it. `running()` is always False (see `futures.py`).
2. A function runs in another process: its arguments and its value are copied, its globals are sent with it, and an
   exception arrives as data in a JobOutcomeError. That is also a KeyError, for example, if the function raised one of
   the built-in types. Every other outcome than ok, such as a timeout, is a JobOutcomeError too.
3. Errors of the request itself (arguments that cannot be carried, a function that cannot be pickled) are raised by
   `submit`, at the line that caused them, and not by the future.
4. The interpreter does not wait for unresolved futures when it ends; use `with`, or `shutdown`.
5. A `with` block that Ctrl-C ends cancels the jobs that are under way, instead of waiting for them.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from pool.client import checks, job
from pool.client.client import Client
from pool.client.futures import FutureResolver, PoolFuture, cancel
from pool.client.job import Submission
from pool.client.options import Code, JobOptions, Program
from pool.client.per_process import PerProcess
from pool.client.retry import Retry
from pool.client.window import MAX_WINDOW, WINDOW, Answer, Window
from pool.errors import ConfigError, ExecutorClosedError, outcome_error
from pool.model import JobResult, Limits

P = ParamSpec("P")
T = TypeVar("T")


class PoolExecutor(Executor):
    """Runs functions in the pool's containers. May be used from several threads and after a fork.

    `limits` and `retries` hold for every job, and so do `grade` and `grade_args` (see `JobOptions`): with them the
    value of each future is the grade of what its function returned. `max_pending`: `submit` waits while so many jobs
    are unanswered.
    `client`: use this one and leave it open; otherwise the executor makes its own, for `endpoint`, and closes it.
    """

    def __init__(  # noqa: PLR0913 - all but the first by keyword
        self,
        endpoint: str | os.PathLike[str] | None = None,
        *,
        pool: str | None = None,
        limits: Limits | None = None,
        retries: int = 0,
        grade: Code | None = None,
        grade_args: Sequence[object] | None = None,
        max_pending: int | None = None,
        client: Client | None = None,
    ) -> None:
        if client is not None and endpoint is not None:
            raise ConfigError("endpoint: the client has one already; give either the endpoint or the client")
        most = None if max_pending is None else checks.whole("max_pending", max_pending, 1, 1 << 31)
        self._options: JobOptions = {"limits": limits, "pool": pool, "retries": checks.whole("retries", retries, 0, 10)}
        if grade is not None:
            self._options |= {"grade": job.grader_of(grade), "grade_args": grade_args or ()}
        self._client = client or Client(endpoint)
        self._close = self._client.close if client is None else _leave_open
        self._shut = False
        make = partial(
            FutureResolver, self._client.connection, self._client.to_result, close=self._close, max_pending=most
        )
        self._resolver = PerProcess(make)
        # An executor that is dropped without shutdown still resolves its futures, and then ends its thread.
        weakref.finalize(self, _release, self._resolver).atexit = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> PoolFuture[T]:
        """Run `fn(*args, **kwargs)` in the pool. Source text is for `submit_code`."""
        self._check_open()
        if not callable(fn):
            raise TypeError(f"submit takes a callable, got {type(fn).__name__}; give source text to submit_code")
        submission = self._build(job.program_of(fn), {"args": args, "kwargs": kwargs})
        return cast("PoolFuture[T]", self._resolver[os.getpid()].start(submission))

    def submit_code(self, code: str, /, **options: Unpack[JobOptions]) -> PoolFuture[object]:
        """Run source text in the pool; options as for `Client.run`."""
        self._check_open()
        return self._resolver[os.getpid()].start(self._build(code, options))

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The values of `fn` in the order of the arguments. The first failure is raised at the place of its value.

        At most `buffersize` jobs (128) are ahead of the next value, so the iterables may be endless. While the pool is
        busy, jobs are sent again. If the iteration ends early, the remaining jobs are cancelled. TimeoutError after
        `timeout` seconds from this call. With a `chunksize` so many calls run in one child, as with `Client.map`, and
        `buffersize` counts chunks; those that are not answered when the executor is shut down fail with ClosedError.
        """
        self._check_open()
        width = WINDOW if buffersize is None else checks.whole("buffersize", buffersize, 1, 1 << 31)
        lists = zip(*iterables)  # noqa: B905 - as the stdlib
        if checks.whole("chunksize", chunksize, 1, 1 << 31) > 1:
            return self._map_chunks(fn, lists, timeout=timeout, chunksize=chunksize, width=min(width, MAX_WINDOW))
        program = job.program_of(fn)
        resolver = self._resolver[os.getpid()]
        submissions = (self._build(program, {"args": each}) for each in lists)
        begins = (partial(resolver.start, each) for each in submissions)
        window = Window(begins, Retry(timeout, before_waiting=resolver.check_waiter), width=width)
        return _values(window.run(in_order=True, leave=cancel))

    def _map_chunks(
        self,
        fn: Callable[..., T],
        lists: Iterable[Sequence[object]],
        *,
        timeout: float | None,
        chunksize: int,
        width: int,
    ) -> Iterator[T]:
        batches, options = self._client.batches, self._options.copy()
        retry = Retry[Answer](timeout, before_waiting=self._resolver[os.getpid()].check_waiter)
        jobs = batches.map(fn, lists, options, retry=retry, width=width, progress=None, chunksize=chunksize)
        return _values_of(jobs.run(leave=batches.cancel))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the stdlib's
        """Accept no more jobs. `wait` for those under way, unless a callback of one of them calls this."""
        self._shut = True
        resolver = self._resolver.get(os.getpid())
        if resolver is None:
            self._close()
            return
        if cancel_futures:
            resolver.cancel_all()
        resolver.finish()
        if wait:
            resolver.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `shutdown`, and Ctrl-C in the block cancels what is under way."""
        self.shutdown(cancel_futures=isinstance(error, KeyboardInterrupt))

    def _check_open(self) -> None:
        if self._shut:
            raise ExecutorClosedError("cannot schedule new futures after shutdown")

    def _build(self, code: str | Program, options: JobOptions) -> Submission:
        return self._client.jobs.make(code, {**self._options, **options}, on_disconnect="cancel")


def _leave_open() -> None:
    """Takes the place of `close` for a client that the executor was given."""


def _release(resolvers: PerProcess[FutureResolver]) -> None:
    resolver = resolvers.get(os.getpid())
    if resolver is not None:
        resolver.finish()


def _values_of(results: Iterator[JobResult]) -> Iterator[Any]:
    for result in results:
        if not result.ok:
            raise outcome_error(result)
        yield result.value


def _values(ended: Iterator[PoolFuture[T]]) -> Iterator[T]:
    for future in ended:
        yield future.result()

"""AsyncClient: the pool for asyncio, with the names, options and errors of Client.

    task ──▶ Connection ──▶ I/O thread, one a client ──▶ daemon
     ▲                          │ answer
     └─ call_soon_threadsafe ◀──┘

1. A job costs a task no thread. Values are decoded on the event loop; with decode="process" in asyncio's threads.
2. A task that is cancelled while it waits cancels its job: the job is taken from the backlog, or killed. `close` waits
   a moment until the daemon has confirmed that.
3. One client may serve the event loops of several threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import wait
from contextlib import aclosing
from functools import partial
from queue import Empty
from typing import Self, Unpack

from pool.client import checks
from pool.client.arrival import Arrival, ended
from pool.client.batch import Batch, BatchJob, Handover
from pool.client.cases import Case, TestReport, TestRun
from pool.client.client import Client, Decode, not_ended
from pool.client.job import Submission
from pool.client.options import Code, JobOptions, OnDisconnect
from pool.client.pending import Delivery, Request
from pool.client.results import Listeners, OnText, OutputReader, Piece
from pool.client.retry import Retry
from pool.client.waiting import CANCEL_S, Patience
from pool.client.window import Answer, Counter, Progress
from pool.errors import BacklogFullError, ClosedError, PoolError, ResultTimeoutError
from pool.model import JobResult, OutputEvent


class AsyncClient:
    r"""Runs code in the pool, for asyncio. Arguments as for Client.

    async with AsyncClient() as client:
        results = await asyncio.gather(*(client.run(SOURCE, entry="main", args=[n]) for n in range(1000)))
    """

    def __init__(
        self,
        endpoint: str | os.PathLike[str] | None = None,
        *,
        pool: str = "default",
        timeout: float = 10.0,
        decode: Decode = "inline",
        on_disconnect: OnDisconnect | None = None,
    ) -> None:
        self._client = Client(endpoint, pool=pool, timeout=timeout, decode=decode, on_disconnect=on_disconnect)
        self._connection = self._client.connection
        self._batches = self._client.batches
        self._decodes_here = decode == "inline"
        self._cancels: set[Request] = set()

    @property
    def endpoint(self) -> str:
        return self._client.endpoint

    @property
    def pool(self) -> str:
        return self._client.pool

    async def run(
        self,
        code: Code,
        /,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as Client.run: the job goes on, which asyncio.timeout would end
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        **options: Unpack[JobOptions],
    ) -> JobResult:
        """Run the job and wait for its end, as `Client.run`. `on_stdout` and `on_stderr` are called on the event loop.

        Cancelling the task cancels the job, and so does `asyncio.timeout`. After `timeout` seconds the job goes on.
        """
        wait_s = checks.waiting("timeout", timeout)
        listeners = Listeners(on_stdout, on_stderr) if on_stdout is not None or on_stderr is not None else None
        submission = self._client.jobs.make(code, options, on_disconnect="cancel", stream=listeners is not None)
        patience = Patience(wait_s)
        try:
            while True:
                try:
                    if listeners is not None:
                        return await self._listen(submission, patience.left_s(), listeners)
                    return await self._wait(self._connection.submit(submission), patience.left_s())
                except BacklogFullError as error:
                    await asyncio.sleep(patience.pause_s(error))
        except PoolError:
            raise
        except BaseException:
            self._abandon(submission.message.job_id)
            raise

    async def submit(self, code: Code, /, **options: Unpack[JobOptions]) -> str:
        """Submit the job and return its id when the daemon has accepted it. The job outlives the task."""
        submission = self._client.jobs.make(code, options, on_disconnect="keep", watch=False)
        await self._answer(self._connection.submit(submission), None)
        return submission.message.job_id

    async def result(self, job_id: str, timeout: float | None = None) -> JobResult:  # noqa: ASYNC109 - as Client.result
        """The result of any submitted job, as `Client.result`. Cancelling the task does not affect the job."""
        wait_s = checks.waiting("timeout", timeout)
        return await self._wait(self._connection.watch(checks.job_id("job_id", job_id)), wait_s)

    def stream(self, job_id: str, timeout: float | None = None) -> AsyncIterator[OutputEvent | JobResult]:
        """What a job prints, while it runs, and at the end its result, as `Client.stream`.

        async for event in client.stream(job_id): ...
        """
        watched, wait_s = checks.job_id("job_id", job_id), checks.waiting("timeout", timeout)
        return self._events(lambda reader: self._connection.watch(watched, reader.put), wait_s)

    def map(
        self,
        code: Code,
        argument_lists: Iterable[Sequence[object]],
        /,
        *,
        timeout: float | None = None,
        window: int | None = None,
        progress: Progress | None = None,
        chunksize: int = 1,
        **options: Unpack[JobOptions],
    ) -> AsyncIterator[JobResult]:
        """Run the code once for each list of arguments; results in the order of the lists, as `Client.map`.

        The first jobs begin with the first step. If the iteration ends early, the remaining jobs are cancelled; use
        `contextlib.aclosing` to have that immediately after a `break`.
        """
        arrival = Arrival()
        retry = Retry[Answer](checks.waiting("timeout", timeout), arrived=arrival.set)
        jobs = self._batches.map(
            code, argument_lists, options, retry=retry, width=window, progress=progress, chunksize=chunksize
        )
        return self._results(ended(jobs.window, arrival, in_order=True, leave=self._cancel), jobs.results)

    async def run_tests(
        self,
        code: Code,
        /,
        cases: Iterable[Case],
        *,
        stop_on_first_failure: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - as Client.run_tests
        **options: Unpack[JobOptions],
    ) -> TestReport:
        """Run the code once for each case and judge each, as `Client.run_tests`."""
        run = TestRun(self._batches, code, cases, options, stop_on_first_failure=stop_on_first_failure)
        arrival = Arrival()
        jobs = run.jobs(Retry[Answer](checks.waiting("timeout", timeout), arrived=arrival.set))
        answers = ended(jobs.window, arrival, in_order=True, leave=self._cancel)
        try:
            async with aclosing(self._results(answers, jobs.results)) as results:
                async for result in results:
                    if not run.add(result):
                        break
        except ResultTimeoutError as error:
            run.out_of_time(error)
        return run.report()

    async def submit_many(
        self,
        jobs: Iterable[BatchJob],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as Client.submit_many
        progress: Progress | None = None,
    ) -> Batch:
        """Submit many jobs and return their ids, as `Client.submit_many`. Raises BatchError."""
        arrival = Arrival()
        handover = Handover(self._batches, jobs, progress, cancel=self._cancel_jobs)
        window = handover.window(Retry(checks.waiting("timeout", timeout), arrived=arrival.set))
        try:
            async with aclosing(ended(window, arrival, in_order=False, leave=self._cancel)) as accepted:
                async for _ in accepted:
                    pass
        except Exception as error:
            raise handover.cut_short(error) from error
        except BaseException:  # the task ends here and never gets the ids
            handover.batch.cancel()
            raise
        return handover.batch

    def results(
        self, job_ids: Iterable[str], *, timeout: float | None = None, progress: Progress | None = None
    ) -> AsyncIterator[JobResult]:
        """The results of many jobs as the jobs end, as `Client.results`."""
        arrival = Arrival()
        retry = Retry[Answer](checks.waiting("timeout", timeout), arrived=arrival.set)
        jobs = self._batches.watch(job_ids, retry, progress=Counter(progress, job_ids))
        answers = ended(jobs, arrival, in_order=False, leave=self._batches.forget)
        return self._results(answers, lambda job: [self._batches.to_result(job)])

    async def cancel(self, job_ids: str | Iterable[str]) -> None:
        """Cancel one job or many, as `Client.cancel`."""
        if isinstance(job_ids, str):
            await self._answer(self._connection.cancel(checks.job_id("job_id", job_ids)), None)
        else:
            await asyncio.to_thread(self._client.cancel, job_ids)

    async def close(self) -> None:
        """Close the connection. Calls that still wait raise ClosedError; jobs that were submitted go on."""
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _close(self) -> None:
        wait(list(self._cancels), CANCEL_S)
        self._client.close()

    # ---- waiting ----

    async def _answer(self, request: Request, wait_s: float | None) -> Delivery | None:
        """Raises the error that the daemon answered, or ResultTimeoutError."""
        arrival = Arrival()
        request.add_done_callback(arrival.set)
        try:
            if not await arrival.wait(wait_s):
                raise not_ended(request.job_id, wait_s or 0.0)
        finally:
            self._connection.forget(request)
        return request.result()

    async def _wait(self, request: Request, wait_s: float | None) -> JobResult:
        return await self._decoded(await self._answer(request, wait_s))

    async def _decoded(self, delivery: Delivery | None) -> JobResult:
        if self._decodes_here:
            return self._client.to_result(delivery)
        return await asyncio.to_thread(self._client.to_result, delivery)

    async def _results(
        self, answers: AsyncGenerator[Answer], results: Callable[[Answer], Iterable[JobResult]]
    ) -> AsyncGenerator[JobResult]:
        async with aclosing(answers):
            async for each in answers:
                found = results(each) if self._decodes_here else await asyncio.to_thread(list, results(each))
                for result in found:
                    yield result

    # ---- output ----

    async def _events(
        self, ask: Callable[[OutputReader], Request], wait_s: float | None
    ) -> AsyncGenerator[OutputEvent | JobResult]:
        """The output of a job and its result. `ask` sends the request for them, at the first step."""
        arrival = Arrival()
        reader = OutputReader(arrival.set)
        request = ask(reader)
        deadline = None if wait_s is None else time.monotonic() + wait_s
        request.add_done_callback(reader.end)
        try:
            while (piece := await self._piece(reader, arrival, deadline)) is not None:
                for event in reader.read(piece):
                    yield event
            result = await self._decoded(request.result())
            for each in reader.rest(request.result(), lambda _: result):
                yield each
        except Empty:
            raise not_ended(request.job_id, wait_s or 0.0) from None
        finally:
            self._connection.forget(request)

    async def _piece(self, reader: OutputReader, arrival: Arrival, deadline: float | None) -> Piece | None:
        """As `OutputReader.take`."""
        while True:
            with contextlib.suppress(Empty):
                return reader.take(0)
            if not await arrival.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
                raise Empty

    async def _listen(self, submission: Submission, wait_s: float | None, listeners: Listeners) -> JobResult:
        events = self._events(lambda reader: self._connection.submit(submission, reader.put), wait_s)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, JobResult):
                    return event
                listeners.tell(event, abandon=partial(self._abandon, submission.message.job_id))
        raise AssertionError("the last event is the result")

    # ---- leaving ----

    def _abandon(self, job_id: str) -> None:
        """Cancel a job whose result nobody will ask for, without waiting."""
        with contextlib.suppress(ClosedError):
            self._keep(self._connection.cancel(job_id))

    def _cancel_jobs(self, job_ids: Iterable[str]) -> None:
        for each in job_ids:
            self._abandon(each)

    def _cancel(self, left: Iterable[Answer]) -> None:
        with contextlib.suppress(ClosedError):
            for each in left:
                if isinstance(each, Request):
                    self._keep(self._connection.give_up(each))

    def _keep(self, cancelling: Request) -> None:
        self._cancels.add(cancelling)
        cancelling.add_done_callback(self._cancels.discard)

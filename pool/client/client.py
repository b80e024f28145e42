"""Client: run a job and wait for its result, or submit it now and ask for the result later, from anywhere.

Code that fails, times out or is killed is a *result* with an outcome; a pool that fails is an *exception* of
`pool.errors`. One client serves any number of threads, and children that are forked while it is open.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from queue import Empty
from typing import Final, Self, Unpack

import msgspec

from pool import wire
from pool.client import checks, job
from pool.client.batch import Batch, BatchJob, Progress, Report
from pool.client.connection import Connection
from pool.client.endpoint import submit_endpoint
from pool.client.feed import Feed
from pool.client.flights import Flights
from pool.client.job import Code, Draft, JobOptions, Program
from pool.client.ledger import Delivery, Request
from pool.client.many import results, submit_many
from pool.client.mapping import MapRun, jobs_of
from pool.client.results import to_result
from pool.errors import ClosedError, PoolError, ResultTimeoutError
from pool.model import JobResult, OutputEvent

#: Called with a piece of a job's output.
OnText = Callable[[str], object]

#: How long an interrupted `run` waits for the daemon to confirm that the job is cancelled.
CANCEL_S = 1.0


class Client:
    r"""The way for a loop to have code run in the pool.

        with Client() as client:
            result = client.run("def main(x):\n    return x * 2", entry="main", args=[21])

    `endpoint`: the daemon's submit.sock; else POOL_ENDPOINT, else POOL_RUN_DIR, else /run/pool/submit.sock.
    `pool`: where jobs go that name no pool. `timeout`: seconds of silence after which the daemon counts as unreachable;
    it says nothing about how long a job may take. Nothing is sent, and no thread started, before the first job.
    """

    def __init__(
        self, endpoint: str | os.PathLike[str] | None = None, *, pool: str = "default", timeout: float = 10.0
    ) -> None:
        self.pool: Final = checks.word("pool", pool)
        silence_s = checks.seconds("timeout", timeout)
        if silence_s is None:
            raise checks.invalid("timeout", "it is None", "give a number of seconds above 0")
        self._connection = Connection(submit_endpoint(endpoint), timeout_s=silence_s)

    @property
    def endpoint(self) -> str:
        return self._connection.endpoint

    def run(
        self,
        code: Code,
        /,
        *,
        timeout: float | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        **options: Unpack[JobOptions],
    ) -> JobResult:
        """Run the job and wait for its end.

        `code` is source text or a callable. Source text runs `entry(*args, **kwargs)`, or as a script without entry. A
        callable is pickled into the sandbox, by value where it is the user's own code. Options: see `JobOptions`.

        `on_stdout` and `on_stderr` are called with text while the job prints it, in this thread and in order; what they
        get is together what the result has. The job does not wait for them. One that raises ends the call, and the job.

        Raises ResultTimeoutError after `timeout` seconds of waiting: the job goes on. Any other exception that ends the
        wait, such as KeyboardInterrupt, cancels the job. JobRefusedError and BusyError: it was not taken.
        """
        wait_s = checks.waiting("timeout", timeout)
        listeners = {
            "stdout": checks.callback("on_stdout", on_stdout),
            "stderr": checks.callback("on_stderr", on_stderr),
        }
        draft = job.build(code, options, pool=self.pool)
        try:
            if any(listeners.values()):
                return self._listen(draft, wait_s, listeners)
            return self._wait(self.begin(draft), wait_s)
        except PoolError:
            raise
        except BaseException:
            self._interrupted(draft.submit.job_id)
            raise

    def submit(self, code: Code, /, **options: Unpack[JobOptions]) -> str:
        """Hand over the job and return its id as soon as the daemon has it. As `run` otherwise."""
        draft = job.build(code, options, pool=self.pool)
        submit = msgspec.structs.replace(draft.submit, request=self._connection.number())
        self._connection.ask(submit, draft.payload).answer.result()
        return submit.job_id

    def result(self, job_id: str, timeout: float | None = None) -> JobResult:
        """The result of a job that anybody submitted, once it has ended.

        Raises ResultTimeoutError after `timeout` seconds: the job goes on. Raises UnknownJobError.
        """
        wait_s = checks.waiting("timeout", timeout)
        watch = wire.Watch(request=self._connection.number(), job_id=job.checked_id(job_id))
        return self._wait(self._connection.ask(watch), wait_s)

    def stream(self, job_id: str, timeout: float | None = None) -> Iterator[OutputEvent | JobResult]:
        """What a job prints, as it comes, and at the end its result: an OutputEvent for each piece, then the JobResult.

            for event in client.stream(job_id):
                match event:
                    case OutputEvent(stream="stderr", text=text): ...
                    case JobResult() as result: ...

        From the first byte on, of a job that waits, runs or has ended, submitted by any process of this user, for any
        number of readers. In order within each stream; between the two about in the order in which it was printed. A
        reader that is slow gets larger pieces later, and all of it. Leaving the loop early does not end the job.

        Raises ResultTimeoutError `timeout` seconds after the first step: the job goes on. Raises UnknownJobError.
        """
        return self._follow(job.checked_id(job_id), checks.waiting("timeout", timeout))

    def map(
        self,
        code: Code,
        argument_lists: Iterable[Sequence[object]],
        /,
        *,
        timeout: float | None = None,
        window: int | None = None,
        progress: Progress | None = None,
        **options: Unpack[JobOptions],
    ) -> Iterator[JobResult]:
        """Run the code once for each list of arguments; the results come in the order of the lists.

            for result in client.map(SOURCE, ([n] for n in range(10**6)), entry="main"): ...

        At most `window` jobs (128) are in the pool ahead of the result that is waited for, so endless inputs do. Each
        list has exactly one result; where the job was not taken, because of its arguments or a limit, it is `rejected`,
        with the error's name and message in `error`, and the others go on. A busy pool is waited for. `progress` is
        called in this thread with (ended, total or None). The first jobs begin with this call; what is left when the
        iteration ends early, for whatever reason, is cancelled. Other options as for `run`, the same for all jobs.

        Raises ResultTimeoutError `timeout` seconds from now, and what concerns all jobs: the daemon is unreachable.
        """
        wait_s = checks.waiting("timeout", timeout)
        program = job.program_of(code, options.pop("entry", None))
        run = MapRun(
            self,
            jobs_of(self, program, argument_lists, options),
            flights=Flights(wait_s),
            report=Report(progress, argument_lists),
            window=window,
        )
        run.begin()
        return run.results()

    def submit_many(
        self, jobs: Iterable[BatchJob], *, timeout: float | None = None, progress: Progress | None = None
    ) -> Batch:
        """Hand over many jobs, each `{"code": ..., and the options of submit}`; their ids, in their order.

        The ids of jobs that were not taken stand among them, and why is in `.refused`. A busy pool is waited for, at
        most `timeout` seconds in all. `progress` is called in this thread with (handed over, total or None).

        Raises BatchError when it cannot go on; its `batch` has what was submitted, its cause says why.
        """
        return submit_many(self, jobs, wait_s=checks.waiting("timeout", timeout), progress=progress)

    def results(
        self, job_ids: Iterable[str], *, timeout: float | None = None, progress: Progress | None = None
    ) -> Iterator[JobResult]:
        """The results of many jobs as the jobs end, by whomever of this user they were submitted: one for each id.

        For what `submit_many` has refused it is `rejected`, for an id that the daemon does not know, `lost`. Listens
        for 1000 jobs at a time, in the order of the ids. Leaving the loop early does not end the jobs.

        Raises ResultTimeoutError `timeout` seconds after the first step: the jobs go on.
        """
        return results(self, job_ids, wait_s=checks.waiting("timeout", timeout), progress=progress)

    def cancel(self, job_id: str) -> None:
        """End the job: take it from the backlog, or kill it. No error if it has ended. Raises UnknownJobError."""
        self.begin_cancel(job.checked_id(job_id)).result()

    def begin(self, draft: Draft, *, watch: bool = True) -> Request:
        """Send a job without waiting. For this package: the answer is resolved on the I/O thread."""
        submit = msgspec.structs.replace(draft.submit, request=self._connection.number(), watch=watch)
        return self._connection.ask(submit, draft.payload)

    def begin_watch(self, job_id: str) -> Request:
        """Ask for a result without waiting. For this package, as `begin`."""
        return self._connection.ask(wire.Watch(request=self._connection.number(), job_id=job_id))

    def begin_cancel(self, job_id: str) -> Future[Delivery | None]:
        """Send the wish without waiting. For this package, as `begin`."""
        return self._connection.ask(wire.Cancel(request=self._connection.number(), job_id=job_id)).answer

    def drop(self, request: Request) -> None:
        """Nobody waits for this answer any more; the job goes on. For this package."""
        self._connection.forget(request)

    def give_up(self, request: Request) -> Future[Delivery | None]:
        """Cancel the job of `begin` and drop its answer. For this package."""
        self._connection.forget(request)
        return self.begin_cancel(request.job_id)

    def give_up_all(self, requests: Iterable[Request]) -> None:
        """The same for many, and see to it that the daemon hears of it before this client is closed."""
        with contextlib.suppress(ClosedError):
            wait([self.give_up(each) for each in requests], CANCEL_S)

    def draft(self, code: Code | Program, options: JobOptions) -> Draft:
        """A job for `begin`, checked. For this package."""
        return job.build(code, options, pool=self.pool)

    def close(self) -> None:
        """Let go of the daemon. Who still waits gets ClosedError; jobs that were submitted go on."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, request: Request, wait_s: float | None) -> JobResult:
        try:
            delivery = request.answer.result(wait_s)
        except TimeoutError:
            if wait_s is None or request.answer.done():  # not ours: raised by a signal handler, or by the daemon
                raise
            raise _not_ended(request.job_id, wait_s) from None
        finally:
            self._connection.forget(request)
        return to_result(delivery)

    def _follow(self, job_id: str, wait_s: float | None) -> Iterator[OutputEvent | JobResult]:
        feed = Feed()
        watch = wire.Watch(request=self._connection.number(), job_id=job_id, stream=True)
        yield from self._events(self._connection.ask(watch, feed=feed), feed, wait_s)

    def _events(self, request: Request, feed: Feed, wait_s: float | None) -> Generator[OutputEvent | JobResult]:
        try:
            yield from feed.events(request.answer, wait_s)
        except Empty:
            raise _not_ended(request.job_id, wait_s or 0.0) from None
        finally:
            self._connection.forget(request)

    def _listen(self, draft: Draft, wait_s: float | None, listeners: Mapping[str, OnText | None]) -> JobResult:
        feed = Feed()
        submit = msgspec.structs.replace(draft.submit, request=self._connection.number(), watch=True, stream=True)
        request = self._connection.ask(submit, draft.payload, feed=feed)
        with contextlib.closing(self._events(request, feed, wait_s)) as events:
            for event in events:
                if isinstance(event, JobResult):
                    return event
                self._tell(listeners[event.stream], event, draft.submit.job_id)
        raise AssertionError("a feed ends with the result")

    def _tell(self, listener: OnText | None, event: OutputEvent, job_id: str) -> None:
        """An error of the pool that a listener raises is not one of this job's own request."""
        try:
            if listener is not None:
                listener(event.text)
        except PoolError:
            self._interrupted(job_id)
            raise

    def _interrupted(self, job_id: str) -> None:
        """The caller has gone, so nobody will ask for this job; what interrupted it matters more than how this ends."""
        with contextlib.suppress(PoolError, TimeoutError):
            self.begin_cancel(job_id).result(CANCEL_S)


def _not_ended(job_id: str, wait_s: float) -> ResultTimeoutError:
    return ResultTimeoutError(
        f"job {job_id} has not ended within {wait_s:g} s and goes on: "
        f"ask again with result({job_id!r}), or end it with cancel({job_id!r})",
        job_id=job_id,
        timeout_s=wait_s,
    )

"""Client: run a job and wait for its result, or submit it now and ask for the result later, from anywhere.

Code that fails, times out or is killed is a *result* with an outcome; a pool that fails is an *exception* of
`pool.errors`. One client serves any number of threads, and children that are forked while it is open.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from queue import Empty
from typing import Final, Literal, Self, Unpack

from pool.client import checks, job
from pool.client.batch import WATCHED, Batch, Batches, BatchJob, Handover
from pool.client.cases import Case, TestReport, TestRun, collect
from pool.client.connection import Connection
from pool.client.decoder import ProcessDecoder
from pool.client.endpoint import submit_endpoint
from pool.client.job import Submission
from pool.client.options import Code, JobOptions, OnDisconnect
from pool.client.pending import Request
from pool.client.results import Listeners, OnText, OutputReader, ToResult, to_result
from pool.client.retry import Retry
from pool.client.waiting import CANCEL_S, Patience
from pool.client.window import Answer, Counter, Progress
from pool.errors import BacklogFullError, PoolError, ResultTimeoutError, UnknownJobError
from pool.model import JobResult, OutputEvent

Decode = Literal["inline", "process"]


class Client:
    r"""Runs code in the pool.

        with Client() as client:
            result = client.run("def main(x):\n    return x * 2", entry="main", args=[21])

    `endpoint`: the daemon's run directory or submit.sock; else POOL_ENDPOINT, else POOL_RUN_DIR, else /run/pool.
    `pool`: the pool of jobs that name none. `timeout`: seconds without any answer after which the daemon counts as
    unreachable; a job may take longer. Only a daemon that has answered before is waited for. `decode`: where the values
    of jobs are decoded, "inline" or in a "process" of their own (docs/jobs.md). `on_disconnect`: what becomes of jobs
    when this client is closed or its process ends, "cancel" or "keep"; None: jobs of calls that wait are cancelled, and
    jobs that were submitted go on. Nothing is sent, and no thread or process started, before the first job.
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
        self.pool: Final = checks.word("pool", pool)
        silence_s = checks.seconds("timeout", timeout)
        #: This and the next four are for this package.
        self.connection: Final = Connection(submit_endpoint(endpoint), timeout_s=silence_s)
        self.jobs: Final = job.JobMaker(self.connection, pool=self.pool, on_disconnect=on_disconnect)
        self.to_result: ToResult = to_result
        self._decoder: ProcessDecoder | None = None
        if decode == "process":
            self._decoder = ProcessDecoder()
            self.to_result = partial(to_result, decode=self._decoder.decode)
            weakref.finalize(self, self._decoder.close).atexit = False
        elif decode != "inline":
            raise checks.invalid("decode", f"got {decode!r:.40}", "give 'inline' or 'process'")
        self.batches: Final = Batches(self.connection, self.jobs, self.to_result)

    @property
    def endpoint(self) -> str:
        return self.connection.endpoint

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
        callable is pickled into the sandbox, by value if it is the user's own code. Options: see `JobOptions`.

        `on_stdout` and `on_stderr` are called with text while the job prints it, in this thread and in order; together
        the pieces are the output of the result. The job does not wait for them. One that raises ends call and job.

        Raises ResultTimeoutError after `timeout` seconds of waiting: the job goes on while this client is open. Any
        other exception that ends the wait, such as KeyboardInterrupt, cancels the job. JobRefusedError and BusyError:
        the job was not accepted. With a `timeout` a full backlog is tried again, when the daemon says, for that long.
        """
        patience = None if timeout is None else Patience(checks.waiting("timeout", timeout))
        listeners = Listeners(on_stdout, on_stderr) if on_stdout is not None or on_stderr is not None else None
        submission = self.jobs.make(code, options, on_disconnect="cancel", stream=listeners is not None)
        try:
            if patience is not None or listeners is not None:
                return self._run(submission, patience, listeners)
            request = self.connection.submit(submission)
            request.until_done()
            return self.to_result(request.result())
        except PoolError:
            raise
        except BaseException:
            self._abandon(submission.message.job_id)
            raise

    def submit(self, code: Code, /, **options: Unpack[JobOptions]) -> str:
        """Hand over the job and return its id as soon as the daemon has accepted it. As `run` otherwise."""
        submission = self.jobs.make(code, options, on_disconnect="keep", watch=False)
        _answered(self.connection.submit(submission))
        return submission.message.job_id

    def result(self, job_id: str, timeout: float | None = None) -> JobResult:
        """The result of a job that anybody submitted, once it has ended.

        Raises ResultTimeoutError after `timeout` seconds: the job goes on. Raises UnknownJobError.
        """
        wait_s = checks.waiting("timeout", timeout)
        return self._wait(self.connection.watch(checks.job_id("job_id", job_id)), wait_s)

    def stream(self, job_id: str, timeout: float | None = None) -> Iterator[OutputEvent | JobResult]:
        """What a job prints, while it runs, and at the end its result: OutputEvents, then the JobResult.

            for event in client.stream(job_id):
                match event:
                    case OutputEvent(stream="stderr", text=text): ...
                    case JobResult() as result: ...

        Starts at the first byte, of a job that waits, runs or has ended, submitted by any process of this user, for any
        number of readers. Each stream is in order; the two together are roughly in the order of printing. A slow reader
        gets all of it, in larger pieces. Leaving the loop early does not end the job.

        Raises ResultTimeoutError `timeout` seconds after the first step: the job goes on. Raises UnknownJobError.
        """
        watched, wait_s = checks.job_id("job_id", job_id), checks.waiting("timeout", timeout)
        return self._events(lambda reader: self.connection.watch(watched, reader.put), wait_s)

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
    ) -> Iterator[JobResult]:
        """Run the code once for each list of arguments; the results come in the order of the lists.

            for result in client.map(SOURCE, ([n] for n in range(10**6)), entry="main"): ...

        At most `window` jobs (128) are in the pool ahead of the result that is waited for, so the inputs may be
        endless. Each list has exactly one result. If the job was not accepted, because of its arguments or a limit, the
        outcome is `rejected`, with the error's name and message in `error`, and the others go on. A busy pool is waited
        for. `progress` is called in this thread with (ended, total or None). The first jobs begin with this call; what
        is left when the iteration ends early, for whatever reason, is cancelled. Other options as for `run`, the same
        for all jobs.

        `chunksize`: so many calls (at most 500) are one job and run one after the other in one child, which saves the
        fork of each; `window` counts chunks. Each call still has its own result and limits (docs/jobs.md). Not with
        `grade` and `stdin`.

        Raises ResultTimeoutError `timeout` seconds from now, and errors that concern all jobs, such as
        DaemonUnreachableError.
        """
        retry = Retry[Answer](checks.waiting("timeout", timeout))
        jobs = self.batches.map(
            code, argument_lists, options, retry=retry, width=window, progress=progress, chunksize=chunksize
        )
        return jobs.run(leave=self.batches.cancel)

    def run_tests(
        self,
        code: Code,
        /,
        cases: Iterable[Case],
        *,
        stop_on_first_failure: bool = False,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> TestReport:
        """Run the code once for each case, and judge each in this process, which the code cannot reach.

            report = client.run_tests(SOURCE, [{"args": [2], "expected": 4}, {"args": [3], "expected": 9}], entry="f")
            report.passed, report.ok, report.first_failure

        A `Case` has inputs (args, kwargs, stdin, argv, files), what is expected (a value, stdout, or a check that runs
        as a grader), and may have a name and limits of its own. Each runs in a child of its own, with its own outcome.
        After `timeout` seconds, or with `stop_on_first_failure` after the first case that has not passed, the others
        are cancelled and their rows say so. Other options as for `run`, the same for all cases.

        Raises InvalidJobError for a case that no code could pass, before anything is sent, and errors that concern all
        jobs, such as DaemonUnreachableError.
        """
        run = TestRun(self.batches, code, cases, options, stop_on_first_failure=stop_on_first_failure)
        jobs = run.jobs(Retry[Answer](checks.waiting("timeout", timeout)))
        return collect(run, jobs.run(leave=self.batches.cancel))

    def submit_many(
        self, jobs: Iterable[BatchJob], *, timeout: float | None = None, progress: Progress | None = None
    ) -> Batch:
        """Hand over many jobs, each `{"code": ..., and the options of submit}`; returns their ids, in their order.

        The ids of jobs that were not accepted are among them, and the reasons in `.refused`. As a context manager the
        Batch cancels its jobs when the block is left by an exception. A busy pool is waited for, at most `timeout`
        seconds in all. `progress` is called in this thread with (handed over, total or None).

        Raises BatchError when it cannot go on; its `batch` has what was submitted, its cause says why.
        """
        retry = Retry[Answer](checks.waiting("timeout", timeout))
        handover = Handover(self.batches, jobs, progress, cancel=self.batches.cancel_jobs)
        try:
            for _ in handover.window(retry).run(in_order=False, leave=self.batches.cancel):
                pass
        except Exception as error:
            raise handover.cut_short(error) from error
        except BaseException:  # the caller never gets the ids
            handover.batch.cancel()
            raise
        return handover.batch

    def results(
        self, job_ids: Iterable[str], *, timeout: float | None = None, progress: Progress | None = None
    ) -> Iterator[JobResult]:
        """The results of many jobs as the jobs end, whichever process of this user submitted them: one for each id.

        The outcome is `rejected` for a job that `submit_many` reported in `.refused`, and `lost` for an id that the
        daemon does not know. 1000 jobs are waited for at a time, in the order of the ids. Leaving the loop early does
        not end the jobs. Ctrl-C while it waits for the jobs of a Batch cancels those; give `list(batch)` to leave them.

        Raises ResultTimeoutError `timeout` seconds after the first step: the jobs go on.
        """
        wait_s = checks.waiting("timeout", timeout)
        return self._results(job_ids, wait_s, Counter(progress, job_ids))

    def cancel(self, job_ids: str | Iterable[str]) -> None:
        """End one job or many: take them from the backlog, or kill them. No error for those that have ended.

        Raises UnknownJobError for one id that the daemon does not know; among many, such ids are passed over.
        """
        if isinstance(job_ids, str):
            _answered(self.connection.cancel(checks.job_id("job_id", job_ids)))
            return
        ids = iter(job_ids)
        while requests := [self.connection.cancel(checks.job_id("job_ids", each)) for each in islice(ids, WATCHED)]:
            for request in requests:
                with contextlib.suppress(UnknownJobError):
                    _answered(request)

    def close(self) -> None:
        """Close the connection. Calls that still wait raise ClosedError; jobs that were submitted go on."""
        self.connection.close()
        if self._decoder is not None:
            self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _results(self, job_ids: Iterable[str], wait_s: float | None, progress: Counter) -> Iterator[JobResult]:
        window = self.batches.watch(job_ids, Retry(wait_s), progress=progress)
        batch = job_ids if isinstance(job_ids, Batch) else Batch()
        try:
            for each in window.run(in_order=False, leave=self.batches.forget):
                batch.ended(each.job_id)
                yield self.batches.to_result(each)
        except KeyboardInterrupt:
            batch.cancel()
            raise

    def _run(self, submission: Submission, patience: Patience | None, listeners: Listeners | None) -> JobResult:
        """Submit a job whose caller has a time, in which a full backlog is tried again, or reads the output."""
        while True:
            left_s = None if patience is None else patience.left_s()
            try:
                if listeners is not None:
                    return self._listen(submission, left_s, listeners)
                return self._wait(self.connection.submit(submission), left_s)
            except BacklogFullError as error:
                if patience is None:
                    raise
                time.sleep(patience.pause_s(error))

    def _wait(self, request: Request, wait_s: float | None) -> JobResult:
        done = False
        try:
            done = request.until_done(wait_s)
        finally:
            if not done:
                self.connection.forget(request)
        if not done:
            raise not_ended(request.job_id, wait_s or 0.0)
        return self.to_result(request.result())

    def _events(
        self, ask: Callable[[OutputReader], Request], wait_s: float | None
    ) -> Generator[OutputEvent | JobResult]:
        """The output of a job and its result. `ask` sends the request for them, at the first step."""
        reader = OutputReader()
        request = ask(reader)
        request.add_done_callback(reader.end)
        try:
            yield from reader.events(request, wait_s, self.to_result)
        except Empty:
            raise not_ended(request.job_id, wait_s or 0.0) from None
        finally:
            self.connection.forget(request)

    def _listen(self, submission: Submission, wait_s: float | None, listeners: Listeners) -> JobResult:
        events = self._events(lambda reader: self.connection.submit(submission, reader.put), wait_s)
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, JobResult):
                    return event
                listeners.tell(event, abandon=partial(self._abandon, submission.message.job_id))
        raise AssertionError("the last event is the result")

    def _abandon(self, job_id: str) -> None:
        """Cancel a job that nobody will ask for. What interrupted the caller is raised, not an error of this."""
        with contextlib.suppress(PoolError, TimeoutError):
            self.connection.cancel(job_id).result(CANCEL_S)


def _answered(request: Request) -> None:
    """Wait for the daemon's answer. Raises the error if it is one."""
    request.until_done()
    request.result()


def not_ended(job_id: str, wait_s: float) -> ResultTimeoutError:
    return ResultTimeoutError(
        f"job {job_id} has not ended within {wait_s:g} s and goes on: "
        f"ask again with result({job_id!r}), or end it with cancel({job_id!r})",
        job_id=job_id,
        timeout_s=wait_s,
    )

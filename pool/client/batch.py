"""Many jobs at once. `Window` (window.py) runs all of them:

                     jobs under way                   results                          an early end
    map              128, ahead of the next result    results in the inputs' order    cancels what is left
      chunksize=n    128 chunks                       as above
    executor.map     128, ahead of the next value     values in the inputs' order     cancels what is left
    submit_many      128, until they are accepted     ids in the jobs' order          cancels what is not accepted
    results          1000                             results as the jobs end         leaves the jobs alone, unless
                                                                                      Ctrl-C ends it for a Batch

Every job has exactly one result, and none stops the others. A job that the pool does not accept (an argument that
cannot be carried, a limit above the maximum, poisoned code) has the outcome `rejected` and the refusal in `error`. An
id that the daemon does not know has the outcome `lost`. While the pool is busy, jobs are sent again. Errors that
concern all jobs are raised: the time is over, the daemon is unreachable, the client is closed.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from functools import partial
from typing import NamedTuple, Required, Self

from pool.client import checks
from pool.client.chunks import Chunk, check_options, split
from pool.client.connection import Connection
from pool.client.job import MAX_PRIORITY, JobMaker, grader_of, program_of
from pool.client.options import Code, JobOptions, OnDisconnect, Program
from pool.client.pending import Request
from pool.client.results import ToResult
from pool.client.retry import Retry
from pool.client.waiting import CANCEL_S
from pool.client.window import MAX_WINDOW, WINDOW, Answer, Begin, Counter, Progress, Window
from pool.errors import BatchError, ClosedError, JobRefusedError, UnknownJobError
from pool.model import JobError, JobResult, Outcome

#: The most jobs that `results` waits for at a time. Each has entries in two tables, and a result.
WATCHED = 1000
#: How much longer than `CANCEL_S` a caller who leaves waits, for each of many jobs.
_CANCEL_EACH_S = 0.001


class BatchJob(JobOptions, total=False):
    """A job of `submit_many`: its code, and the options of `Client.submit`."""

    code: Required[Code | Program]


class Batch(list[str]):
    """The ids of jobs that were submitted together, in their order. `refused`: why some were not accepted, by id.

    with client.submit_many(jobs) as batch: ...    # leaving the block by an exception cancels what has not ended
    """

    def __init__(self, ids: Iterable[str] = (), *, cancel: Callable[[Iterable[str]], object] = lambda _: None) -> None:
        super().__init__(ids)
        self.refused: dict[str, JobRefusedError] = {}
        self._cancel = cancel
        self._ended: set[str] = set()

    def cancel(self) -> None:
        """End the jobs that are not known to have ended. Waits a moment until the daemon has confirmed it."""
        self._cancel([each for each in self if each not in self._ended and each not in self.refused])

    def ended(self, job_id: str) -> None:
        """For this package: note that the result of this job was yielded."""
        self._ended.add(job_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.cancel()


class Map(NamedTuple):
    """The window of a `map`, and the conversion of each job into results in the order of the inputs."""

    window: Window[Answer]
    results: Callable[[Answer], Iterable[JobResult]]

    def run(self, *, leave: Callable[[Iterable[Answer]], object]) -> Iterator[JobResult]:
        """The results. The first jobs begin with this call."""
        return self._results(self.window.run(in_order=True, leave=leave))

    def _results(self, ended: Iterator[Answer]) -> Iterator[JobResult]:
        for each in ended:
            yield from self.results(each)


class Batches:
    """`map`, `submit_many` and `results` of one client, as the windows that run them."""

    def __init__(self, connection: Connection, jobs: JobMaker, to_result: ToResult) -> None:
        self._connection = connection
        self._jobs = jobs
        self._to_result = to_result

    def map(  # noqa: PLR0913 - all but the first three by keyword
        self,
        code: Code,
        argument_lists: Iterable[Sequence[object]],
        options: JobOptions,
        *,
        retry: Retry[Answer],
        width: int | None,
        progress: Progress | None,
        chunksize: int = 1,
    ) -> Map:
        if shared := {"args", "job_id"} & options.keys():
            raise checks.invalid(min(shared), "the jobs of a map cannot share it", "put arguments into argument_lists")
        program = program_of(code, options.pop("entry", None), options.pop("strip_fences", None))
        counter = Counter(progress, argument_lists)
        width = WINDOW if width is None else checks.whole("window", width, 1, MAX_WINDOW)
        if checks.whole("chunksize", chunksize, 1, 1 << 31) > 1:
            check_options(program, options)
            chunks = split(program, argument_lists, options.pop("kwargs", None), size=chunksize)
            return self.parts(program, chunks, options, retry=retry, width=width, counter=counter)
        if (grade := options.get("grade")) is not None:
            options["grade"] = grader_of(grade)
        jobs: Iterable[BatchJob] = ({**options, "code": program, "args": each} for each in argument_lists)
        window = Window((self.begin(each)[1] for each in jobs), retry, width=width, on_end=counter.one_more)
        return Map(window, lambda job: [self.to_result(job)])

    def parts(
        self,
        program: Program,
        parts: Iterable[Chunk | BatchJob],
        options: JobOptions,
        *,
        retry: Retry[Answer],
        width: int,
        counter: Counter,
    ) -> Map:
        """Chunks of calls with these options, and jobs between them that have their own."""
        under_way: dict[int, Chunk | BatchJob] = {}  # in order, until their results are given out

        def begins() -> Iterator[Begin]:
            for number, part in enumerate(parts):
                under_way[number] = part
                if isinstance(part, Chunk):
                    yield partial(self._begin_chunk, program, part, options)
                else:
                    yield self.begin(part)[1]

        def again(number: int, job: Answer) -> Begin | None:
            chunk = under_way[number]
            if not isinstance(chunk, Chunk):
                return None
            if chunk.unfinished:
                chunk.take(job)
            return partial(self._begin_chunk, program, chunk, _sooner(options)) if chunk.unfinished else None

        def results(job: Answer) -> Iterable[JobResult]:
            part = under_way.pop(min(under_way))
            return part.results(self._to_result, _refusal) if isinstance(part, Chunk) else [self.to_result(job)]

        def count(number: int, _: Answer) -> None:
            part = under_way[number]
            counter.more(len(part) if isinstance(part, Chunk) else 1)

        return Map(Window(begins(), retry, width=width, on_end=count, again=again), results)

    def _begin_chunk(self, program: Program, chunk: Chunk, options: JobOptions) -> Answer:
        """Send the calls that have not ended."""
        if not chunk.unfinished:  # none of them can be sent
            future = Answer()
            future.set_result(None)
            return future
        try:
            calls = chunk.arguments()
            submission = self._jobs.make(program, options, on_disconnect="cancel", calls=calls, apart=chunk.apart)
        except JobRefusedError as error:
            return _refused(uuid.uuid4().hex, error)
        return self._connection.submit(submission)

    def watch(self, job_ids: Iterable[str], retry: Retry[Answer], *, progress: Counter) -> Window[Answer]:
        refused = job_ids.refused if isinstance(job_ids, Batch) else {}
        begins = (
            partial(_refused, each, refused[each])
            if each in refused
            else partial(self._connection.watch, checks.job_id("job_id", each))
            for each in job_ids
        )
        return Window(begins, retry, width=WATCHED, on_end=progress.one_more)

    def to_result(self, ended: Answer) -> JobResult:
        """Raises errors that concern all jobs."""
        try:
            return self._to_result(ended.result())
        except JobRefusedError as error:
            return _refusal(ended.job_id, error)

    def cancel(self, left: Iterable[Answer]) -> None:
        """Cancel the jobs of these requests and forget the requests. Waits a moment for the daemon to confirm."""
        with contextlib.suppress(ClosedError):
            wait([self._connection.give_up(each) for each in left if isinstance(each, Request)], CANCEL_S)

    def cancel_jobs(self, job_ids: Iterable[str]) -> None:
        """Cancel jobs that nobody will ask for. Waits a moment for the daemon to confirm."""
        with contextlib.suppress(ClosedError):
            cancelling = [self._connection.cancel(each) for each in job_ids]
            wait(cancelling, CANCEL_S + _CANCEL_EACH_S * len(cancelling))

    def forget(self, left: Iterable[Answer]) -> None:
        for each in left:
            if isinstance(each, Request):
                self._connection.forget(each)

    def begin(self, given: object, *, watch: bool = True) -> tuple[str, Begin]:
        """The id of a job, and a function that sends it or raises why it cannot be sent."""
        job_id: object = None
        try:
            if not isinstance(given, Mapping) or "code" not in given:
                problem = "it has no 'code'" if isinstance(given, Mapping) else f"it is {checks.kind(given)}"
                raise checks.invalid("job", problem, "give a mapping with the key 'code' and options")
            options = {**given}
            code, job_id = options.pop("code"), options.get("job_id")
            last: OnDisconnect = "cancel" if watch else "keep"
            submission = self._jobs.make(code, options, on_disconnect=last, watch=watch)  # type: ignore[arg-type]
        except JobRefusedError as error:
            name = job_id if isinstance(job_id, str) else uuid.uuid4().hex
            return name, partial(_refused, name, error)
        return submission.message.job_id, partial(self._connection.submit, submission)


def _sooner(options: JobOptions) -> JobOptions:
    """For the rest of a chunk: results after it wait for it, so it goes before the client's other jobs."""
    return {**options, "priority": min(MAX_PRIORITY, (options.get("priority") or 0) + 1)}


class Handover:
    """One `submit_many`: the jobs that the daemon has accepted, and those that it has refused."""

    def __init__(
        self,
        batches: Batches,
        jobs: Iterable[BatchJob],
        progress: Progress | None,
        *,
        cancel: Callable[[Iterable[str]], object],
    ) -> None:
        self.batch = Batch(cancel=cancel)
        self._cancel = cancel
        self._batches = batches
        self._jobs = jobs
        self._accepted: set[int] = set()
        self._progress = Counter(progress, jobs)

    def window(self, retry: Retry[Answer]) -> Window[Answer]:
        return Window(self._begins(), retry, width=WINDOW, on_end=self._end)

    def cut_short(self, error: Exception) -> BatchError:
        accepted = (job_id for number, job_id in enumerate(self.batch) if number in self._accepted)
        submitted = Batch(accepted, cancel=self._cancel)
        submitted.refused = self.batch.refused
        what = f"{len(submitted)} jobs were submitted and go on; then: {error}"
        return BatchError(what, batch=submitted)

    def _begins(self) -> Iterator[Begin]:
        for each in self._jobs:
            job_id, begin = self._batches.begin(each, watch=False)
            self.batch.append(job_id)
            yield begin

    def _end(self, number: int, future: Answer) -> None:
        error = future.exception()
        if isinstance(error, JobRefusedError):
            self.batch.refused[future.job_id] = error
        elif error is not None:
            raise error
        self._accepted.add(number)
        self._progress.one_more()


def _refused(job_id: str, error: JobRefusedError) -> Answer:
    future = Answer()
    future.job_id = job_id
    future.set_exception(error)
    return future


def _refusal(job_id: str, error: JobRefusedError) -> JobResult:
    """The result of a job that was not accepted, or is not known."""
    return JobResult(
        job_id=job_id,
        outcome=Outcome.LOST if isinstance(error, UnknownJobError) else Outcome.REJECTED,
        reason=error.message,
        error=JobError(type=type(error).__name__, message=error.message),
    )

"""Many jobs at once: what `Client.map`, `submit_many` and `results` have in common.

    map           inputs in ─▶ results out, in the order of the inputs       a window of jobs is in the pool at a time
    submit_many   jobs in ─▶ Batch of ids                                    a window of jobs is on its way at a time
    results       ids in ─▶ results out, as the jobs end                     a window of jobs is listened for at a time

Every job has exactly one result, at its place, and none stops the others. A job that the pool does not take (an
argument that cannot be carried, a limit above the maximum, poisoned code) has one with the outcome `rejected` and the
refusal in `error`; an id that the daemon does not know, one with `lost`. A busy pool is waited for. What concerns all
jobs is raised: the time is over, the daemon is unreachable, the client closed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Required

from pool.client import checks
from pool.client.flights import Answer
from pool.client.job import Code, Draft, JobOptions
from pool.client.results import to_result
from pool.errors import JobRefusedError, PoolError, Scalar, UnknownJobError
from pool.model import JobError, JobResult, Outcome

if TYPE_CHECKING:
    from pool.client.client import Client

Progress = Callable[[int, int | None], object]


class BatchJob(JobOptions, total=False):
    """A job of `submit_many`: its code, and all that `Client.submit` takes."""

    code: Required[Code]


class Batch(list[str]):
    """The ids of jobs that were submitted together, in their order. `refused`: why some were not taken, by id."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: dict[str, JobRefusedError] = {}


class BatchError(PoolError):
    """Not all jobs could be submitted; those in `batch` were and go on."""

    code: ClassVar[str] = "batch"

    def __init__(self, message: str | None = None, *, batch: Batch | None = None, **fields: Scalar) -> None:
        super().__init__(message, **fields)
        self.batch = Batch() if batch is None else batch


class Asked(NamedTuple):
    """A job that can be sent, or why it cannot."""

    job_id: str
    draft: Draft | JobRefusedError


def asked(client: Client, job: object) -> Asked:
    """One job of `submit_many`, checked."""
    given: object = None
    try:
        if not isinstance(job, Mapping) or "code" not in job:
            problem = "it has no 'code'" if isinstance(job, Mapping) else f"it is {checks.kind(job)}"
            raise checks.invalid("job", problem, "give a mapping with the key 'code' and options")
        options = {**job}
        code, given = options.pop("code"), options.get("job_id")
        draft = client.draft(code, options)  # type: ignore[arg-type]
    except JobRefusedError as error:
        return Asked(given if isinstance(given, str) else uuid.uuid4().hex, error)
    return Asked(draft.submit.job_id, draft)


def result_of(job_id: str, answer: Answer) -> JobResult:
    """Raises what is not about this job alone."""
    try:
        return to_result(answer.result())
    except JobRefusedError as error:
        return refusal(job_id, error)


def refusal(job_id: str, error: JobRefusedError) -> JobResult:
    """The result of a job that was not taken, or is not known."""
    return JobResult(
        job_id=job_id,
        outcome=Outcome.LOST if isinstance(error, UnknownJobError) else Outcome.REJECTED,
        reason=error.message,
        error=JobError(type=type(error).__name__, message=error.message),
    )


class Report:
    """Counts, and tells who wants to know. The total is of what was given, if that has a length."""

    def __init__(self, progress: Progress | None, jobs: Iterable[object]) -> None:
        if progress is not None and not callable(progress):
            raise checks.invalid("progress", f"it is {checks.kind(progress)}", "give a function of (done, total)")
        self._progress = progress
        self._total = len(jobs) if isinstance(jobs, Sized) else None
        self._done = 0

    def one_more(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)

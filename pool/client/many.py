"""`Client.submit_many` and `Client.results`: jobs that are handed over together, and results as the jobs end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from pool.client import job
from pool.client.batch import Batch, BatchError, BatchJob, Progress, Report, asked, refusal, result_of
from pool.client.flights import Flights
from pool.client.job import Draft
from pool.errors import JobRefusedError
from pool.model import JobResult

if TYPE_CHECKING:
    from pool.client.client import Client

#: Jobs that have been sent and not been accepted: enough to hide the way, few enough to notice a busy pool.
WINDOW = 128
#: Jobs that are listened for. Each is a line in two tables, and its result waits here until it is asked for.
LISTENED = 1000


def submit_many(client: Client, jobs: Iterable[BatchJob], *, wait_s: float | None, progress: Progress | None) -> Batch:
    """Raises BatchError for whatever ends it early, with what was submitted by then; the rest is cancelled."""
    submission = Submission(client, wait_s=wait_s, report=Report(progress, jobs))
    try:
        for each in jobs:
            submission.take(each)
        submission.finish()
    except Exception as error:
        submission.cancel()
        batch = submission.accepted()
        raise BatchError(f"{len(batch)} jobs were submitted and go on; then: {error}", batch=batch) from error
    except BaseException:
        submission.cancel()
        raise
    return submission.batch


class Submission:
    """The jobs of one `submit_many`."""

    def __init__(self, client: Client, *, wait_s: float | None, report: Report) -> None:
        self.batch = Batch()
        self._client = client
        self._flights: Flights[int] = Flights(wait_s)
        self._report = report
        self._accepted: set[int] = set()

    def take(self, given: BatchJob) -> None:
        job_id, draft = asked(self._client, given)
        number = len(self.batch)
        self.batch.append(job_id)
        if not isinstance(draft, Draft):
            self.batch.refused[job_id] = draft
            self._report.one_more()
            return
        while len(self._flights) >= WINDOW:
            self._settle_one()
        self._flights.start(number, partial(self._client.begin, draft, watch=False))

    def finish(self) -> None:
        while self._flights:
            self._settle_one()

    def accepted(self) -> Batch:
        """What the pool has, and what it will not have."""
        batch = Batch()
        batch.refused = self.batch.refused
        batch += [
            job_id for at, job_id in enumerate(self.batch) if at in self._accepted or job_id in self.batch.refused
        ]
        return batch

    def cancel(self) -> None:
        self._client.give_up_all(self._flights.requests())

    def _settle_one(self) -> None:
        number, answer = self._flights.next()
        error = answer.exception()
        if isinstance(error, JobRefusedError):
            self.batch.refused[self.batch[number]] = error
        elif error is not None:
            raise error
        else:
            self._accepted.add(number)
        self._report.one_more()


def results(
    client: Client, job_ids: Iterable[str], *, wait_s: float | None, progress: Progress | None
) -> Iterator[JobResult]:
    """Nothing is asked before the first step; who leaves early has ended none of the jobs."""
    report = Report(progress, job_ids)
    refused = job_ids.refused if isinstance(job_ids, Batch) else {}
    flights: Flights[int] = Flights(wait_s)
    listened: dict[int, str] = {}
    left = iter(enumerate(job_ids))
    try:
        while True:
            while len(flights) < LISTENED and (following := next(left, None)) is not None:
                number, job_id = following
                if job_id in refused:
                    report.one_more()
                    yield refusal(job_id, refused[job_id])
                    continue
                listened[number] = job.checked_id(job_id)
                flights.start(number, partial(client.begin_watch, job_id))
            if not flights:
                return
            number, answer = flights.next()
            result = result_of(listened.pop(number), answer)
            report.one_more()
            yield result
    finally:
        for request in flights.requests():
            client.drop(request)

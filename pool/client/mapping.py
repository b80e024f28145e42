"""`Client.map`: one program, many argument lists, the results in their order.

arguments ─▶ window: at most so many jobs begun and not yet given out ─▶ results
             a slow job holds back the results after it, and their work only when the window is full of them
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pool.client import checks
from pool.client.batch import Asked, Report, asked, refusal, result_of
from pool.client.flights import Flights
from pool.client.job import Draft, JobOptions, Program
from pool.errors import JobRefusedError
from pool.model import JobResult

if TYPE_CHECKING:
    from pool.client.client import Client

#: Enough to keep a large pool busy.
WINDOW = 128
MAX_WINDOW = 100_000


def jobs_of(
    client: Client, program: Program, argument_lists: Iterable[Sequence[object]], options: JobOptions
) -> Iterator[Asked]:
    """One job for each list, made when its turn comes."""
    if shared := {"args", "job_id"} & options.keys():
        raise checks.invalid(min(shared), "the jobs of a map cannot share it", "put arguments into argument_lists")
    return (asked(client, {**options, "code": program, "args": each}) for each in argument_lists)


class MapRun:
    """The jobs of one `map`, from `begin` on. Who leaves `results` early cancels what is left."""

    def __init__(
        self, client: Client, jobs: Iterator[Asked], *, flights: Flights[int], report: Report, window: int | None
    ) -> None:
        self._client = client
        self._jobs = jobs
        self._flights = flights
        self._report = report
        self._window = checks.whole("window", window, 1, MAX_WINDOW) or WINDOW
        self._ids: dict[int, str] = {}  # of those begun, by their place
        self._ended: dict[int, JobResult] = {}
        self._begun = 0
        self._given = 0

    def begin(self) -> None:
        """Take jobs until the window is full."""
        try:
            while self._begun < self._given + self._window and (job := next(self._jobs, None)) is not None:
                self._begin(job.job_id, job.draft)
        except BaseException:
            self._cancel()
            raise

    def results(self) -> Iterator[JobResult]:
        try:
            while self._given < self._begun:
                while self._given not in self._ended:
                    number, answer = self._flights.next()
                    self._end(number, result_of(self._ids.pop(number), answer))
                result = self._ended.pop(self._given)
                self._given += 1
                self.begin()
                yield result
        finally:
            self._cancel()

    def _begin(self, job_id: str, draft: Draft | JobRefusedError) -> None:
        number = self._begun
        self._begun += 1
        if isinstance(draft, Draft):
            self._ids[number] = job_id
            self._flights.start(number, lambda: self._client.begin(draft))
        else:
            self._end(number, refusal(job_id, draft))

    def _end(self, number: int, result: JobResult) -> None:
        self._ended[number] = result
        self._report.one_more()

    def _cancel(self) -> None:
        self._client.give_up_all(self._flights.requests())

"""The end of a job: its result is written, then kept, then sent to the clients that wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pool import wire
from pool.daemon import stored_job
from pool.daemon.job_store import Job, JobStore
from pool.daemon.journal import Journal
from pool.daemon.journal_entries import Collect, Drop
from pool.daemon.zmtp import ClientListener
from pool.errors import PoolError

#: How often results are dropped whose time is over, and it is noted which results were sent: a daemon that ends before
#: that keeps them for longer.
_TIDY_S = 1.0


class Endings:
    """Called from the loop's thread. Each job has one end."""

    def __init__(self, journal: Journal, jobs: JobStore, listener: ClientListener) -> None:
        self._journal = journal
        self._jobs = jobs
        self._listener = listener
        self._collected: list[int] = []  # numbers of results that were sent since the last Collect
        self.tidy_at = 0.0  #: monotonic seconds

    def end(
        self,
        job: Job,
        result: wire.Result,
        answer: Sequence[wire.Frame],
        acknowledge: Callable[[], None] = lambda: None,
    ) -> None:
        """The job has ended like this. `acknowledge` is called when that is written."""

        def written(_: PoolError | None) -> None:
            acknowledge()
            if job.refused is None:
                self._deliver(job, result, answer)

        self._journal.write(stored_job.end(job, result, answer, now=time.monotonic()), written)

    def _deliver(self, job: Job, result: wire.Result, answer: Sequence[wire.Frame]) -> None:
        for address in self._jobs.finish(job, result, answer, now=time.monotonic()):
            self.send(address, job)

    def send(self, address: bytes, job: Job) -> None:
        """Send a client the result of a job that has ended."""
        assert job.result is not None, "the job has ended"
        if self._listener.send(address, job.result, job.answer) and not job.collected:
            job.collected = True
            self._collected.append(job.number)

    def tidy(self, now: float) -> None:
        """Drop the results that need not be kept any longer, and note which ones were sent to a client.

        To be called at `tidy_at`, and while the store is over its bound.
        """
        if now >= self.tidy_at:
            self.tidy_at = now + _TIDY_S
            if self._collected:
                self._journal.write(Collect(self._collected), lambda _: None)
                self._collected = []
        for job in self._jobs.expire(now):
            self.drop(job.number)

    def drop(self, number: int) -> None:
        """Nothing of this job is kept in the journal."""
        self._journal.write(Drop(number), lambda _: None)

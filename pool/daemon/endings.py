"""The end of a job: its result is written, then kept, then sent to the clients that wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pool import wire
from pool.daemon import stored_job
from pool.daemon.failpoints import reach
from pool.daemon.job_store import Job, JobStore
from pool.daemon.journal import Journal
from pool.daemon.zmtp import ClientListener
from pool.errors import PoolError


class Endings:
    """Called from the loop's thread. Each job has one end."""

    def __init__(self, journal: Journal, jobs: JobStore, listener: ClientListener) -> None:
        self._journal = journal
        self._jobs = jobs
        self._listener = listener

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
        reach("send:Result")
        job.collected |= self._listener.send(address, job.result, job.answer)
        reach("sent:Result")

    def expire(self, now: float) -> None:
        """Drop the results that need not be kept any longer."""
        for job in self._jobs.expire(now):
            self._journal.write(stored_job.drop(job), lambda _: None)

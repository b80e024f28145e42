"""At the start of the daemon: restores the jobs of earlier daemons from the journal.

row of the journal       becomes
───────────────────      ──────────────────────────────────────────────────────────────
with a result            a kept result, for the rest of its time
without a lease          a waiting job, in its place in the order of acceptance
with a lease             left to its worker, if that was found; else it ended `lost`, as it may have run; or it waits
                         again, if its submitter allows another attempt and the container of the last one is gone
damaged, or without      ended `lost`: it cannot be run; the result says why
a pool of that name
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from pool.core import events as ev
from pool.core.records import HistoryEntry
from pool.daemon.controller import PoolController, worker_number
from pool.daemon.job import Job, job_of
from pool.daemon.job_carrier import result_of
from pool.daemon.job_store import JobStore
from pool.daemon.journal_entries import KNOWN_SINCE, JobRow, LeaseRow, SetFact
from pool.daemon.journal_file import JournalFile
from pool.errors import PoolError
from pool.model import Outcome, WorkerState

log = structlog.get_logger(__name__)

_CAUSE = "restart"
_NS_PER_S = 1e9
#: How long the start waits for the end of a container whose job is to be tried again.
REMOVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier daemons have written."""

    rows: Sequence[JobRow] = ()
    workers: Mapping[str, int] = field(default_factory=dict)  #: the number of the last worker, by pool
    era: int = 0  #: of this daemon
    known_since_ns: int | None = None  #: as of `JobStore`; None without a journal
    set_aside: Path | None = None  #: a journal that could not be read


def read_past(file: JournalFile, pools: Iterable[str], *, last: str) -> Past:
    """`last`: the name of the journal of the daemon that was here before."""
    if file.name != last:  # jobs that this one does not have may have been accepted here
        file.commit([SetFact(KNOWN_SINCE, time.monotonic_ns())])
    workers = {pool: file.fact(worker_number(pool)) for pool in pools}
    return Past(
        rows=list(file.rows()),
        workers=workers,
        era=file.new_era(),
        known_since_ns=file.fact(KNOWN_SINCE),
        set_aside=file.set_aside,
    )


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A job that an earlier daemon had sent to a worker, or was about to, and whose end is not known."""

    job: Job
    lease: LeaseRow


class Recovery:
    """Used once, before the daemon serves."""

    def __init__(
        self, jobs: JobStore, controllers: Mapping[str, PoolController], ending: Mapping[str, Future[None]]
    ) -> None:
        """`ending`: the workers whose containers are being removed, and when they are gone."""
        self._ending = ending
        self._jobs = jobs
        self._controllers = controllers

    def restore(self, rows: Iterable[JobRow]) -> None:
        """Give every job back to the store, and those that have to run to their pools."""
        finished = waiting = 0
        leased: list[LeasedJob] = []
        for row in rows:
            job = self._keep(row)
            if job is None:
                continue
            if job.result is not None:
                finished += 1
            elif row.lease is not None:
                leased.append(LeasedJob(job, row.lease))
            else:
                self._controllers[job.pool].carrier.restore(job)
                waiting += 1
        if finished or waiting or leased:
            log.info("restored jobs", action="restore", finished=finished, waiting=waiting, unknown=len(leased))
        self.settle_leased(leased)

    def settle_leased(self, leased: Sequence[LeasedJob]) -> None:
        """A job that was with a worker when its daemon ended is left to that worker, or is lost if it was not found."""
        for each in leased:
            controller, lease = self._controllers[each.job.pool], each.lease
            worker = controller.state.workers.get(lease.worker)
            if worker is not None and worker.state is WorkerState.FOUND and worker.job is None:
                left = ev.Lease(lease.worker, lease.epoch, lease.leased_at)
                controller.carrier.restore(each.job, attempt=lease.attempt, left=left)
                continue
            ago_s = max(0.0, time.monotonic() - each.lease.leased_at)
            reason = (
                f"the daemon ended while worker {each.lease.worker} had the job: it was dispatched {ago_s:.0f} s ago, "
                f"in attempt {each.lease.attempt}; whether it had an effect is unknown"
            )
            if lease.attempt > each.job.terms.retries:
                self._end(each.job, Outcome.LOST, reason, lease)
            elif self._is_gone(lease.worker):
                controller.carrier.restore(each.job, attempt=lease.attempt, lost=reason)
            else:
                reason += "; it is not tried again, because its container could not be removed"
                self._end(each.job, Outcome.LOST, reason, lease)

    def _is_gone(self, worker_id: str) -> bool:
        """Whether nothing of this worker is left, so that the next attempt runs alone. Waits for its removal."""
        removal = self._ending.get(worker_id)
        try:
            return removal is None or removal.result(REMOVAL_S) is None
        except (PoolError, TimeoutError) as error:
            log.warning("a container may still run a job", action="restore", worker=worker_id, reason=str(error))
            return False

    def _keep(self, row: JobRow) -> Job | None:
        """The job; None if it cannot go on, in which case its end is written."""
        try:
            job = job_of(row)
        except msgspec.MsgspecError:
            log.exception("a job in the journal cannot be read and is dropped", action="restore", job=row.key)
            self._jobs.drop(row.number, received_ns=int(row.accepted_at * _NS_PER_S))
            return None
        self._jobs.restore(job, ended_at=row.ended_at)
        if job.result is not None:
            job.history = [self._entry(job, f"ended {job.result.outcome}, under an earlier daemon")]
            return job
        if row.payload is None:
            self._end(job, Outcome.LOST, "its payload in the journal is damaged; it cannot be run", row.lease)
        elif job.pool not in self._controllers:
            self._end(job, Outcome.LOST, f"there is no pool {job.pool} any more to run it", row.lease)
        else:
            return job
        return None

    def _end(self, job: Job, outcome: Outcome, reason: str, lease: LeaseRow | None) -> None:
        job.history = [self._entry(job, f"{outcome}: {reason}")]
        finish = ev.Finish(
            job_id=job.key,
            outcome=outcome,
            reason=reason,
            worker_id=lease.worker if lease is not None else None,
            attempt=lease.attempt if lease is not None else 0,
            cause=_CAUSE,
        )
        if lease is not None:
            job.leased_ns = int(lease.leased_at * 1e9)
        result, answer = result_of(job, finish, container=None)
        if (controller := self._controllers.get(job.pool)) is not None:
            controller.metrics.new_ends.append((time.monotonic(), result, False))
        self._jobs.end(job, result, answer)

    def _entry(self, job: Job, text: str) -> HistoryEntry:
        return HistoryEntry(time.monotonic(), job.key, "done", text, _CAUSE)

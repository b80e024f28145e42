"""What each event does to a job, by the state the job is in.

    QUEUED ──Lease──▶ LEASED ──JobStarted──▶ RUNNING ──JobEnded──▶ DONE(the worker's outcome)
       │                └──────────┬────────────┴──Bereave───────▶ DONE(lost), or its verdict if it was condemned
       └──CancelRequested, ShutdownRequested, Overdue, Reject────▶ DONE(cancelled | timeout | rejected)

A job that is killed together with its worker ends only when the container is gone: who hears `timeout` or `cancelled`
may rely on it that nothing of the job is left.
"""

from __future__ import annotations

from pool.core.events import (
    Bereave,
    CancelRequested,
    Condemn,
    Dispatch,
    Event,
    JobEnded,
    JobForgotten,
    JobStarted,
    JobSubmitted,
    KillJob,
    Lease,
    Overdue,
    Reject,
    ShutdownRequested,
)
from pool.core.records import JobRecord
from pool.core.state import State
from pool.core.table import Ignore, Illegal, Table, row, table
from pool.model import JobState, Outcome


def _lease(books: State, job: JobRecord, event: Lease) -> None:
    job.leased_at, job.worker_id, job.epoch, job.start = books.now, event.worker_id, event.epoch, event.start
    job.attempt += 1
    books.move_job(job, JobState.LEASED, f"leased {event.worker_id}, epoch {event.epoch}, {event.start}")
    books.emit(
        Dispatch(
            worker_id=event.worker_id,
            job_id=job.id,
            epoch=event.epoch,
            attempt=job.attempt,
            start=event.start,
            cause=books.cause,
        )
    )


def _start(books: State, job: JobRecord, _event: JobStarted) -> None:
    job.started_at = books.now
    books.move_job(job, JobState.RUNNING, "started")


def _end(books: State, job: JobRecord, event: JobEnded) -> None:
    books.finish_job(job, event.outcome, event.reason, from_worker=True)


def _cancel_waiting(books: State, job: JobRecord, _event: CancelRequested) -> None:
    books.backlog.remove(job.id)
    books.finish_job(job, Outcome.CANCELLED, "cancelled while it waited in the backlog; it did not run")


def _cancel_leased(books: State, job: JobRecord, _event: CancelRequested) -> None:
    if job.cancelled_at is not None or job.verdict is not None:
        books.tell(job, "CancelRequested ignored: it is being killed already")
        return
    assert job.worker_id is not None
    job.cancelled_at = books.now
    worker = books.workers[job.worker_id]
    worker.due, worker.code = books.answer_deadline(job), ""
    books.tell(job, "cancel: the worker was told to kill it")
    books.emit(KillJob(worker_id=job.worker_id, job_id=job.id, epoch=job.epoch, cause=books.cause))


def _wait_over(books: State, job: JobRecord, _event: Overdue) -> None:
    books.backlog.remove(job.id)
    waited_s = books.now - job.submitted_at
    limit = "" if job.queue_timeout_s is None else f" of {job.queue_timeout_s:g} s"
    books.finish_job(
        job, Outcome.TIMEOUT, f"waited {waited_s:.3g} s in the backlog, over its queue timeout{limit}; it did not run"
    )


def _reject(books: State, job: JobRecord, event: Reject) -> None:
    books.backlog.remove(job.id)
    books.finish_job(job, Outcome.REJECTED, event.reason)


def _shut_down_waiting(books: State, job: JobRecord, _event: ShutdownRequested) -> None:
    books.backlog.remove(job.id)
    books.finish_job(job, Outcome.CANCELLED, "the pool shut down while the job waited in the backlog; it did not run")


def _condemn(books: State, job: JobRecord, event: Condemn) -> None:
    job.verdict = event.verdict
    books.tell(job, f"is killed together with its worker: {event.verdict.outcome}")


def _bereave(books: State, job: JobRecord, event: Bereave) -> None:
    if job.verdict is not None:
        books.finish_job(job, job.verdict.outcome, job.verdict.reason)
    else:
        books.finish_job(job, Outcome.LOST, f"{event.reason}; whether the job had an effect is unknown")


def _forget(books: State, job: JobRecord, _event: JobForgotten) -> None:
    books.tell(job, "forgotten")
    books.bygone.keep(job.id, books.jobs.pop(job.id).history)


SAME = Ignore("the same job again")
RUNS_ON = Ignore("it may run on until the deadline of the shutdown")
ENDED = Ignore("it has ended")
NEVER_LEASED = Illegal("no worker was given it")
NOT_WAITING = Illegal("it no longer waits")
NOT_DONE = Illegal("it is not done")
OVER = Illegal("it is done")
STARTED = Ignore("it has started already")

_STATES = tuple(JobState)
TABLE: Table[JobState, JobRecord] = table(
    row(JobSubmitted, _STATES, queued=SAME, leased=SAME, running=SAME, done=SAME),
    row(CancelRequested, _STATES, queued=_cancel_waiting, leased=_cancel_leased, running=_cancel_leased, done=ENDED),
    row(JobForgotten, _STATES, queued=NOT_DONE, leased=NOT_DONE, running=NOT_DONE, done=_forget),
    row(JobStarted, _STATES, queued=NEVER_LEASED, leased=_start, running=STARTED, done=ENDED),
    row(JobEnded, _STATES, queued=NEVER_LEASED, leased=_end, running=_end, done=ENDED),
    row(ShutdownRequested, _STATES, queued=_shut_down_waiting, leased=RUNS_ON, running=RUNS_ON, done=ENDED),
    row(Lease, _STATES, queued=_lease, leased=NOT_WAITING, running=NOT_WAITING, done=OVER),
    row(Overdue, _STATES, queued=_wait_over, leased=NOT_WAITING, running=NOT_WAITING, done=OVER),
    row(Reject, _STATES, queued=_reject, leased=NOT_WAITING, running=NOT_WAITING, done=OVER),
    row(Condemn, _STATES, queued=NEVER_LEASED, leased=_condemn, running=_condemn, done=OVER),
    row(Bereave, _STATES, queued=NEVER_LEASED, leased=_bereave, running=_bereave, done=OVER),
)


def apply(books: State, job_id: str, event: Event) -> None:
    """Look the event up in the row of the job's state, and do what stands there."""
    job = books.jobs.get(job_id)
    if job is None:
        books.tell_bygone(job_id, f"{type(event).__name__} ignored: no such job, or it was forgotten")
        return
    TABLE[job.state, type(event)](books, job, event)

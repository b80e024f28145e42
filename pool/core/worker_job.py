"""A worker with a job: leased, running it, and clearing up after it.

It is judged by the job's deadline, and then by the time it takes to clear up; never by silence, for no runner beats
while a job runs.
"""

from __future__ import annotations

from pool.core import job_moves
from pool.core.blame import blame
from pool.core.books import Books
from pool.core.decisions import Condemn, Lease, Overdue
from pool.core.events import JobEnded, JobStarted, WorkerFreed
from pool.core.policy import CLEARING_S
from pool.core.records import JobRecord, StopReason, Verdict, WorkerRecord
from pool.core.worker_idle import become_idle
from pool.model import Outcome, WorkerState


def lease(books: Books, worker: WorkerRecord, event: Lease) -> None:
    job = books.jobs[event.job_id]
    if worker.client != job.client:
        worker.client, worker.bound_at = job.client, books.now
    worker.jobs += 1
    worker.job_id, worker.epoch, worker.leased_at = event.job_id, event.epoch, books.now
    books.editions.served(job.client, worker.edition)
    books.move_worker(worker, WorkerState.LEASED, f"leased to {event.job_id}, epoch {event.epoch}")
    job_moves.apply(books, event.job_id, event)
    worker.due = books.answer_deadline(job)


def _holds(books: Books, worker: WorkerRecord, event: JobStarted | JobEnded) -> bool:
    """Only answers to the present lease count; a runner can say what it likes."""
    if worker.job_id == event.job_id and worker.epoch == event.epoch:
        return True
    books.tell(worker, f"{type(event).__name__} ignored: {event.job_id} epoch {event.epoch} is not its lease")
    return False


def started(books: Books, worker: WorkerRecord, event: JobStarted) -> None:
    if _holds(books, worker, event):
        job_moves.apply(books, event.job_id, event)
        job = books.jobs[event.job_id]
        worker.due = books.answer_deadline(job)
        worker.code = job.code if job.cancelled_at is None else ""


def ended(books: Books, worker: WorkerRecord, event: JobEnded) -> None:
    if not _holds(books, worker, event):
        return
    job_moves.apply(books, event.job_id, event)
    worker.job_id = None
    if worker.leaving is not None:
        books.stop_worker(worker, worker.leaving)
    elif worker.jobs >= worker.jobs_limit:
        books.stop_worker(worker, StopReason.MAX_JOBS)
    else:
        worker.clearing, worker.due = True, books.now + CLEARING_S
        books.tell(worker, f"{event.job_id} ended {event.outcome}, clearing up")


def freed(books: Books, worker: WorkerRecord, event: WorkerFreed) -> None:
    if not worker.clearing or worker.epoch != event.epoch:
        books.tell(worker, f"WorkerFreed ignored: epoch {event.epoch} is not what it clears up after")
    elif event.dirty:
        books.tell(worker, f"dirty: {event.dirty}")
        books.stop_worker(worker, StopReason.DIRTY)
        blame(books, worker, f"was left dirty ({event.dirty})")
    else:
        worker.clearing = False
        become_idle(books, worker, "free")


def unanswered(books: Books, worker: WorkerRecord, _event: Overdue) -> None:
    """The worker owes an answer and did not give it: it is killed, and the job with it."""
    if worker.job_id is None:
        books.tell(worker, f"dirty: it was not free {CLEARING_S:g} s after its job")
        books.stop_worker(worker, StopReason.DIRTY)
        blame(books, worker, f"was not free {CLEARING_S:g} s after the job")
        return
    job = books.jobs[worker.job_id]
    reason, verdict = _judge(books, job)
    job_moves.apply(books, job.id, Condemn(verdict=verdict))
    books.stop_worker(worker, reason)
    if reason is StopReason.JOB_DEADLINE:
        blame(books, worker, f"did not answer at the job's deadline of {job.wall_s:g} s")


def _judge(books: Books, job: JobRecord) -> tuple[StopReason, Verdict]:
    """Why the worker is killed, and what becomes of its job."""
    grace_s = books.policy.kill_grace_s
    if books.pool.shutdown_at is not None and books.now >= books.pool.shutdown_at:
        return StopReason.SHUTDOWN, Verdict(
            Outcome.CANCELLED, "the pool shut down before the job ended; it was killed with its worker"
        )
    if job.cancelled_at is not None:
        return StopReason.JOB_DEADLINE, Verdict(
            Outcome.CANCELLED, f"cancelled; its worker did not answer within {grace_s:g} s and was killed with it"
        )
    return StopReason.JOB_DEADLINE, Verdict(
        Outcome.TIMEOUT,
        f"over its wall limit of {job.wall_s:g} s; its worker did not answer within {grace_s:g} s more"
        " and was killed with it",
    )

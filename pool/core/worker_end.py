"""A worker's end: it was wanted, or it came by itself. A job that is with it then is lost with it.

A worker that is to go drains while it has a job, and is stopped when it has none.
"""

from __future__ import annotations

from pool.core import job_moves
from pool.core.blame import blame
from pool.core.books import Books
from pool.core.decisions import Bereave, Retire
from pool.core.events import ShutdownRequested, WorkerFailed, WorkerRemoved, WorkerVanished
from pool.core.records import StopReason, WorkerRecord
from pool.model import WorkerState


def stop(books: Books, worker: WorkerRecord, event: Retire) -> None:
    books.stop_worker(worker, event.reason)


def drain(books: Books, worker: WorkerRecord, event: Retire) -> None:
    if worker.clearing:
        books.stop_worker(worker, event.reason)
    else:
        books.drain_worker(worker, event.reason)


def shut_down(books: Books, worker: WorkerRecord, _event: ShutdownRequested) -> None:
    books.stop_worker(worker, StopReason.SHUTDOWN)


def shut_down_later(books: Books, worker: WorkerRecord, _event: ShutdownRequested) -> None:
    if worker.job_id is None:
        books.stop_worker(worker, StopReason.SHUTDOWN)
        return
    if worker.state is not WorkerState.DRAINING:
        books.drain_worker(worker, StopReason.SHUTDOWN)
    worker.due = books.answer_deadline(books.jobs[worker.job_id])


def vanish(books: Books, worker: WorkerRecord, event: WorkerFailed | WorkerVanished) -> None:
    books.tell(worker, f"vanished: {event.reason}")
    _lose_job(books, worker, f"worker {worker.id} vanished ({event.reason})")
    books.stop_worker(worker, StopReason.VANISHED)
    if isinstance(event, WorkerVanished):
        blame(books, worker, f"vanished ({event.reason})")


def gone(books: Books, worker: WorkerRecord, _event: WorkerRemoved) -> None:
    _lose_job(books, worker, f"the container of worker {worker.id} was removed")
    books.drop_worker(worker)


def _lose_job(books: Books, worker: WorkerRecord, reason: str) -> None:
    if worker.job_id is not None:
        job_id, worker.job_id = worker.job_id, None
        job_moves.apply(books, job_id, Bereave(reason=reason))

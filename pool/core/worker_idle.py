"""A worker without a job: it is judged by its beats, and by nothing else.

A worker that is silent for a while is probed, and one that is silent still is replaced.
"""

from __future__ import annotations

from pool.core.books import Books
from pool.core.decisions import Overdue
from pool.core.events import BeatHeard, ProbeWorker
from pool.core.policy import MISSED_BEATS, SUSPECT_BEATS
from pool.core.records import StopReason, WorkerRecord
from pool.model import WorkerState


def become_idle(books: Books, worker: WorkerRecord, text: str) -> None:
    worker.last_used, worker.code = books.now, ""
    worker.due = books.now + MISSED_BEATS * books.policy.heartbeat_s
    books.move_worker(worker, WorkerState.IDLE, text)


def beat(books: Books, worker: WorkerRecord, _event: BeatHeard) -> None:
    worker.due = books.now + MISSED_BEATS * books.policy.heartbeat_s


def suspect(books: Books, worker: WorkerRecord, _event: Overdue) -> None:
    worker.due = books.now + SUSPECT_BEATS * books.policy.heartbeat_s
    books.move_worker(worker, WorkerState.SUSPECT, f"silent for {MISSED_BEATS} beats, probed")
    books.emit(ProbeWorker(worker_id=worker.id, cause=books.cause))


def clear(books: Books, worker: WorkerRecord, _event: BeatHeard) -> None:
    worker.due = books.now + MISSED_BEATS * books.policy.heartbeat_s
    books.move_worker(worker, WorkerState.IDLE, "beats again")


def silent(books: Books, worker: WorkerRecord, _event: Overdue) -> None:
    books.stop_worker(worker, StopReason.HEARTBEAT)

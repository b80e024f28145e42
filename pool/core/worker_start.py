"""A worker's start: it is ready, or it is a failed start, which its pool's breaker or its data's edition counts.

While it starts, a worker is judged by the boot deadline and by nothing else.
"""

from __future__ import annotations

from dataclasses import replace

from pool.core.books import Books
from pool.core.decisions import Overdue
from pool.core.events import WorkerFailed, WorkerReady, WorkerRemoved, WorkerVanished
from pool.core.records import StopReason, WorkerRecord
from pool.core.worker_idle import become_idle


def ready(books: Books, worker: WorkerRecord, event: WorkerReady) -> None:
    worker.ready_at = books.now
    if not event.shareable and books.policy.reuse_scope == "any":
        books.policy = replace(books.policy, reuse_scope="client")
        books.tell(books.pool, f"{worker.id} is not isolated in full: from now on a worker serves one client only")
    books.breaker.close()
    if books.editions.ready(worker.edition):
        _make_elders_worn(books)
    become_idle(books, worker, f"ready after {books.now - worker.started_at:.3g} s")


def _make_elders_worn(books: Books) -> None:
    """The pool's data sets have a newer content, and a worker has it: the others go when their successors are there."""
    current = books.editions.current
    for worker in books.workers.values():
        if worker.edition < current:
            books.editions.mixed = True
            if worker.leaving is None:
                worker.worn, worker.retire_at = StopReason.DATASET, books.now
    books.tell(books.pool, f"data {current} is current; workers on older data are replaced, one after another")


def failed(books: Books, worker: WorkerRecord, event: WorkerFailed | WorkerVanished) -> None:
    permanent = isinstance(event, WorkerFailed) and event.permanent
    _count_failure(books, worker, event.reason, permanent=permanent)
    books.stop_worker(worker, StopReason.START_FAILED)


def overdue(books: Books, worker: WorkerRecord, _event: Overdue) -> None:
    _count_failure(books, worker, f"{worker.id} was not ready within {books.policy.boot_timeout_s:g} s")
    books.stop_worker(worker, StopReason.BOOT_TIMEOUT)


def gone(books: Books, worker: WorkerRecord, _event: WorkerRemoved) -> None:
    _count_failure(books, worker, f"the container of {worker.id} went away before it was ready")
    books.drop_worker(worker)


def _count_failure(books: Books, worker: WorkerRecord, reason: str, *, permanent: bool = False) -> None:
    if worker.edition > books.editions.current:
        books.editions.failed(worker.id, reason, permanent=permanent, now=books.now)
        books.tell(worker, f"start failed: {reason}")
        books.tell(books.pool, f"data {worker.edition} was tried and failed, the older one stays: {reason}")
        return
    books.breaker.failed(reason, permanent=permanent, now=books.now)
    if books.breaker.open:
        books.editions.forget_seen()
    books.tell(worker, f"start failed: {reason}")
    books.tell(books.pool, f"{books.breaker.failures} failed starts in a row, {worker.id} the last: {reason}")

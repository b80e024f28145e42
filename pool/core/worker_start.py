"""How a worker comes: it is started, or an earlier daemon has left it and this one adopts it.

    STARTING ──WorkerReady──▶ IDLE           FOUND ──WorkerAdopted──▶ IDLE, CLEANING
       └─failed, overdue──▶ STOPPING           └─silent, failed, unusable──▶ STOPPING

A failed start opens the breaker or counts against new data sets; a worker that cannot be adopted does neither.
"""

from __future__ import annotations

from dataclasses import replace

from pool.core.events import Tick, WorkerAdopted, WorkerFailed, WorkerFound, WorkerReady, WorkerVanished
from pool.core.policy import ADOPTION_S, CLEANING_S
from pool.core.records import StopReason, WorkerRecord
from pool.core.state import State
from pool.model import WorkerState

# ---- start ----


def ready(pool: State, worker: WorkerRecord, event: WorkerReady) -> None:
    worker.ready_at = pool.now
    _note_isolation(pool, worker, shareable=event.shareable)
    pool.breaker.close()
    if pool.editions.ready(worker.edition):
        replace_older_editions(pool)
        pool.note(pool, f"data sets {worker.edition} are in use; workers with older ones are replaced one by one")
    pool.free_worker(worker, f"ready after {pool.now - worker.started_at:.3g} s")


def _note_isolation(pool: State, worker: WorkerRecord, *, shareable: bool) -> None:
    if not shareable and pool.policy.reuse_scope == "any":
        pool.policy = replace(pool.policy, reuse_scope="client")
        pool.note(pool, f"the isolation of {worker.id} is incomplete: from now on a worker serves one client only")


def start_failed(pool: State, worker: WorkerRecord, event: WorkerFailed | WorkerVanished) -> None:
    permanent = isinstance(event, WorkerFailed) and event.permanent
    count_failed_start(pool, worker, event.reason, permanent=permanent)
    pool.stop_worker(worker, StopReason.START_FAILED)


def start_overdue(pool: State, worker: WorkerRecord, _event: Tick) -> None:
    count_failed_start(pool, worker, f"{worker.id} was not ready within {pool.policy.boot_timeout_s:g} s")
    pool.stop_worker(worker, StopReason.BOOT_TIMEOUT)


def count_failed_start(pool: State, worker: WorkerRecord, reason: str, *, permanent: bool = False) -> None:
    """A failed start on new data sets counts against these, any other against the pool."""
    pool.note(worker, f"start failed: {reason}")
    if worker.edition > pool.editions.current:
        pool.editions.failed(worker.id, reason, permanent=permanent, now=pool.now)
        pool.note(pool, f"no worker can be started with data sets {worker.edition}, the older ones stay: {reason}")
        return
    pool.breaker.failed(reason, permanent=permanent, now=pool.now)
    if pool.breaker.open:
        pool.editions.forget_seen()
    pool.note(pool, f"{pool.breaker.failures} failed starts in a row, the last of {worker.id}: {reason}")


def replace_older_editions(pool: State) -> None:
    """The data sets have newer content: workers on older content are replaced, one by one."""
    for worker in pool.workers.values():
        if worker.edition < pool.editions.current:
            pool.editions.mixed = True
            if worker.leaving is None:
                worker.worn, worker.retire_at = StopReason.DATASET, pool.now


def find(pool: State, event: WorkerFound) -> None:
    """Make the record of a worker that is there already."""
    worker = pool.take_over(event.worker_id, started_at=event.started_at, edition=event.edition)
    worker.client, worker.bound_at, pool.resize = event.client, pool.now, False  # more may be found
    pool.note(worker, "left by an earlier daemon")
    if sum(each.leaving is None for each in pool.workers.values()) > pool.policy.max_workers:
        pool.stop_worker(worker, StopReason.RESIZE)


def adopted(pool: State, worker: WorkerRecord, event: WorkerAdopted) -> None:
    worker.ready_at, worker.jobs = pool.now, min(event.jobs, worker.jobs_limit)
    _note_isolation(pool, worker, shareable=event.shareable)
    if worker.edition:
        pool.editions.ready(worker.edition)
    if event.unusable is not None:
        pool.stop_worker(worker, event.unusable)
    elif event.jobs and worker.client is None and pool.policy.reuse_scope == "client":
        pool.stop_worker(worker, StopReason.FOREIGN)
    elif worker.jobs >= worker.jobs_limit:
        pool.stop_worker(worker, StopReason.MAX_JOBS)
    elif event.cleaning:
        worker.due = pool.now + CLEANING_S
        pool.move(worker, WorkerState.CLEANING, "adopted; it cleans up after its last job")
    else:
        pool.free_worker(worker, "adopted")


def not_adopted(pool: State, worker: WorkerRecord, _event: Tick) -> None:
    pool.note(worker, f"its runner did not prove itself within {ADOPTION_S:g} s")
    pool.stop_worker(worker, StopReason.NOT_ADOPTED)


def not_adoptable(pool: State, worker: WorkerRecord, event: WorkerFailed | WorkerVanished) -> None:
    pool.note(worker, f"cannot be adopted: {event.reason}")
    pool.stop_worker(worker, StopReason.NOT_ADOPTED)

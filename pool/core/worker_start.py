"""How a worker comes: it is started, or an earlier daemon has left it and this one adopts it.

    STARTING ──WorkerReady──▶ IDLE           FOUND ──WorkerAdopted──▶ IDLE, LEASED, CLEANING, DRAINING
       └─failed, overdue──▶ STOPPING           └─silent, failed, unusable──▶ STOPPING

A failed start opens the breaker or counts against new data sets; a worker that cannot be adopted does neither.
"""

from __future__ import annotations

from dataclasses import replace

from pool.core import events as ev
from pool.core.job_transitions import NOT_RUN, enqueue, finish
from pool.core.policy import ADOPTION_S, CLEANING_S, answer_deadline
from pool.core.records import JobRecord, PendingEnd, StopReason, WorkerRecord
from pool.core.state import State
from pool.core.worker_end import after_removal, lose, lose_job
from pool.model import JobState, Outcome, WorkerState

#: The weight of the latest start in the mean.
_START_WEIGHT = 0.3

# ---- start ----


def connected(pool: State, worker: WorkerRecord, _event: ev.WorkerConnected) -> None:
    worker.connected = True
    pool.note(worker, "its runner has connected")


def ready(pool: State, worker: WorkerRecord, event: ev.WorkerReady) -> None:
    worker.ready_at = pool.now
    _note_isolation(pool, worker, shareable=event.shareable)
    pool.breaker.close()
    if pool.editions.ready(worker.edition):
        replace_older_editions(pool)
        pool.note(pool, f"data sets {worker.edition} are in use; workers with older ones are replaced one by one")
    start_s = pool.now - worker.started_at
    pool.start_s += (start_s - pool.start_s) * (_START_WEIGHT if pool.start_s else 1.0)
    if pool.starts.ready(worker.id, pool.now):
        pool.note(pool, f"from now on at most {pool.starts.limit} start at the same time, by how long starts took")
    pool.free_worker(worker, f"ready after {start_s:.3g} s")


def _note_isolation(pool: State, worker: WorkerRecord, *, shareable: bool) -> None:
    if not shareable and pool.policy.reuse_scope == "any":
        pool.policy = replace(pool.policy, reuse_scope="client")
        pool.note(pool, f"the isolation of {worker.id} is incomplete: from now on a worker serves one client only")


def start_failed(pool: State, worker: WorkerRecord, event: ev.WorkerFailed | ev.WorkerVanished) -> None:
    permanent = isinstance(event, ev.WorkerFailed) and event.permanent
    count_failed_start(pool, worker, event.reason, permanent=permanent)
    pool.stop_worker(worker, StopReason.START_FAILED)


def start_overdue(pool: State, worker: WorkerRecord, _event: ev.Tick) -> None:
    progress = "connected and did not become ready" if worker.connected else "has not connected"
    reason = f"{worker.id} was not ready within {pool.policy.boot_timeout_s:g} s: its runner {progress}"
    count_failed_start(pool, worker, reason)
    pool.stop_worker(worker, StopReason.BOOT_TIMEOUT, failure=reason)


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


def find(pool: State, event: ev.WorkerFound) -> None:
    """Make the record of a worker that an earlier daemon started."""
    worker = pool.take_over(event.worker_id, started_at=event.started_at, edition=event.edition)
    worker.client, worker.bound_at, pool.resize = event.client, pool.now, False  # more may be found
    pool.note(worker, "left by an earlier daemon")
    if sum(each.leaving is None for each in pool.workers.values()) > pool.policy.max_workers:
        pool.stop_worker(worker, StopReason.RESIZE)


def adopted(pool: State, worker: WorkerRecord, event: ev.WorkerAdopted) -> None:
    worker.ready_at, worker.jobs = pool.now, min(event.jobs, worker.jobs_limit)
    _note_isolation(pool, worker, shareable=event.shareable)
    if worker.edition:
        pool.editions.ready(worker.edition)
    unusable = worker.leaving or event.unusable or _why_worn(pool, worker)
    job = worker.job
    if job is not None and event.has_job:
        _go_on(pool, worker, job, elapsed_s=event.elapsed_s)
        if unusable is not None and unusable is not StopReason.MAX_JOBS:
            worker.leaving = unusable
            pool.move(worker, WorkerState.DRAINING, f"takes no more jobs: {unusable}")
        return
    if job is not None:
        _take_back(pool, worker, job, event)
    if unusable is not None:
        pool.stop_worker(worker, unusable)
    elif event.cleaning:
        pool.set_due(worker, pool.now + CLEANING_S)
        pool.move(worker, WorkerState.CLEANING, "adopted; it cleans up after its last job")
    else:
        pool.free_worker(worker, "adopted")


def _why_worn(pool: State, worker: WorkerRecord) -> StopReason | None:
    if worker.jobs and worker.client is None and pool.policy.reuse_scope == "client":
        return StopReason.FOREIGN
    return StopReason.MAX_JOBS if worker.jobs >= worker.jobs_limit else None


def _go_on(pool: State, worker: WorkerRecord, job: JobRecord, *, elapsed_s: float) -> None:
    """The job that was left to this worker runs, or has ended and its answer is held."""
    worker.leased_at = job.started_at = pool.now - min(elapsed_s, job.wall_s)
    pool.move(worker, WorkerState.LEASED, f"adopted with {job.id}")
    pool.move(job, JobState.RUNNING, f"goes on; {worker.id} is adopted")
    worker.code = job.code
    if job.cancelled_at is not None:
        job.cancelled_at = pool.now
        pool.commands.append(ev.KillJob(worker_id=worker.id, job_id=job.id, epoch=worker.epoch, cause=pool.cause))
    due = answer_deadline(
        job, leased_at=worker.leased_at, kill_grace_s=pool.policy.kill_grace_s, shutdown_at=pool.shutdown_at
    )
    pool.set_due(worker, due)


def _take_back(pool: State, worker: WorkerRecord, job: JobRecord, event: ev.WorkerAdopted) -> None:
    """The job was left to this worker, which does not have it. One that was never sent waits again."""
    worker.job = None
    if event.epoch >= worker.epoch or event.unusable is StopReason.UNKNOWN_JOB:
        if lose(pool, job, f"worker {worker.id} has neither the job that was left to it nor its answer"):
            after_removal(pool, job)
    elif job.cancelled_at is not None or pool.shutdown_at is not None:
        finish(pool, job, PendingEnd(Outcome.CANCELLED, f"cancelled before it was sent to a worker; {NOT_RUN}"))
    else:
        job.worker_id, job.attempt = None, job.attempt - 1
        pool.move(job, JobState.QUEUED, f"waits again: it was never sent to {worker.id}")
        enqueue(pool, job)


def not_adopted(pool: State, worker: WorkerRecord, _event: ev.Tick) -> None:
    reason = f"its runner did not prove itself within {ADOPTION_S:g} s"
    pool.note(worker, reason)
    lose_job(pool, worker, f"worker {worker.id} was left by an earlier daemon, and {reason}")
    pool.stop_worker(worker, StopReason.NOT_ADOPTED)


def not_adoptable(
    pool: State, worker: WorkerRecord, event: ev.WorkerFailed | ev.WorkerVanished | ev.WorkerFrozen
) -> None:
    pool.note(worker, f"cannot be adopted: {event.reason}")
    lose_job(pool, worker, f"worker {worker.id} was left by an earlier daemon and cannot be adopted ({event.reason})")
    pool.stop_worker(worker, StopReason.NOT_ADOPTED)

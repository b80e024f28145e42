"""The end of a worker that fails or is gone, what becomes of its job, and whether it counts against the job's code."""

from __future__ import annotations

from pool.core.events import WorkerFailed, WorkerFrozen, WorkerRemoved, WorkerVanished
from pool.core.job_transitions import enqueue, finish, reject_waiting
from pool.core.records import JobRecord, PendingEnd, PoolPhase, StopReason, WorkerRecord
from pool.core.state import State
from pool.model import JobState, Outcome, WorkerState


def stop_unclean(pool: State, worker: WorkerRecord, what: str) -> None:
    pool.note(worker, what)
    pool.stop_worker(worker, StopReason.RESIDUE)
    count_against_code(pool, worker, what)


def vanished(pool: State, worker: WorkerRecord, event: WorkerFailed | WorkerVanished) -> None:
    pool.note(worker, f"vanished: {event.reason}")
    pool.stop_worker(worker, StopReason.VANISHED)
    if isinstance(event, WorkerVanished):
        if event.has_job and worker.job is not None:
            worker.code = worker.job.code
        worker.blamed = worker.code if pool.state is not PoolPhase.STOPPING else ""
        count_against_code(pool, worker, f"vanished ({event.reason})")  # first: refused code is not tried again
    lose_job(pool, worker, f"worker {worker.id} vanished ({event.reason})")


def frozen(pool: State, worker: WorkerRecord, event: WorkerFrozen) -> None:
    """It may go on at any moment, so it is killed. This counts against no code: a job cannot stop its runner."""
    pool.note(worker, f"is frozen: {event.reason}")
    pool.stop_worker(worker, StopReason.FROZEN)
    lose_job(pool, worker, f"worker {worker.id} was frozen ({event.reason})")


def removed(pool: State, worker: WorkerRecord, event: WorkerRemoved) -> None:
    if worker.blamed:
        _judge(pool, worker, engine_away=event.engine_away)
    wanted = worker.state is WorkerState.STOPPING
    job, worker.job = worker.job, None
    if job is not None and (
        job.pending_end is not None or lose(pool, job, f"the container of worker {worker.id} was removed")
    ):
        after_removal(pool, job)
    pool.drop_worker(worker, "container removed" if wanted else "container removed by somebody else")


def count_against_code(pool: State, worker: WorkerRecord, what: str) -> None:
    """A worker is lost. If that counts against code (see poison.py), remember it; it may be refused from now on."""
    code, worker.code = worker.code, ""
    if not code or pool.state is PoolPhase.STOPPING:
        return
    refused = pool.poison.killed(code, worker.id, what, now=pool.now)
    count, most = pool.poison.count(code, pool.now), pool.policy.poison_kills
    pool.note_past(code, f"cost {worker.id}: {what}")
    pool.note(pool, f"code {code} has cost {worker.id}, {count} of {most}: {what}")
    if refused:
        text = f"is refused for {pool.policy.poison_refuse_s:g} s"
        pool.note_past(code, text)
        pool.note(pool, f"code {code} {text}")
        if not worker.blamed:
            reject_waiting(pool, code, pool.poison.explain(code, pool.now))


def _judge(pool: State, worker: WorkerRecord, *, engine_away: bool) -> None:
    """The engine has removed a worker whose end was counted, or it is away and has probably ended the worker itself."""
    code = worker.blamed
    if not engine_away:
        if pool.poison.refused_s(code, pool.now) is not None:
            reject_waiting(pool, code, pool.poison.explain(code, pool.now))
        return
    freed = pool.poison.take_back(code, worker.id)
    text = "not counted, because the engine was away" + ("; it is not refused any more" if freed else "")
    pool.note_past(code, f"{worker.id}: {text}")
    pool.note(pool, f"code {code}, {worker.id}: {text}")


# ---- its job ----


def lose(pool: State, job: JobRecord, reason: str) -> bool:
    """Its worker is of no use any more: the job ends, unless it may be tried again. Returns whether it may.

    Then the caller calls `after_removal` once no process of this attempt is left.
    """
    unknown = f"{reason}; whether the job had an effect is unknown"
    if job.pending_end is None and _may_retry(pool, job):
        job.lost, job.pending_end = unknown, PendingEnd(Outcome.LOST, unknown)
        pool.note(job, f"attempt {job.attempt} is lost: {reason}; it may be tried again")
        return True
    finish(pool, job, job.pending_end or PendingEnd(Outcome.LOST, unknown))
    return False


def after_removal(pool: State, job: JobRecord) -> None:
    """The container is gone: the job waits again if that is still possible, or ends as it was going to end."""
    assert job.pending_end is not None, "its worker was being killed"
    if not (job.lost and _may_retry(pool, job)):
        finish(pool, job, job.pending_end)
        return
    if job.use is not None:
        job.use.took_s = pool.now - job.leased_at
        pool.backlog.uses.append(job.use)
    job.worker_id = job.started_at = job.pending_end = job.use = None
    job.waits_since = pool.now
    pool.move(job, JobState.QUEUED, f"waits for attempt {job.attempt + 1} of {1 + job.retries}")
    enqueue(pool, job)


def _may_retry(pool: State, job: JobRecord) -> bool:
    """Whether the job gets another attempt after a fault that was not its own: it has one left, and the pool goes on.

    Code that has cost so many workers that it is refused is at fault itself.
    """
    return (
        job.attempt <= job.retries
        and job.cancelled_at is None
        and pool.state is not PoolPhase.STOPPING
        and pool.poison.refused_s(job.code, pool.now) is None
    )


def kill_with_worker(pool: State, job: JobRecord, end: PendingEnd) -> None:
    """Its worker is being killed; the job ends when the container is gone."""
    job.pending_end = end
    pool.note(job, f"killed together with its worker; {end.outcome} once the container is gone")


def lose_job(pool: State, worker: WorkerRecord, reason: str) -> None:
    """The worker is as good as gone, and is stopped now."""
    if worker.job is not None and not lose(pool, worker.job, reason):
        worker.job = None

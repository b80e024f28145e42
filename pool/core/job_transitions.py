"""A job from its submission to its end.

    JobSubmitted ─▶ QUEUED ──lease──▶ LEASED ──JobStarted──▶ RUNNING ──JobEnded──▶ DONE, with the worker's outcome
                      │                 ├──JobEnded: it was short──┼─────────────────▶ DONE, with the worker's outcome
                      │                 └──────────────────────────┴──worker lost────▶ DONE, lost or its pending end
                      └──cancel, shutdown, queue timeout, code refused───────────▶ DONE, it did not run
    LEASED, RUNNING ──worker lost, and its submitter allowed a retry──▶ QUEUED, when the container is gone

A job that is killed together with its worker ends only when the container is gone. So a client that receives `timeout`
or `cancelled` can rely on it that nothing of the job is left. For the same reason the next
attempt begins after that. Only a container of an Engine that is away may still be ending.
"""

from __future__ import annotations

from pool.core import events as ev
from pool.core.backlog import MOST_UNCOUNTED
from pool.core.policy import CLEANING_S, answer_deadline
from pool.core.records import HistoryEntry, JobRecord, PendingEnd, PoolPhase, StopReason, WorkerRecord
from pool.core.refusals import refusal
from pool.core.state import Ignore, Illegal, InvalidTransition, State, Table, row, table
from pool.core.turns import Use
from pool.errors import DrainingError, PoolError
from pool.model import JobState, Outcome, StartKind, WorkerState

NOT_RUN = "it did not run"


# ---- submission ----


def submitted(pool: State, _: State, event: ev.JobSubmitted) -> None:
    """Give the job an idle worker at once, or a place in the backlog, or refuse it."""
    worker = None
    if pool.policy.running_per_client is None or pool.backlog.may_run(event.client):
        worker = choose_worker(pool, event.client)
    if (
        worker is None
        or event.code in pool.poison.refused
        or event.held_bytes + event.size_bytes > pool.policy.bytes_per_client
    ) and (why := refusal(pool, event, at_once=worker is not None)) is not None:
        _refuse(pool, event, why)
        return
    if pool.demand is not None:
        pool.demand.arrived(pool.now)
    job, dispatch = add(pool, event, submitted_at=pool.now), None
    if worker is not None:
        dispatch = lease(pool, worker, job, StartKind.PARKED)
        # A full pool starts no worker, and with one more job it has none too many.
        pool.resize = len(pool.workers) - pool.stopping < pool.policy.max_workers
    else:
        enqueue(pool, job)
    pool.commands.append(ev.Accept(job_id=job.id, attachment=event.attachment, dispatch=dispatch, cause=pool.cause))


def submitted_late(pool: State, _: State, event: ev.JobSubmitted) -> None:
    if event.follow_up and pool.state is PoolPhase.DRAINING:
        submitted(pool, pool, event)  # a draining pool finishes what it has accepted
        return
    draining = "The pool is draining and takes no new jobs until it is resumed."
    stopping = "The pool is shutting down and takes no new jobs."
    _refuse(pool, event, DrainingError(draining if pool.state is PoolPhase.DRAINING else stopping))


def _refuse(pool: State, event: ev.JobSubmitted, error: PoolError) -> None:
    pool.note_past(event.job_id, f"refused: {error.code}: {error.message}")
    pool.commands.append(ev.Refuse(job_id=event.job_id, error=error, attachment=event.attachment, cause=pool.cause))


# ---- acceptance and lease ----


def choose_worker(pool: State, client: str) -> WorkerRecord | None:
    """The idle worker for a job of this client, with data sets that are no older than those it has seen.

    With scope "client": one that the client has used already, else one that nobody has used. Among several the most
    recently used: its memory is warm, and the others can become old.
    """
    scope, edition = pool.policy.reuse_scope, pool.editions.seen.get(client, 0)
    chosen, best, idle = None, (False, float("-inf")), WorkerState.IDLE
    for worker in pool.workers.values():
        if worker.state is not idle or worker.edition < edition:
            continue
        own = scope == "client" and worker.client is not None
        if own and worker.client != client:
            continue
        if chosen is None or (own, worker.last_used) > best:
            chosen, best = worker, (own, worker.last_used)
    return chosen


def add(pool: State, event: ev.NewJob, *, submitted_at: float, by: str = "") -> JobRecord:
    """Make the record of a job. The caller gives it a worker or a place in the backlog. `by`: who has accepted it."""
    job = JobRecord(
        id=event.job_id,
        client=event.client,
        wall_s=event.wall_s,
        code=event.code,
        queue_timeout_s=event.queue_timeout_s,
        priority=event.priority,
        submitted_at=submitted_at,
        waits_since=submitted_at,
        retries=event.retries,
        loop=event.loop,
    )
    job.history.append(HistoryEntry(pool.now, job.id, job.state, f"accepted from uid {job.client}{by}", pool.cause))
    pool.jobs[job.id] = job
    return job


def lease(pool: State, worker: WorkerRecord, job: JobRecord, start: StartKind) -> ev.Dispatch:
    """Give an idle worker a job that waits, or that has just been accepted. The caller adds the command."""
    if worker.client != job.client:
        worker.client, worker.bound_at = job.client, pool.now
    worker.jobs, pool.epoch = worker.jobs + 1, pool.epoch + 1
    worker.job, worker.epoch, worker.leased_at = job, pool.epoch, pool.now
    worker.due = pool.now + job.wall_s + pool.policy.kill_grace_s
    pool.wake_at = min(pool.wake_at, worker.due)
    job.worker_id, job.leased_at, job.attempt, job.lost = worker.id, pool.now, job.attempt + 1, ""
    job.use = Use(job.client, job.loop)
    pool.backlog.uses.append(job.use)
    if len(pool.backlog.uses) >= MOST_UNCOUNTED:
        pool.backlog.count()
    if pool.editions.mixed:
        pool.editions.served(job.client, worker.edition)
    pool.move(worker, WorkerState.LEASED, f"leased to {job.id}")
    pool.move(job, JobState.LEASED, f"leased by {worker.id} ({start})")
    return ev.Dispatch(
        worker_id=worker.id,
        job_id=job.id,
        epoch=worker.epoch,
        attempt=job.attempt,
        start=start,
        at=pool.now,
        cause=pool.cause,
    )


def enqueue(pool: State, job: JobRecord) -> None:
    deadline = None if job.queue_timeout_s is None else job.waits_since + job.queue_timeout_s
    pool.backlog.push(job.id, job.client, loop=job.loop, priority=job.priority, deadline=deadline)
    if deadline is not None:
        pool.wake_at = min(pool.wake_at, deadline)


def restore(pool: State, _: State, event: ev.JobRestored) -> None:
    """A job of an earlier daemon waits again, or is with a worker that was found. The next Tick checks the sizes."""
    job = add(pool, event, submitted_at=min(event.submitted_at, pool.now), by=" by an earlier daemon")
    job.attempt, job.lost = event.attempt, event.lost
    pool.resize = False
    if event.left is None:
        if job.lost:
            job.waits_since = pool.now
            pool.note(job, f"attempt {job.attempt} was lost: {job.lost}")
        enqueue(pool, job)
        return
    worker = pool.workers[event.left.worker_id]
    worker.job, job.worker_id = job, worker.id
    worker.epoch, worker.leased_at = event.left.epoch, event.left.at
    pool.move(job, JobState.LEASED, f"left to {worker.id} by an earlier daemon")


def finish(pool: State, job: JobRecord, end: PendingEnd, *, text: str = "", attachment: object = None) -> None:
    """The job is done. Its record is dropped; its history goes to the daemon, which keeps it with the result."""
    pool.move(job, JobState.DONE, text or ": ".join(filter(None, end)))
    del pool.jobs[job.id]
    if job.use is not None:
        job.use.took_s = pool.now - job.leased_at
        pool.backlog.uses.append(job.use)
    pool.commands.append(
        ev.Finish(
            job_id=job.id,
            outcome=end.outcome,
            reason=end.reason,
            worker_id=job.worker_id,
            attempt=job.attempt,
            started_at=job.started_at,
            attachment=attachment,
            history=job.history,
            cause=pool.cause,
        )
    )


def finish_waiting(pool: State, job: JobRecord, outcome: Outcome, why: str) -> None:
    """The job ends while it waits, for its first attempt or for another one."""
    pool.backlog.remove(job.id)
    not_run = f"it was not run again after attempt {job.attempt}" if job.attempt else NOT_RUN
    finish(pool, job, PendingEnd(outcome, "; ".join(filter(None, (why, not_run, job.lost)))))


def reject_waiting(pool: State, code: str, reason: str) -> None:
    """Code is refused from now on: end the accepted jobs that wait with it."""
    waiting = [pool.jobs[job_id] for job_id in pool.backlog.waiting if pool.jobs[job_id].code == code]
    for job in waiting:
        pool.backlog.remove(job.id)
        reject(pool, job, reason)


def reject(pool: State, job: JobRecord, reason: str) -> None:
    """Its code is refused: it ends, and does not wait any more."""
    finish(pool, job, PendingEnd(Outcome.LOST if job.attempt else Outcome.REJECTED, reason))


# ---- in the worker ----


def started(pool: State, worker: WorkerRecord, event: ev.JobStarted) -> None:
    """Its worker has reported that it runs. A short job has no such event."""
    job = worker.job
    if job is None or job.state is not JobState.LEASED:
        raise InvalidTransition(worker, event, "its job has started before")
    job.started_at = pool.now
    pool.move(job, JobState.RUNNING, f"started by {worker.id}")
    due = pool.now + job.wall_s + pool.policy.kill_grace_s
    if job.cancelled_at is not None or pool.shutdown_at is not None:
        due = answer_deadline(
            job, leased_at=worker.leased_at, kill_grace_s=pool.policy.kill_grace_s, shutdown_at=pool.shutdown_at
        )
    pool.set_due(worker, due)
    worker.code = job.code
    pool.resize = False


def ended(pool: State, worker: WorkerRecord, event: ev.JobEnded) -> None:
    """Its worker has reported its end. The worker cleans up, or is stopped if it has served its time."""
    job, worker.job = worker.job, None
    assert job is not None
    worker.code = job.code
    end = PendingEnd(event.outcome, event.reason)
    text = f"{event.outcome}, reported by the worker" + (f": {event.reason}" if event.reason else "")
    finish(pool, job, end, text=text, attachment=event.attachment)
    if worker.leaving is not None:
        pool.stop_worker(worker, worker.leaving)
    elif worker.jobs >= worker.jobs_limit:
        pool.stop_worker(worker, StopReason.MAX_JOBS)
    else:
        worker.due = pool.now + CLEANING_S
        pool.wake_at = min(pool.wake_at, worker.due)
        pool.move(worker, WorkerState.CLEANING, f"{job.id} ended {event.outcome}; cleaning up")
        pool.resize = False  # it is free in a moment, and then the sizes are checked


# ---- cancelled, withdrawn, timed out ----


def _cancel_waiting(pool: State, job: JobRecord, _event: ev.CancelRequested) -> None:
    finish_waiting(pool, job, Outcome.CANCELLED, "cancelled while it waited in the backlog")


def _cancel_leased(pool: State, job: JobRecord, _event: ev.CancelRequested) -> None:
    assert job.worker_id is not None
    if job.cancelled_at is not None or (job.pending_end is not None and not job.lost):
        return
    worker = pool.workers[job.worker_id]
    job.cancelled_at, job.code, worker.code = pool.now, "", ""
    if job.pending_end is not None:  # it was to be tried again
        worker.job = None
        finish(pool, job, job.pending_end)
        return
    if worker.state is WorkerState.FOUND:
        pool.note(job, f"cancelled; {worker.id} is asked to kill it when it is adopted")
        return
    due = answer_deadline(
        job, leased_at=worker.leased_at, kill_grace_s=pool.policy.kill_grace_s, shutdown_at=pool.shutdown_at
    )
    pool.set_due(worker, due)
    pool.note(job, f"cancelled; {worker.id} is asked to kill it")
    pool.commands.append(ev.KillJob(worker_id=worker.id, job_id=job.id, epoch=worker.epoch, cause=pool.cause))


def _withdraw_waiting(pool: State, job: JobRecord, event: ev.JobWithdrawn) -> None:
    pool.backlog.remove(job.id)
    finish(pool, job, PendingEnd(event.outcome, event.reason))


def _withdraw_leased(pool: State, job: JobRecord, event: ev.JobWithdrawn) -> None:
    """The worker has not been sent the job, so it is free, or done if it was to leave after this job."""
    if job.pending_end is not None:
        return
    assert job.worker_id is not None
    worker = pool.workers[job.worker_id]
    worker.job, job.worker_id = None, None
    worker.jobs, job.attempt = worker.jobs - 1, job.attempt - 1
    earlier = f"; {job.attempt} earlier attempts were lost" if job.attempt else ""
    finish(pool, job, PendingEnd(event.outcome, event.reason + earlier))
    if worker.leaving is not None:
        pool.stop_worker(worker, worker.leaving)
    else:
        pool.free_worker(worker, f"free: {job.id} was withdrawn before it was sent")


def _queue_timeout(pool: State, job: JobRecord, _event: ev.Tick) -> None:
    waited_s, limit_s = pool.now - job.waits_since, job.queue_timeout_s or 0.0
    why = f"waited {waited_s:.3g} s in the backlog, over its queue timeout of {limit_s:g} s"
    finish_waiting(pool, job, Outcome.TIMEOUT, why)


def _shut_down_waiting(pool: State, job: JobRecord, event: ev.ShutdownRequested) -> None:
    if event.keep_waiting:
        pool.backlog.remove(job.id)
        del pool.jobs[job.id]
        pool.note_past(job.id, "kept for the next daemon")
        return
    finish_waiting(pool, job, Outcome.CANCELLED, "the pool shut down while the job waited in the backlog")


SAME = Ignore("the same job again", silent=True)
RUNS_ON = Ignore("it may run until the deadline of the shutdown", silent=True)
NOT_WAITING = Illegal("it does not wait")
SENT = Illegal("it was sent to its worker")

STATES = (JobState.QUEUED, JobState.LEASED, JobState.RUNNING)
TABLE: Table[JobState, JobRecord] = table(
    row(ev.JobSubmitted, STATES, queued=SAME, leased=SAME, running=SAME),
    row(ev.JobRestored, STATES, queued=SAME, leased=SAME, running=SAME),
    row(ev.JobWithdrawn, STATES, queued=_withdraw_waiting, leased=_withdraw_leased, running=SENT),
    row(ev.CancelRequested, STATES, queued=_cancel_waiting, leased=_cancel_leased, running=_cancel_leased),
    row(ev.ShutdownRequested, STATES, queued=_shut_down_waiting, leased=RUNS_ON, running=RUNS_ON),
    row(ev.Tick, STATES, queued=_queue_timeout, leased=NOT_WAITING, running=NOT_WAITING),
)


def apply(pool: State, job: JobRecord, event: ev.Event) -> None:
    """Do what the table says for the state of this job."""
    TABLE[job.state, type(event)](pool, job, event)

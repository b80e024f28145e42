"""What each event does to the pool as a whole: jobs that come, the operator's wishes, and the clock.

RUNNING ◀──Resume, Drain──▶ DRAINING          any ──ShutdownRequested──▶ STOPPING ──last worker gone──▶ STOPPED
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from pool.core import job_transitions, worker_transitions
from pool.core.events import (
    DrainRequested,
    EditionOffered,
    Event,
    JobSubmitted,
    Overdue,
    PardonRequested,
    RecycleRequested,
    Refuse,
    ResizeRequested,
    ResumeRequested,
    Retire,
    ShutdownRequested,
    Tick,
)
from pool.core.policy import choose_worker
from pool.core.records import JobRecord, PoolPhase, PoolRecord, StopReason, WorkerRecord
from pool.core.state import State
from pool.core.table import Ignore, Table, row, table
from pool.errors import BacklogFullError, DrainingError, PoisonedCodeError, PoolUnavailableError, Scalar
from pool.model import WorkerState

#: When to ask again where nothing better is known.
RETRY_S = 1.0
NO_FIELDS: Mapping[str, Scalar] = MappingProxyType({})

# ---- jobs that come ----


def _submitted(books: State, _pool: PoolRecord, event: JobSubmitted) -> None:
    if books.poison.refused_s(event.code, books.now) is not None:
        _refuse_poison(books, event)
        return
    breaker = books.breaker
    if breaker.open and not any(_serves(worker) for worker in books.workers.values()):
        retry_s = RETRY_S if breaker.retry_at is None else max(RETRY_S, breaker.retry_at - books.now)
        message = f"No worker can be started: {breaker.last_reason}"
        _refuse(books, event, PoolUnavailableError.code, message=message, retry_after_s=retry_s)
        return
    full = books.backlog.why_full(event.client)
    if full is not None and not _runs_at_once(books, event.client):
        _refuse(books, event, BacklogFullError.code, message=full, retry_after_s=RETRY_S)
        return
    _accept(books, event)


def _refuse_poison(books: State, event: JobSubmitted) -> None:
    code, now = event.code, books.now
    facts: dict[str, Scalar] = {
        "digest": code,
        "kills": books.poison.count(code, now),
        "history": books.poison.history(code, now),
    }
    message, left_s = books.poison.sentence(code, now), books.poison.refused_s(code, now)
    _refuse(books, event, PoisonedCodeError.code, message=message, retry_after_s=left_s, fields=facts)


def _serves(worker: WorkerRecord) -> bool:
    return worker.state in {WorkerState.IDLE, WorkerState.LEASED, WorkerState.SUSPECT}


def _runs_at_once(books: State, client: str) -> bool:
    idle = [worker for worker in books.workers.values() if worker.state is WorkerState.IDLE]
    return choose_worker(books.editions.fit(idle, client), client, reuse_scope=books.policy.reuse_scope) is not None


def _accept(books: State, event: JobSubmitted) -> None:
    job = JobRecord(
        id=event.job_id,
        client=event.client,
        wall_s=event.wall_s,
        priority=event.priority,
        code=event.code,
        queue_timeout_s=event.queue_timeout_s,
        submitted_at=books.now,
    )
    books.jobs[job.id] = job
    deadline = None if event.queue_timeout_s is None else books.now + event.queue_timeout_s
    books.backlog.push(job.id, job.client, priority=job.priority, deadline=deadline)
    books.arrival = job.id
    books.tell(job, f"accepted from {job.client}")


def _submitted_late(books: State, pool: PoolRecord, event: JobSubmitted) -> None:
    message = (
        "The pool is draining and takes no new jobs until it is resumed."
        if pool.state is PoolPhase.DRAINING
        else "The pool is shutting down and takes no new jobs."
    )
    _refuse(books, event, DrainingError.code, message=message)


def _refuse(
    books: State,
    event: JobSubmitted,
    code: str,
    *,
    message: str,
    retry_after_s: float | None = None,
    fields: Mapping[str, Scalar] = NO_FIELDS,
) -> None:
    books.tell_bygone(event.job_id, f"refused: {code}: {message}")
    books.emit(
        Refuse(
            job_id=event.job_id,
            code=code,
            message=message,
            retry_after_s=retry_after_s,
            fields=fields,
            cause=books.cause,
        )
    )


# ---- the operator's wishes ----


def _drain(books: State, pool: PoolRecord, _event: DrainRequested) -> None:
    pool.state = PoolPhase.DRAINING
    books.tell(pool, "draining: takes no new jobs")


def _resume(books: State, pool: PoolRecord, _event: ResumeRequested) -> None:
    pool.state = PoolPhase.RUNNING
    books.breaker.close()
    books.editions.retry(books.now)
    books.tell(pool, "resumed")


def _recycle(books: State, pool: PoolRecord, event: RecycleRequested) -> None:
    if event.worker_id is not None:
        worker_transitions.apply(books, event.worker_id, Retire(reason=StopReason.OPERATOR))
        return
    for worker in books.workers.values():
        if worker.leaving is None:
            worker.worn, worker.retire_at = StopReason.OPERATOR, books.now
    books.tell(pool, "every worker is to be replaced, one after another")


def _offer(books: State, pool: PoolRecord, event: EditionOffered) -> None:
    if event.edition <= books.editions.newest:
        books.tell(pool, f"EditionOffered ignored: data {event.edition} is not new")
    elif books.editions.offer(event.edition, books.now):
        books.breaker.close()  # what failed may have failed for the data
        books.tell(pool, f"data {event.edition} is current")
    else:
        books.tell(pool, f"data {event.edition} is offered, one worker is to try it")


def _pardon(books: State, pool: PoolRecord, event: PardonRequested) -> None:
    for code in books.poison.pardon(event.code):
        books.tell_bygone(code, "pardoned")
        books.tell(pool, f"code {code} is pardoned")


def _resize(books: State, pool: PoolRecord, event: ResizeRequested) -> None:
    books.policy = replace(books.policy, min_workers=event.min_workers, max_workers=event.max_workers)
    books.tell(pool, f"resized: {event.min_workers} to {event.max_workers} workers")
    staying = [worker for worker in books.workers.values() if worker.leaving is None]
    staying.sort(key=_cheapness)
    for worker in staying[: max(0, len(staying) - event.max_workers)]:
        worker_transitions.apply(books, worker.id, Retire(reason=StopReason.RESIZE))


def _cheapness(worker: WorkerRecord) -> tuple[bool, bool, float]:
    """Cheapest to lose first: not ready yet, then idle the longest, then those with a job."""
    return worker.state is WorkerState.LEASED, worker.state is not WorkerState.STARTING, worker.last_used


def _shut_down(books: State, pool: PoolRecord, event: ShutdownRequested) -> None:
    pool.state = PoolPhase.STOPPING
    pool.shutdown_at = event.deadline if pool.shutdown_at is None else min(pool.shutdown_at, event.deadline)
    books.tell(pool, f"shutting down; running jobs have {max(0.0, pool.shutdown_at - books.now):.3g} s")
    for job_id in list(books.backlog):
        job_transitions.apply(books, job_id, event)
    for worker in list(books.workers.values()):
        worker_transitions.apply(books, worker.id, event)


# ---- the clock ----


def _tick(books: State, _pool: PoolRecord, _event: Tick) -> None:
    """Deadlines are judged here and nowhere else, so that an answer that has arrived by then is heard first."""
    for worker in list(books.workers.values()):
        if worker.due is not None and worker.due <= books.now:
            worker_transitions.apply(books, worker.id, Overdue())
    for job_id in books.backlog.overdue(books.now):
        job_transitions.apply(books, job_id, Overdue())


GOING = Ignore("the pool is shutting down")
NOTHING_LEFT = Ignore("the pool has stopped")
NO_TIME = Ignore("the pool has stopped", silent=True)

_STATES = tuple(PoolPhase)
TABLE: Table[PoolPhase, PoolRecord] = table(
    row(
        JobSubmitted, _STATES,
        running=_submitted, draining=_submitted_late, stopping=_submitted_late, stopped=_submitted_late,
    ),
    row(
        DrainRequested, _STATES,
        running=_drain, draining=Ignore("the pool is draining already"), stopping=GOING, stopped=NOTHING_LEFT,
    ),
    row(ResumeRequested, _STATES, running=_resume, draining=_resume, stopping=GOING, stopped=NOTHING_LEFT),
    row(RecycleRequested, _STATES, running=_recycle, draining=_recycle, stopping=GOING, stopped=NOTHING_LEFT),
    row(EditionOffered, _STATES, running=_offer, draining=_offer, stopping=GOING, stopped=NOTHING_LEFT),
    row(PardonRequested, _STATES, running=_pardon, draining=_pardon, stopping=GOING, stopped=NOTHING_LEFT),
    row(ResizeRequested, _STATES, running=_resize, draining=_resize, stopping=GOING, stopped=NOTHING_LEFT),
    row(ShutdownRequested, _STATES, running=_shut_down, draining=_shut_down, stopping=_shut_down, stopped=NOTHING_LEFT),
    row(Tick, _STATES, running=_tick, draining=_tick, stopping=_tick, stopped=NO_TIME),
)  # fmt: skip


def apply(books: State, event: Event) -> None:
    TABLE[books.pool.state, type(event)](books, books.pool, event)

"""What each event does to a worker, by the state the worker is in.

    STARTING ──WorkerReady──▶ IDLE ──Lease──▶ LEASED ──JobEnded──▶ (clearing) ──WorkerFreed──▶ IDLE
    LEASED ──JobEnded──▶ STOPPING if that was its last job                (clearing) ──WorkerFreed(dirty)──▶ STOPPING
    STARTING, IDLE, SUSPECT, (clearing) ──Retire──▶ STOPPING     LEASED ──Retire──▶ DRAINING ──JobEnded──▶ STOPPING
    IDLE ──Overdue──▶ SUSPECT ──BeatHeard──▶ IDLE                      SUSPECT ──Overdue──▶ STOPPING
    any ──WorkerVanished──▶ STOPPING                                   any ──WorkerRemoved──▶ GONE

Liveness is judged by what the state can show: STARTING by the boot deadline, IDLE and SUSPECT by beats, a worker with a
job by that job's deadline and by nothing else. A record is dropped when it is GONE; an id without a record is gone.
"""

from __future__ import annotations

from dataclasses import replace

from pool.core import job_transitions
from pool.core.events import (
    BeatHeard,
    Bereave,
    Condemn,
    Event,
    JobEnded,
    JobStarted,
    Lease,
    Overdue,
    ProbeWorker,
    Reject,
    Retire,
    ShutdownRequested,
    WorkerFailed,
    WorkerFreed,
    WorkerReady,
    WorkerRemoved,
    WorkerVanished,
)
from pool.core.policy import CLEARING_S, MISSED_BEATS, SUSPECT_BEATS
from pool.core.records import JobRecord, PoolPhase, StopReason, Verdict, WorkerRecord
from pool.core.state import State
from pool.core.table import Ignore, Illegal, Table, row, table
from pool.model import Outcome, WorkerState

# ---- without a job ----


def _become_idle(books: State, worker: WorkerRecord, text: str) -> None:
    worker.last_used, worker.code = books.now, ""
    worker.due = books.now + MISSED_BEATS * books.policy.heartbeat_s
    books.move_worker(worker, WorkerState.IDLE, text)


def _beat(books: State, worker: WorkerRecord, _event: BeatHeard) -> None:
    worker.due = books.now + MISSED_BEATS * books.policy.heartbeat_s


def _suspect(books: State, worker: WorkerRecord, _event: Overdue) -> None:
    worker.due = books.now + SUSPECT_BEATS * books.policy.heartbeat_s
    books.move_worker(worker, WorkerState.SUSPECT, f"silent for {MISSED_BEATS} beats, probed")
    books.emit(ProbeWorker(worker_id=worker.id, cause=books.cause))


def _beat_again(books: State, worker: WorkerRecord, _event: BeatHeard) -> None:
    worker.due = books.now + MISSED_BEATS * books.policy.heartbeat_s
    books.move_worker(worker, WorkerState.IDLE, "beats again")


def _silent(books: State, worker: WorkerRecord, _event: Overdue) -> None:
    books.stop_worker(worker, StopReason.HEARTBEAT)


# ---- start ----


def _ready(books: State, worker: WorkerRecord, event: WorkerReady) -> None:
    worker.ready_at = books.now
    if not event.shareable and books.policy.reuse_scope == "any":
        books.policy = replace(books.policy, reuse_scope="client")
        books.tell(books.pool, f"{worker.id} is not isolated in full: from now on a worker serves one client only")
    books.breaker.close()
    if books.editions.ready(worker.edition):
        _make_elders_worn(books)
    _become_idle(books, worker, f"ready after {books.now - worker.started_at:.3g} s")


def _make_elders_worn(books: State) -> None:
    """The pool's data sets have a newer content, and a worker has it: the others go when their successors are there."""
    current = books.editions.current
    for worker in books.workers.values():
        if worker.edition < current:
            books.editions.mixed = True
            if worker.leaving is None:
                worker.worn, worker.retire_at = StopReason.DATASET, books.now
    books.tell(books.pool, f"data {current} is current; workers on older data are replaced, one after another")


def _start_failed(books: State, worker: WorkerRecord, event: WorkerFailed | WorkerVanished) -> None:
    permanent = isinstance(event, WorkerFailed) and event.permanent
    _count_failure(books, worker, event.reason, permanent=permanent)
    books.stop_worker(worker, StopReason.START_FAILED)


def _start_overdue(books: State, worker: WorkerRecord, _event: Overdue) -> None:
    _count_failure(books, worker, f"{worker.id} was not ready within {books.policy.boot_timeout_s:g} s")
    books.stop_worker(worker, StopReason.BOOT_TIMEOUT)


def _gone_before_ready(books: State, worker: WorkerRecord, _event: WorkerRemoved) -> None:
    _count_failure(books, worker, f"the container of {worker.id} went away before it was ready")
    books.drop_worker(worker)


def _count_failure(books: State, worker: WorkerRecord, reason: str, *, permanent: bool = False) -> None:
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


# ---- with a job ----


def _lease(books: State, worker: WorkerRecord, event: Lease) -> None:
    job = books.jobs[event.job_id]
    if worker.client != job.client:
        worker.client, worker.bound_at = job.client, books.now
    worker.jobs += 1
    worker.job_id, worker.epoch, worker.leased_at = event.job_id, event.epoch, books.now
    books.editions.served(job.client, worker.edition)
    books.move_worker(worker, WorkerState.LEASED, f"leased to {event.job_id}, epoch {event.epoch}")
    job_transitions.apply(books, event.job_id, event)
    worker.due = books.answer_deadline(job)


def _holds(books: State, worker: WorkerRecord, event: JobStarted | JobEnded) -> bool:
    """Only answers to the present lease count; a runner can say what it likes."""
    if worker.job_id == event.job_id and worker.epoch == event.epoch:
        return True
    books.tell(worker, f"{type(event).__name__} ignored: {event.job_id} epoch {event.epoch} is not its lease")
    return False


def _started(books: State, worker: WorkerRecord, event: JobStarted) -> None:
    if _holds(books, worker, event):
        job_transitions.apply(books, event.job_id, event)
        job = books.jobs[event.job_id]
        worker.due = books.answer_deadline(job)
        worker.code = job.code if job.cancelled_at is None else ""


def _ended(books: State, worker: WorkerRecord, event: JobEnded) -> None:
    if not _holds(books, worker, event):
        return
    job_transitions.apply(books, event.job_id, event)
    worker.job_id = None
    if worker.leaving is not None:
        books.stop_worker(worker, worker.leaving)
    elif worker.jobs >= worker.jobs_limit:
        books.stop_worker(worker, StopReason.MAX_JOBS)
    else:
        worker.clearing, worker.due = True, books.now + CLEARING_S
        books.tell(worker, f"{event.job_id} ended {event.outcome}, clearing up")


def _freed(books: State, worker: WorkerRecord, event: WorkerFreed) -> None:
    if not worker.clearing or worker.epoch != event.epoch:
        books.tell(worker, f"WorkerFreed ignored: epoch {event.epoch} is not what it clears up after")
    elif event.dirty:
        books.tell(worker, f"dirty: {event.dirty}")
        books.stop_worker(worker, StopReason.DIRTY)
        _blame(books, worker, f"was left dirty ({event.dirty})")
    else:
        worker.clearing = False
        _become_idle(books, worker, "free")


def _unanswered(books: State, worker: WorkerRecord, _event: Overdue) -> None:
    """The worker owes an answer and did not give it: it is killed, and the job with it."""
    if worker.job_id is None:
        books.tell(worker, f"dirty: it was not free {CLEARING_S:g} s after its job")
        books.stop_worker(worker, StopReason.DIRTY)
        _blame(books, worker, f"was not free {CLEARING_S:g} s after the job")
        return
    job = books.jobs[worker.job_id]
    reason, verdict = _judge(books, job)
    job_transitions.apply(books, job.id, Condemn(verdict=verdict))
    books.stop_worker(worker, reason)
    if reason is StopReason.JOB_DEADLINE:
        _blame(books, worker, f"did not answer at the job's deadline of {job.wall_s:g} s")


def _judge(books: State, job: JobRecord) -> tuple[StopReason, Verdict]:
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


# ---- end ----


def _stop(books: State, worker: WorkerRecord, event: Retire) -> None:
    books.stop_worker(worker, event.reason)


def _drain(books: State, worker: WorkerRecord, event: Retire) -> None:
    if worker.clearing:
        books.stop_worker(worker, event.reason)
    else:
        books.drain_worker(worker, event.reason)


def _shut_down(books: State, worker: WorkerRecord, _event: ShutdownRequested) -> None:
    books.stop_worker(worker, StopReason.SHUTDOWN)


def _shut_down_later(books: State, worker: WorkerRecord, _event: ShutdownRequested) -> None:
    if worker.job_id is None:
        books.stop_worker(worker, StopReason.SHUTDOWN)
        return
    if worker.state is not WorkerState.DRAINING:
        books.drain_worker(worker, StopReason.SHUTDOWN)
    worker.due = books.answer_deadline(books.jobs[worker.job_id])


def _vanish(books: State, worker: WorkerRecord, event: WorkerFailed | WorkerVanished) -> None:
    books.tell(worker, f"vanished: {event.reason}")
    _lose_job(books, worker, f"worker {worker.id} vanished ({event.reason})")
    books.stop_worker(worker, StopReason.VANISHED)
    if isinstance(event, WorkerVanished):
        _blame(books, worker, f"vanished ({event.reason})")


def _gone(books: State, worker: WorkerRecord, _event: WorkerRemoved) -> None:
    _lose_job(books, worker, f"the container of worker {worker.id} was removed")
    books.drop_worker(worker)


def _lose_job(books: State, worker: WorkerRecord, reason: str) -> None:
    if worker.job_id is not None:
        job_id, worker.job_id = worker.job_id, None
        job_transitions.apply(books, job_id, Bereave(reason=reason))


# ---- what is laid to the code ----

# Which ends of a worker are laid to the code that ran in it: the head of poison.py lists them.
#
# `WorkerRecord.code` is the code to blame, or empty: it is set when the job begins, and taken away when the job is
# cancelled or the worker is free again.


def _blame(books: State, worker: WorkerRecord, what: str) -> None:
    """The worker is lost; if code is to blame it is remembered, and once it has cost too many it is refused."""
    code, worker.code = worker.code, ""
    if not code or books.pool.state is PoolPhase.STOPPING:
        return
    refused = books.poison.killed(code, worker.id, what, now=books.now)
    count = books.poison.count(code, books.now)
    books.tell_bygone(code, f"cost {worker.id}: {what}")
    books.tell(books.pool, f"code {code} has cost {worker.id}, {count} of {books.policy.poison_kills}: {what}")
    if refused:
        _refuse_code(books, code)


def _refuse_code(books: State, code: str) -> None:
    """From now on; what waits already has been accepted, and ends."""
    sentence = books.poison.sentence(code, books.now)
    waiting = [job_id for job_id in books.backlog if books.jobs[job_id].code == code]
    for job_id in waiting:
        job_transitions.apply(books, job_id, Reject(reason=sentence))
    text = f"is refused for {books.policy.poison_refuse_s:g} s; {len(waiting)} waiting jobs were rejected"
    books.tell_bygone(code, text)
    books.tell(books.pool, f"code {code} {text}")


# ---- the table ----

BOOTING = Ignore("it is not ready yet; the boot deadline judges it", silent=True)
BUSY = Ignore("a worker with a job is judged by the job's deadline only", silent=True)
NO_LEASE = Ignore("it has no lease")
LEAVING = Ignore("it is leaving already")
GOING = Ignore("it is being stopped")
GONE = Ignore("no such worker, or it is gone")
READY_TWICE = Illegal("it has been ready before")
NOT_IDLE = Illegal("only an idle worker can be leased")
NO_DEADLINE = Illegal("it has no deadline")

_STATES = tuple(WorkerState)
TABLE: Table[WorkerState, WorkerRecord] = table(
    row(
        WorkerReady, _STATES,
        starting=_ready, idle=READY_TWICE, leased=READY_TWICE, suspect=READY_TWICE, draining=READY_TWICE,
        stopping=GOING, gone=GONE,
    ),
    row(  # the engine may report a start as failed after the runner has made contact
        WorkerFailed, _STATES,
        starting=_start_failed, idle=_vanish, leased=_vanish, suspect=_vanish, draining=_vanish,
        stopping=GOING, gone=GONE,
    ),
    row(
        WorkerVanished, _STATES,
        starting=_start_failed, idle=_vanish, leased=_vanish, suspect=_vanish, draining=_vanish,
        stopping=GOING, gone=GONE,
    ),
    row(
        WorkerRemoved, _STATES,
        starting=_gone_before_ready, idle=_gone, leased=_gone, suspect=_gone, draining=_gone,
        stopping=_gone, gone=GONE,
    ),
    row(
        BeatHeard, _STATES,
        starting=BOOTING, idle=_beat, leased=BUSY, suspect=_beat_again, draining=BUSY,
        stopping=GOING, gone=GONE,
    ),
    row(
        JobStarted, _STATES,
        starting=NO_LEASE, idle=NO_LEASE, leased=_started, suspect=NO_LEASE, draining=_started,
        stopping=GOING, gone=GONE,
    ),
    row(
        JobEnded, _STATES,
        starting=NO_LEASE, idle=NO_LEASE, leased=_ended, suspect=NO_LEASE, draining=_ended,
        stopping=GOING, gone=GONE,
    ),
    row(
        WorkerFreed, _STATES,
        starting=NO_LEASE, idle=NO_LEASE, leased=_freed, suspect=NO_LEASE, draining=LEAVING,
        stopping=GOING, gone=GONE,
    ),
    row(
        ShutdownRequested, _STATES,
        starting=_shut_down, idle=_shut_down, leased=_shut_down_later, suspect=_shut_down,
        draining=_shut_down_later, stopping=GOING, gone=GONE,
    ),
    row(
        Lease, _STATES,
        starting=NOT_IDLE, idle=_lease, leased=NOT_IDLE, suspect=NOT_IDLE, draining=NOT_IDLE,
        stopping=NOT_IDLE, gone=NOT_IDLE,
    ),
    row(
        Retire, _STATES,
        starting=_stop, idle=_stop, leased=_drain, suspect=_stop, draining=LEAVING,
        stopping=GOING, gone=GONE,
    ),
    row(
        Overdue, _STATES,
        starting=_start_overdue, idle=_suspect, leased=_unanswered, suspect=_silent, draining=_unanswered,
        stopping=NO_DEADLINE, gone=NO_DEADLINE,
    ),
)  # fmt: skip


def apply(books: State, worker_id: str, event: Event) -> None:
    """Look the event up in the row of the worker's state, and do what stands there."""
    worker = books.workers.get(worker_id)
    if worker is None:
        books.tell_bygone(worker_id, f"{type(event).__name__} ignored: {GONE.why}")
        return
    TABLE[worker.state, type(event)](books, worker, event)

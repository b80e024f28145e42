"""A worker from its start to its end, by the state that it is in.

    FOUND ──WorkerAdopted──▶ IDLE, LEASED, ...                  FOUND ──silent, unusable──▶ STOPPING
    STARTING ──WorkerReady──▶ IDLE ──lease──▶ LEASED ──JobEnded──▶ CLEANING ──WorkerFreed──▶ IDLE
    IDLE ──silent──▶ SUSPECT ──Heartbeat──▶ IDLE              LEASED ──retire──▶ DRAINING ──JobEnded──▶ STOPPING
    any ──retired without a job, failed, vanished, frozen, overdue──▶ STOPPING    any ──WorkerRemoved──▶ GONE

Each state has its own deadline (`due`): STARTING the boot timeout, IDLE and SUSPECT the next heartbeat, LEASED and
DRAINING the job's, CLEANING the time for cleaning up. A busy worker is never judged by its heartbeats, because a runner
sends none while a job runs. The record is dropped when the worker is GONE.

The worker protocol of the daemon has checked that what a worker says is about its present lease: so an event about a
job names only the worker.
"""

from __future__ import annotations

from math import inf

from pool.core import events as ev
from pool.core.job_transitions import ended, started
from pool.core.policy import CLEANING_S, MISSED_HEARTBEATS, SUSPECT_HEARTBEATS, answer_deadline, served_in_s
from pool.core.records import JobRecord, PendingEnd, StopReason, WorkerRecord
from pool.core.state import Ignore, Illegal, State, Table, row, table
from pool.core.worker_end import count_against_code, frozen, kill_with_worker, removed, stop_unclean, vanished
from pool.core.worker_start import (
    adopted,
    connected,
    count_failed_start,
    not_adoptable,
    not_adopted,
    ready,
    start_failed,
    start_overdue,
)
from pool.model import Outcome, WorkerState

# ---- without a job ----


def _removed_before_ready(pool: State, worker: WorkerRecord, event: ev.WorkerRemoved) -> None:
    count_failed_start(pool, worker, f"the container of {worker.id} was removed before it was ready")
    removed(pool, worker, event)


def _heartbeat(pool: State, worker: WorkerRecord, _event: ev.Heartbeat) -> None:
    pool.set_due(worker, pool.now + MISSED_HEARTBEATS * pool.policy.heartbeat_s)
    pool.resize = False


def _silent(pool: State, worker: WorkerRecord, _event: ev.Tick) -> None:
    pool.set_due(worker, pool.now + SUSPECT_HEARTBEATS * pool.policy.heartbeat_s)
    pool.move(worker, WorkerState.SUSPECT, f"{MISSED_HEARTBEATS} heartbeats missed; asked for one")
    pool.commands.append(ev.ProbeWorker(worker_id=worker.id, cause=pool.cause))


def _heartbeat_again(pool: State, worker: WorkerRecord, _event: ev.Heartbeat) -> None:
    pool.set_due(worker, pool.now + MISSED_HEARTBEATS * pool.policy.heartbeat_s)
    pool.move(worker, WorkerState.IDLE, "heartbeat received")


def _still_silent(pool: State, worker: WorkerRecord, _event: ev.Tick) -> None:
    pool.stop_worker(worker, StopReason.HEARTBEAT)


# ---- with a job ----


def _freed(pool: State, worker: WorkerRecord, event: ev.WorkerFreed) -> None:
    if event.residue:
        stop_unclean(pool, worker, f"was not clean after the job ({event.residue})")
        return
    pool.free_worker(worker, "free")
    pool.resize = _may_resize(pool)
    if worker.worn is None and len(pool.workers) < pool.policy.max_workers and _has_to_be_replaced(pool, worker):
        worker.worn, worker.retire_at, pool.resize = StopReason.MAX_JOBS, pool.now, True


def _may_resize(pool: State) -> bool:
    """Whether the pool may get another size because a worker is free. A pool at its minimum stops no worker, and it had
    enough of them while this one was busy.
    """
    return (
        len(pool.workers) - pool.stopping > pool.policy.min_workers
        or bool(pool.backlog.waiting)
        or pool.outgoing is not None
        or pool.editions.trial is not None
        or pool.demand is not None
    )


def _has_to_be_replaced(pool: State, worker: WorkerRecord) -> bool:
    """Whether a replacement has to start now, to be ready when the worker has served its jobs.

    Before it come the starts under way, and the replacements of workers that have no more time than this one. Another
    worker's jobs may be its own by then, so there is half as much time as it seems.
    """
    left_s = _left_s(pool, worker) / 2
    if left_s == inf:
        return False
    before = sum(
        each.state is WorkerState.STARTING or each.worn is not None or _left_s(pool, each) / 2 <= left_s
        for each in pool.workers.values()
        if each is not worker and each.leaving is None
    )
    return left_s <= pool.start_s * (1 + before / pool.starts.limit)


def _left_s(pool: State, worker: WorkerRecord) -> float:
    return served_in_s(jobs=worker.jobs, limit=worker.jobs_limit, age_s=pool.now - worker.started_at)


def _not_freed(pool: State, worker: WorkerRecord, _event: ev.Tick) -> None:
    stop_unclean(pool, worker, f"was not free {CLEANING_S:g} s after the job")


def _unanswered(pool: State, worker: WorkerRecord, _event: ev.Tick) -> None:
    """The worker has not reported the end of its job in time: it is killed, and the job with it."""
    job = worker.job
    assert job is not None
    reason, end = _overdue_end(pool, job)
    kill_with_worker(pool, job, end)
    pool.stop_worker(worker, reason)
    if reason is StopReason.JOB_DEADLINE:
        count_against_code(pool, worker, f"did not answer at the job's deadline of {job.wall_s:g} s")


def _overdue_end(pool: State, job: JobRecord) -> tuple[StopReason, PendingEnd]:
    """Why the worker is killed, and how its job ends."""
    if pool.shutdown_at is not None and pool.now >= pool.shutdown_at:
        reason = "the pool shut down before the job ended; it was killed with its worker"
        return StopReason.SHUTDOWN, PendingEnd(Outcome.CANCELLED, reason)
    within = f"its worker did not answer within {pool.policy.kill_grace_s:g} s and was killed with it"
    if job.cancelled_at is not None:
        return StopReason.JOB_DEADLINE, PendingEnd(Outcome.CANCELLED, f"cancelled; {within}")
    return StopReason.JOB_DEADLINE, PendingEnd(Outcome.TIMEOUT, f"over its wall limit of {job.wall_s:g} s; {within}")


# ---- end ----


def retire(pool: State, worker: WorkerRecord, reason: StopReason) -> None:
    """The worker takes no more jobs, and is stopped once it has none."""
    if worker.leaving is not None:
        pool.note(worker, f"is leaving already: {worker.leaving}")
    elif worker.state is WorkerState.LEASED:
        worker.leaving = reason
        pool.move(worker, WorkerState.DRAINING, f"takes no more jobs: {reason}")
    elif worker.state is WorkerState.FOUND and worker.job is not None:
        worker.leaving = reason
        pool.note(worker, f"is to take no more jobs: {reason}")
    else:
        pool.stop_worker(worker, reason)


def _shut_down(pool: State, worker: WorkerRecord, _event: ev.ShutdownRequested) -> None:
    if worker.leaving is None:
        retire(pool, worker, StopReason.SHUTDOWN)
    if (job := worker.job) is not None and worker.state is not WorkerState.FOUND:
        due = answer_deadline(
            job, leased_at=worker.leased_at, kill_grace_s=pool.policy.kill_grace_s, shutdown_at=pool.shutdown_at
        )
        pool.set_due(worker, due)


# ---- the table ----

BOOTING = Ignore("the boot timeout judges a starting worker", silent=True)
BUSY = Ignore("the job's deadline judges a busy worker", silent=True)
STOPPING = Ignore("it is being stopped")
READY_TWICE = Illegal("it has been ready before")
KNOWN = Illegal("it is known")
NOT_FOUND = Illegal("no earlier daemon has left it")
UNPROVEN = Illegal("its runner has not proved itself")
NO_JOB = Illegal("it has no job")
NOT_CLEANING = Illegal("it does not clean up after a job")
NO_DEADLINE = Illegal("it has no deadline")

STATES = tuple(state for state in WorkerState if state is not WorkerState.GONE)
TABLE: Table[WorkerState, WorkerRecord] = table(
    row(
        ev.WorkerFound, STATES,
        found=KNOWN, starting=KNOWN, idle=KNOWN, leased=KNOWN, cleaning=KNOWN, suspect=KNOWN, draining=KNOWN,
        stopping=KNOWN,
    ),
    row(
        ev.WorkerAdopted, STATES,
        found=adopted, starting=NOT_FOUND, idle=NOT_FOUND, leased=NOT_FOUND, cleaning=NOT_FOUND,
        suspect=NOT_FOUND, draining=NOT_FOUND, stopping=STOPPING,
    ),
    row(
        ev.WorkerConnected, STATES,
        found=UNPROVEN, starting=connected, idle=READY_TWICE, leased=READY_TWICE, cleaning=READY_TWICE,
        suspect=READY_TWICE, draining=READY_TWICE, stopping=STOPPING,
    ),
    row(
        ev.WorkerReady, STATES,
        found=UNPROVEN, starting=ready, idle=READY_TWICE, leased=READY_TWICE, cleaning=READY_TWICE,
        suspect=READY_TWICE, draining=READY_TWICE, stopping=STOPPING,
    ),
    row(  # the engine may report a failed start after the runner has connected
        ev.WorkerFailed, STATES,
        found=not_adoptable, starting=start_failed, idle=vanished, leased=vanished, cleaning=vanished,
        suspect=vanished, draining=vanished, stopping=STOPPING,
    ),
    row(
        ev.WorkerVanished, STATES,
        found=not_adoptable, starting=start_failed, idle=vanished, leased=vanished, cleaning=vanished,
        suspect=vanished, draining=vanished, stopping=STOPPING,
    ),
    row(
        ev.WorkerFrozen, STATES,
        found=not_adoptable, starting=BOOTING, idle=frozen, leased=frozen, cleaning=frozen, suspect=frozen,
        draining=frozen, stopping=STOPPING,
    ),
    row(
        ev.WorkerRemoved, STATES,
        found=removed, starting=_removed_before_ready, idle=removed, leased=removed, cleaning=removed,
        suspect=removed, draining=removed, stopping=removed,
    ),
    row(
        ev.Heartbeat, STATES,
        found=UNPROVEN, starting=BOOTING, idle=_heartbeat, leased=BUSY, cleaning=BUSY,
        suspect=_heartbeat_again, draining=BUSY, stopping=STOPPING,
    ),
    row(
        ev.JobStarted, STATES,
        found=UNPROVEN, starting=NO_JOB, idle=NO_JOB, leased=started, cleaning=NO_JOB, suspect=NO_JOB,
        draining=started, stopping=STOPPING,
    ),
    row(
        ev.JobEnded, STATES,
        found=UNPROVEN, starting=NO_JOB, idle=NO_JOB, leased=ended, cleaning=NO_JOB, suspect=NO_JOB,
        draining=ended, stopping=STOPPING,
    ),
    row(
        ev.WorkerFreed, STATES,
        found=UNPROVEN, starting=NOT_CLEANING, idle=NOT_CLEANING, leased=NOT_CLEANING, cleaning=_freed,
        suspect=NOT_CLEANING, draining=NOT_CLEANING, stopping=STOPPING,
    ),
    row(
        ev.ShutdownRequested, STATES,
        found=_shut_down, starting=_shut_down, idle=_shut_down, leased=_shut_down, cleaning=_shut_down,
        suspect=_shut_down, draining=_shut_down, stopping=STOPPING,
    ),
    row(  # only after its deadline
        ev.Tick, STATES,
        found=not_adopted, starting=start_overdue, idle=_silent, leased=_unanswered, cleaning=_not_freed,
        suspect=_still_silent, draining=_unanswered, stopping=NO_DEADLINE,
    ),
)  # fmt: skip


def apply(pool: State, worker: WorkerRecord, event: ev.Event) -> None:
    """Do what the table says for the state of this worker."""
    TABLE[worker.state, type(event)](pool, worker, event)

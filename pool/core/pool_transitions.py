"""What each event does to the pool as a whole: the operator's requests, and the clock.

RUNNING ◀──Resume, Drain──▶ DRAINING        any ──ShutdownRequested──▶ STOPPING ──last worker gone──▶ STOPPED
"""

from __future__ import annotations

from dataclasses import replace

from pool.core import events as ev
from pool.core import job_transitions, worker_transitions
from pool.core.job_transitions import restore, submitted, submitted_late
from pool.core.records import PoolPhase, StopReason, WorkerRecord
from pool.core.state import Ignore, Illegal, State, Table, row, table
from pool.core.worker_start import find, replace_older_editions
from pool.core.worker_transitions import retire
from pool.model import WorkerState

# ---- the operator's requests ----


def _drain(pool: State, _: State, _event: ev.DrainRequested) -> None:
    pool.state = PoolPhase.DRAINING
    pool.note(pool, "draining: takes no new jobs")


def _resume(pool: State, _: State, _event: ev.ResumeRequested) -> None:
    pool.state = PoolPhase.RUNNING
    pool.breaker.close()
    pool.editions.retry(pool.now)
    pool.note(pool, "resumed")


def _recycle(pool: State, _: State, event: ev.RecycleRequested) -> None:
    if event.worker_id is None:
        for worker in pool.workers.values():
            if worker.leaving is None:
                worker.worn, worker.retire_at = StopReason.OPERATOR, pool.now
        pool.note(pool, "all workers are to be replaced, one after another")
    elif event.worker_id in pool.workers:
        retire(pool, pool.workers[event.worker_id], StopReason.OPERATOR)
    else:
        pool.note_past(event.worker_id, "RecycleRequested ignored: no such worker, or it is gone")


def _offer(pool: State, _: State, event: ev.EditionOffered) -> None:
    if event.edition <= pool.editions.newest:
        pool.note(pool, f"EditionOffered ignored: data sets {event.edition} are not new")
    elif pool.editions.offer(event.edition, pool.now):
        pool.breaker.close()  # the starts may have failed because of the data sets
        replace_older_editions(pool)  # no worker is ready, but some may be starting
        pool.note(pool, f"data sets {event.edition} are in use")
    else:
        pool.note(pool, f"data sets {event.edition} are new; one worker is to try them")


def _pardon(pool: State, _: State, event: ev.PardonRequested) -> None:
    for code in pool.poison.pardon(event.code):
        pool.note_past(code, "pardoned")
        pool.note(pool, f"code {code} is pardoned")


def _resize(pool: State, _: State, event: ev.ResizeRequested) -> None:
    pool.policy = replace(pool.policy, min_workers=event.min_workers, max_workers=event.max_workers)
    pool.note(pool, f"resized to {event.min_workers} to {event.max_workers} workers")
    staying = [worker for worker in pool.workers.values() if worker.leaving is None]
    staying.sort(key=_cost_of_loss)
    for worker in staying[: max(0, len(staying) - event.max_workers)]:
        retire(pool, worker, StopReason.RESIZE)


def _cost_of_loss(worker: WorkerRecord) -> tuple[bool, bool, float]:
    """Starting workers are the cheapest to lose, then those idle the longest, then those with a job."""
    at_work = worker.state in {WorkerState.LEASED, WorkerState.CLEANING}
    return at_work, worker.state is not WorkerState.STARTING, worker.last_used


def _shut_down(pool: State, _: State, event: ev.ShutdownRequested) -> None:
    pool.state = PoolPhase.STOPPING
    pool.shutdown_at = event.deadline if pool.shutdown_at is None else min(pool.shutdown_at, event.deadline)
    pool.note(pool, f"shutting down; running jobs have {max(0.0, pool.shutdown_at - pool.now):.3g} s")
    for job_id in list(pool.backlog.waiting):
        job_transitions.apply(pool, pool.jobs[job_id], event)
    for worker in list(pool.workers.values()):
        worker_transitions.apply(pool, worker, event)


# ---- workers that an earlier daemon has left ----


def _found(pool: State, _: State, event: ev.WorkerFound) -> None:
    find(pool, event)


# ---- the clock ----


def _tick(pool: State, _: State, event: ev.Tick) -> None:
    """Deadlines are checked only here, so that an answer that has arrived by then is handled first."""
    until = pool.now if event.until is None else event.until
    for worker in list(pool.workers.values()):
        if worker.due is not None and worker.due <= until:
            worker_transitions.apply(pool, worker, event)
    for job_id in pool.backlog.overdue(until):
        job_transitions.apply(pool, pool.jobs[job_id], event)


DRAINING = Ignore("the pool is draining already")
STOPPING = Ignore("the pool is shutting down")
STOPPED = Ignore("the pool has stopped")
NO_TIME = Ignore("the pool has stopped", silent=True)
TOO_LATE = Illegal("workers are found and jobs are restored before the daemon serves")

STATES = tuple(PoolPhase)
TABLE: Table[PoolPhase, State] = table(
    row(
        ev.JobSubmitted, STATES,
        running=submitted, draining=submitted_late, stopping=submitted_late, stopped=submitted_late,
    ),
    row(ev.JobRestored, STATES, running=restore, draining=restore, stopping=TOO_LATE, stopped=TOO_LATE),
    row(ev.WorkerFound, STATES, running=_found, draining=_found, stopping=TOO_LATE, stopped=TOO_LATE),
    row(ev.DrainRequested, STATES, running=_drain, draining=DRAINING, stopping=STOPPING, stopped=STOPPED),
    row(ev.ResumeRequested, STATES, running=_resume, draining=_resume, stopping=STOPPING, stopped=STOPPED),
    row(ev.RecycleRequested, STATES, running=_recycle, draining=_recycle, stopping=STOPPING, stopped=STOPPED),
    row(ev.EditionOffered, STATES, running=_offer, draining=_offer, stopping=STOPPING, stopped=STOPPED),
    row(ev.PardonRequested, STATES, running=_pardon, draining=_pardon, stopping=STOPPING, stopped=STOPPED),
    row(ev.ResizeRequested, STATES, running=_resize, draining=_resize, stopping=STOPPING, stopped=STOPPED),
    row(ev.ShutdownRequested, STATES, running=_shut_down, draining=_shut_down, stopping=_shut_down, stopped=STOPPED),
    row(ev.Tick, STATES, running=_tick, draining=_tick, stopping=_tick, stopped=NO_TIME),
)  # fmt: skip

"""What each event does to a worker, by the state the worker is in.

    STARTING ──WorkerReady──▶ IDLE ──Lease──▶ LEASED ──JobEnded──▶ (clearing) ──WorkerFreed──▶ IDLE
    LEASED ──JobEnded──▶ STOPPING if that was its last job                (clearing) ──WorkerFreed(dirty)──▶ STOPPING
    STARTING, IDLE, SUSPECT, (clearing) ──Retire──▶ STOPPING     LEASED ──Retire──▶ DRAINING ──JobEnded──▶ STOPPING
    IDLE ──Overdue──▶ SUSPECT ──BeatHeard──▶ IDLE                      SUSPECT ──Overdue──▶ STOPPING
    any ──WorkerVanished──▶ STOPPING                                   any ──WorkerRemoved──▶ GONE

Liveness is judged by what the state can show: STARTING by the boot deadline, IDLE and SUSPECT by beats, a worker with a
job by that job's deadline and by nothing else. A record is dropped when it is GONE; an id without a record is gone.

What is done stands beside its like: worker_start.py, worker_idle.py, worker_job.py, worker_end.py.
"""

from __future__ import annotations

from pool.core import worker_end as end
from pool.core import worker_idle as idle
from pool.core import worker_job as job
from pool.core import worker_start as start
from pool.core.books import Books
from pool.core.decisions import Lease, Overdue, Retire
from pool.core.events import (
    BeatHeard,
    Event,
    JobEnded,
    JobStarted,
    ShutdownRequested,
    WorkerFailed,
    WorkerFreed,
    WorkerReady,
    WorkerRemoved,
    WorkerVanished,
)
from pool.core.records import WorkerRecord
from pool.core.table import Ignore, Illegal, Table, row, table
from pool.model import WorkerState

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
        starting=start.ready, idle=READY_TWICE, leased=READY_TWICE, suspect=READY_TWICE, draining=READY_TWICE,
        stopping=GOING, gone=GONE,
    ),
    row(  # the engine may report a start as failed after the runner has made contact
        WorkerFailed, _STATES,
        starting=start.failed, idle=end.vanish, leased=end.vanish, suspect=end.vanish, draining=end.vanish,
        stopping=GOING, gone=GONE,
    ),
    row(
        WorkerVanished, _STATES,
        starting=start.failed, idle=end.vanish, leased=end.vanish, suspect=end.vanish, draining=end.vanish,
        stopping=GOING, gone=GONE,
    ),
    row(
        WorkerRemoved, _STATES,
        starting=start.gone, idle=end.gone, leased=end.gone, suspect=end.gone, draining=end.gone,
        stopping=end.gone, gone=GONE,
    ),
    row(
        BeatHeard, _STATES,
        starting=BOOTING, idle=idle.beat, leased=BUSY, suspect=idle.clear, draining=BUSY,
        stopping=GOING, gone=GONE,
    ),
    row(
        JobStarted, _STATES,
        starting=NO_LEASE, idle=NO_LEASE, leased=job.started, suspect=NO_LEASE, draining=job.started,
        stopping=GOING, gone=GONE,
    ),
    row(
        JobEnded, _STATES,
        starting=NO_LEASE, idle=NO_LEASE, leased=job.ended, suspect=NO_LEASE, draining=job.ended,
        stopping=GOING, gone=GONE,
    ),
    row(
        WorkerFreed, _STATES,
        starting=NO_LEASE, idle=NO_LEASE, leased=job.freed, suspect=NO_LEASE, draining=LEAVING,
        stopping=GOING, gone=GONE,
    ),
    row(
        ShutdownRequested, _STATES,
        starting=end.shut_down, idle=end.shut_down, leased=end.shut_down_later, suspect=end.shut_down,
        draining=end.shut_down_later, stopping=GOING, gone=GONE,
    ),
    row(
        Lease, _STATES,
        starting=NOT_IDLE, idle=job.lease, leased=NOT_IDLE, suspect=NOT_IDLE, draining=NOT_IDLE,
        stopping=NOT_IDLE, gone=NOT_IDLE,
    ),
    row(
        Retire, _STATES,
        starting=end.stop, idle=end.stop, leased=end.drain, suspect=end.stop, draining=LEAVING,
        stopping=GOING, gone=GONE,
    ),
    row(
        Overdue, _STATES,
        starting=start.overdue, idle=idle.suspect, leased=job.unanswered, suspect=idle.silent, draining=job.unanswered,
        stopping=NO_DEADLINE, gone=NO_DEADLINE,
    ),
)  # fmt: skip


def apply(books: Books, worker_id: str, event: Event) -> None:
    """Look the event up in the row of the worker's state, and do what stands there."""
    worker = books.workers.get(worker_id)
    if worker is None:
        books.tell_bygone(worker_id, f"{type(event).__name__} ignored: {GONE.why}")
        return
    TABLE[worker.state, type(event)](books, worker, event)

"""What a pool knows of each worker and each job: one record each. Only the transition tables change a `state`.

    Worker   STARTING ─▶ IDLE ◀─▶ LEASED          any ─▶ DRAINING ─▶ STOPPING ─▶ GONE     IDLE ◀─▶ SUSPECT ─▶ STOPPING
    Job      QUEUED ─▶ LEASED ─▶ RUNNING ─▶ DONE         QUEUED ─▶ DONE         LEASED ─▶ DONE
    Pool     RUNNING ◀─▶ DRAINING                        any ─▶ STOPPING ─▶ STOPPED

A worker that has no job passes through DRAINING at once; one that has a job stays there until the job has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from pool.model import JobState, Outcome, StartKind, WorkerState

#: Entries of one record: the whole life of a job, the last dozen or so jobs of a worker.
MAX_ENTRIES = 64
#: Histories kept of what is gone; a few minutes of a busy pool, a few megabytes.
MAX_BYGONE = 2000


class StoryEntry(NamedTuple):
    at: float  #: monotonic seconds
    id: str
    state: str  #: the state after it
    text: str
    cause: str


History = list[StoryEntry]


def append(history: History, entry: StoryEntry) -> None:
    history.append(entry)
    if len(history) > MAX_ENTRIES:
        del history[0]


class Bygone:
    """Histories by id of records that are gone, oldest first."""

    def __init__(self) -> None:
        self._histories: dict[str, History] = {}

    def keep(self, record_id: str, entries: History) -> None:
        history = self._histories.pop(record_id, [])
        for entry in entries:
            append(history, entry)
        self._histories[record_id] = history
        if len(self._histories) > MAX_BYGONE:
            del self._histories[next(iter(self._histories))]

    def of(self, record_id: str) -> History:
        return self._histories.get(record_id, [])


class PoolPhase(StrEnum):
    RUNNING = "running"
    DRAINING = "draining"  #: takes no new jobs, finishes those it has; the workers stay
    STOPPING = "stopping"  #: takes no new jobs, its workers go
    STOPPED = "stopped"  #: every worker is gone


class StopReason(StrEnum):
    """Why a worker was stopped: the closed vocabulary of `recycles` in the snapshot."""

    MAX_JOBS = "max_jobs"  #: it served its share
    MAX_AGE = "max_age"
    SURPLUS = "surplus"  #: idle for long, and more than the pool wants
    FOREIGN = "foreign"  #: it belonged to one client while another waited
    DIRTY = "dirty"  #: a job left something behind
    VANISHED = "vanished"  #: its link broke, or it broke the protocol
    HEARTBEAT = "heartbeat"  #: idle and silent
    BOOT_TIMEOUT = "boot_timeout"
    START_FAILED = "start_failed"
    JOB_DEADLINE = "job_deadline"  #: it did not answer for its job in time
    OPERATOR = "operator"  #: recycled on request
    SHUTDOWN = "shutdown"
    RESIZE = "resize"  #: above a maximum that was lowered
    DATASET = "dataset"  #: its data sets are older than those of the pool


W = WorkerState
WORKER_MOVES: dict[WorkerState, frozenset[WorkerState]] = {
    W.STARTING: frozenset({W.IDLE, W.DRAINING}),
    W.IDLE: frozenset({W.LEASED, W.SUSPECT, W.DRAINING}),
    W.LEASED: frozenset({W.IDLE, W.DRAINING}),
    W.SUSPECT: frozenset({W.IDLE, W.DRAINING, W.STOPPING}),
    W.DRAINING: frozenset({W.STOPPING}),
    W.STOPPING: frozenset({W.GONE}),
    W.GONE: frozenset(),
}
JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.LEASED, JobState.DONE}),
    JobState.LEASED: frozenset({JobState.RUNNING, JobState.DONE}),
    JobState.RUNNING: frozenset({JobState.DONE}),
    JobState.DONE: frozenset(),
}


class Verdict(NamedTuple):
    """How a job will end once the worker that is being killed with it is really gone."""

    outcome: Outcome
    reason: str


@dataclass(slots=True, kw_only=True, eq=False)
class WorkerRecord:
    id: str
    started_at: float
    jobs_limit: int
    retire_at: float  #: when it is worn, by age or by the operator's wish
    edition: int  #: of the pool's data sets
    due: (
        float | None
    )  #: when its liveness is judged next: boot, beat or the job's deadline, whatever its state asks for
    state: WorkerState = WorkerState.STARTING
    ready_at: float | None = None
    last_used: float = 0.0  #: when it became idle, last time
    client: str | None = None  #: the last client it served
    bound_at: float = 0.0  #: when it was first leased to that client
    jobs: int = 0  #: leases begun
    job_id: str | None = None  #: the lease, with `epoch`
    leased_at: float = 0.0  #: when its latest lease began
    clearing: bool = False  #: LEASED still, but its job has ended and it clears up after it
    epoch: int = 0
    leaving: StopReason | None = None  #: set while DRAINING and STOPPING
    worn: StopReason | None = None  #: why it is to be replaced; it serves until its successor is there
    code: str = ""  #: what is to blame if the worker is lost now; see worker_transitions.py
    history: History = field(default_factory=list)


@dataclass(slots=True, kw_only=True, eq=False)
class JobRecord:
    id: str
    client: str
    wall_s: float
    submitted_at: float
    priority: int = 0
    code: str = ""
    queue_timeout_s: float | None = None
    state: JobState = JobState.QUEUED
    leased_at: float | None = None
    started_at: float | None = None
    done_at: float | None = None
    cancelled_at: float | None = None  #: when the worker was told to kill it
    worker_id: str | None = None  #: stays when the job is done
    epoch: int = 0
    attempt: int = 0
    start: StartKind | None = None
    verdict: Verdict | None = None  #: set while its worker is being killed
    outcome: Outcome | None = None
    reason: str = ""
    history: History = field(default_factory=list)


@dataclass(slots=True, kw_only=True, eq=False)
class PoolRecord:
    """The pool itself: its phase and what its operator asked for."""

    id: str
    state: PoolPhase = PoolPhase.RUNNING
    shutdown_at: float | None = None  #: until when running jobs may go on
    history: History = field(default_factory=list)


class Record(Protocol):
    """What every record has."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> StrEnum: ...
    @property
    def history(self) -> History: ...

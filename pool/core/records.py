"""The record of each worker and of each job, with the states that it can be in.

The allowed changes of state are WORKER_STATES and JOB_STATES. Only `State.move` changes a state, and it checks them.
docs/architecture.md has the diagrams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, MutableSequence
from enum import StrEnum
from typing import ClassVar, NamedTuple, Protocol

from msgspec import Struct, field

from pool.core.turns import Use
from pool.model import JobState, Outcome, WorkerState

#: Entries kept of one worker or pool: the last dozen or so jobs of a worker.
MAX_ENTRIES = 64
#: Entries kept of workers that are gone and of refused jobs, together: about two megabytes.
MAX_PAST_ENTRIES = 4000


class HistoryEntry(Struct, frozen=True):
    """One line of what `pool-admin job` shows."""

    at: float  #: monotonic seconds
    id: str
    state: str  #: the state after the entry
    text: str
    cause: str


History = MutableSequence[HistoryEntry]


def new_history() -> History:
    return deque(maxlen=MAX_ENTRIES)


class PastHistories:
    """Histories of jobs and workers without a record, by id. The oldest are dropped."""

    def __init__(self) -> None:
        self._histories: dict[str, History] = {}
        self._entries = 0

    def add(self, record_id: str, entries: Iterable[HistoryEntry]) -> None:
        history = self._take(record_id)
        history.extend(entries)
        self._histories[record_id] = history
        self._entries += len(history)
        while self._entries > MAX_PAST_ENTRIES:
            self._take(next(iter(self._histories)))

    def _take(self, record_id: str) -> History:
        history = self._histories.pop(record_id, None) or new_history()
        self._entries -= len(history)
        return history

    def of(self, record_id: str) -> History:
        return self._histories.get(record_id, [])


class PoolPhase(StrEnum):
    """The states of the pool itself."""

    RUNNING = "running"
    DRAINING = "draining"  #: takes no new jobs, finishes the accepted ones; the workers stay
    STOPPING = "stopping"  #: takes no new jobs, and its workers are being stopped
    STOPPED = "stopped"  #: every worker is gone


class StopReason(StrEnum):
    """Why a worker was stopped: the closed vocabulary of `recycles` in the snapshot."""

    MAX_JOBS = "max_jobs"  #: it has served its share
    MAX_AGE = "max_age"
    SURPLUS = "surplus"  #: idle for long, and above the pool's target
    FOREIGN = "foreign"  #: it was bound to one client while another one waited
    RESIDUE = "dirty"  #: a job left something behind that the worker could not clean up
    VANISHED = "vanished"  #: its link broke, or it broke the protocol
    HEARTBEAT = "heartbeat"  #: idle and silent
    FROZEN = "frozen"  #: somebody has stopped or paused its processes
    BOOT_TIMEOUT = "boot_timeout"
    START_FAILED = "start_failed"
    JOB_DEADLINE = "job_deadline"  #: it did not report the end of its job in time
    OPERATOR = "operator"  #: recycled on request
    SHUTDOWN = "shutdown"
    RESIZE = "resize"  #: above a maximum that was lowered
    DATASET = "dataset"  #: its data sets are older than those of the pool
    NOT_ADOPTED = "not_adopted"  #: an earlier daemon had left it, and its runner did not prove itself
    OUTDATED = "outdated"  #: an earlier daemon had left it, and it is not what this one would start
    UNKNOWN_JOB = "unknown_job"  #: an earlier daemon had left it running a job that nobody waits for


class Numbers(NamedTuple):
    """The last numbers that were given out, by this daemon or an earlier one."""

    epoch: int = 0
    worker: int = 0


_W, _J = WorkerState, JobState
_LEAVES = frozenset({_W.STOPPING, _W.GONE})
WORKER_STATES: Mapping[StrEnum, frozenset[StrEnum]] = {
    _W.FOUND: _LEAVES | {_W.IDLE, _W.LEASED, _W.CLEANING, _W.DRAINING},
    _W.STARTING: _LEAVES | {_W.IDLE},
    _W.IDLE: _LEAVES | {_W.LEASED, _W.SUSPECT},
    _W.SUSPECT: _LEAVES | {_W.IDLE},
    _W.LEASED: _LEAVES | {_W.CLEANING, _W.DRAINING, _W.IDLE},
    _W.CLEANING: _LEAVES | {_W.IDLE},
    _W.DRAINING: _LEAVES,
    _W.STOPPING: frozenset({_W.GONE}),
    _W.GONE: frozenset(),
}
JOB_STATES: Mapping[StrEnum, frozenset[StrEnum]] = {
    _J.QUEUED: frozenset({_J.LEASED, _J.DONE}),
    _J.LEASED: frozenset({_J.RUNNING, _J.DONE, _J.QUEUED}),
    _J.RUNNING: frozenset({_J.DONE, _J.QUEUED}),
    _J.DONE: frozenset(),
}


class PendingEnd(NamedTuple):
    """How a job will end once the container of the worker that is being killed with it is gone."""

    outcome: Outcome
    reason: str


class WorkerRecord(Struct, kw_only=True, eq=False):
    next_states: ClassVar = WORKER_STATES
    id: str
    started_at: float
    jobs_limit: int
    retire_at: float  #: when it is due for replacement, by age or on request
    edition: int  #: of the pool's data sets
    due: float | None  #: deadline of the present state; None while STOPPING
    state: WorkerState = WorkerState.STARTING
    ready_at: float | None = None
    last_used: float = 0.0  #: when it last became idle
    client: str | None = None  #: the last client it served
    bound_at: float = 0.0  #: when it was first leased to that client
    jobs: int = 0  #: leases so far
    job: JobRecord | None = None  #: LEASED and DRAINING workers have one, FOUND and STOPPING ones may
    epoch: int = 0  #: of the latest lease
    leased_at: float = 0.0  #: when the latest lease began
    leaving: StopReason | None = None  #: set while DRAINING and STOPPING, and while FOUND if it is to drain
    connected: bool = False  #: its runner has sent Hello; of a worker that this daemon has started
    worn: StopReason | None = None  #: why it is to be replaced; it serves until its replacement is ready
    code: str = ""  #: digest of the code that a failure of this worker counts against now; see poison.py
    blamed: str = ""  #: the code that its end was counted against, until the engine has removed it
    history: History = field(default_factory=new_history)


class JobRecord(Struct, kw_only=True, eq=False):
    """A job that is accepted and not done."""

    next_states: ClassVar = JOB_STATES
    id: str
    client: str
    wall_s: float
    submitted_at: float
    code: str  #: digest, for the poison memory; empty once it is cancelled: a failure may then be due to the kill
    queue_timeout_s: float | None
    priority: int
    loop: str = ""  #: which of the client's loops it belongs to; they have equal shares
    state: JobState = JobState.QUEUED
    started_at: float | None = None
    cancelled_at: float | None = None  #: when the worker was asked to kill it
    worker_id: str | None = None
    leased_at: float = 0.0
    use: Use | None = None  #: of its worker, since the lease; None: no lease of this pool's
    retries: int = 0  #: further attempts after faults that were not its own
    attempt: int = 0
    lost: str = ""  #: why its last attempt was lost, if it may have another one
    waits_since: float = 0.0  #: when it was accepted, or lost its last attempt
    pending_end: PendingEnd | None = None  #: set while its worker is being killed
    history: History = field(default_factory=list)  #: short: each thing happens to a job once


class Record(Protocol):
    """What every record has."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> StrEnum: ...
    @property
    def history(self) -> History: ...

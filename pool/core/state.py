"""The state of one pool, and the form of its transition tables.

`State` holds every record and collection of the pool. It decides nothing: the functions in the transition tables and in
`sizing.py` change it. A table has for each event and each state either such a function, or the reason why nothing is
done:

    Ignore   the event can happen late or twice: it goes into the history and changes nothing
    Illegal  only a bug of ours leads there: raises InvalidTransition and changes nothing

A row of a table has an entry for every state, or the import fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from types import MappingProxyType
from typing import TypeVar, cast

from pool.core.backlog import Backlog
from pool.core.breaker import Breaker
from pool.core.demand import Demand
from pool.core.editions import Editions
from pool.core.events import Command, Event, StartWorker, StopWorker
from pool.core.poison import Poison
from pool.core.policy import ADOPTION_S, MISSED_HEARTBEATS, PoolPolicy, age_limit_s, jobs_limit
from pool.core.records import (
    History,
    HistoryEntry,
    JobRecord,
    Numbers,
    PastHistories,
    PoolPhase,
    Record,
    StopReason,
    WorkerRecord,
    new_history,
)
from pool.core.start_limit import StartLimit
from pool.errors import PoolError
from pool.model import WorkerState


class State:
    """All records of one pool. It is a record itself: `id`, `state` and `history` are the pool's own."""

    def __init__(
        self, name: str, policy: PoolPolicy, *, seed: int, jitter: Random, edition: int, numbers: Numbers
    ) -> None:
        self.id = name
        self.state = PoolPhase.RUNNING
        self.shutdown_at: float | None = None  #: until when running jobs may go on
        self.history: History = new_history()
        self.policy = policy
        self.workers: dict[str, WorkerRecord] = {}
        self.jobs: dict[str, JobRecord] = {}
        self.backlog = Backlog(
            max_jobs=policy.backlog_max,
            max_per_client=policy.backlog_per_client,
            max_running=policy.running_per_client,
            weights=policy.weights,
        )
        self.breaker = Breaker(jitter)
        self.editions = Editions(edition, jitter)
        self.poison = Poison(
            kills=policy.poison_kills, window_s=policy.poison_window_s, refuse_s=policy.poison_refuse_s
        )
        #: measures the spare; None: it is fixed
        self.demand = Demand(max_jobs=policy.max_jobs, miss=policy.miss_rate) if policy.miss_rate is not None else None
        self.starts = StartLimit(policy.start_concurrency, first=policy.first_starts)
        self.start_s = 0.0  #: how long starts took, the latest counting most
        self.past_histories = PastHistories()
        self.outgoing: WorkerRecord | None = None  #: the one worn worker that is being replaced
        self.epoch = numbers.epoch  #: of the latest lease
        self.target = 0
        self.stopping = 0  #: workers that are STOPPING
        self.review_at = 0.0  #: when the sizes must be checked next; in a new pool at once
        self.wake_at = 0.0  #: no deadline lies before it
        self.now = 0.0
        self.cause = ""
        self.commands: list[Command] = []  #: the commands of the present event
        self.resize = True  #: whether the sizes must be checked after the present event
        self._numbered = numbers.worker
        self._started = 0
        self._rng = Random(seed)  # noqa: S311 - spreads the recycling of workers and protects nothing

    def review(self, at: float) -> None:
        """Check the sizes again then, at the latest."""
        self.review_at = min(self.review_at, at)
        self.wake_at = min(self.wake_at, at)

    def set_due(self, worker: WorkerRecord, at: float) -> None:
        """The deadline of the state that the worker is in."""
        worker.due = at
        self.wake_at = min(self.wake_at, at)

    # ---- history and states ----

    def note(self, record: Record, text: str) -> None:
        record.history.append(HistoryEntry(self.now, record.id, record.state, text, self.cause))

    def note_past(self, record_id: str, text: str) -> None:
        """For jobs and workers without a record: refused, unknown, or gone."""
        self.past_histories.add(record_id, [HistoryEntry(self.now, record_id, "", text, self.cause)])

    def move(self, record: WorkerRecord | JobRecord, to: StrEnum, text: str) -> None:
        """The only way in which the state of a worker or a job changes."""
        assert to in record.next_states[record.state], f"{record.id}: {record.state} -> {to}"
        record.state = to  # type: ignore[assignment]
        record.history.append(HistoryEntry(self.now, record.id, to, text, self.cause))

    # ---- workers ----

    def start_worker(self) -> None:
        self._numbered += 1
        self._started += 1
        young = self._started <= self.policy.max_workers
        worker_id = f"{self.id}-{self._numbered}"
        worker = WorkerRecord(
            id=worker_id,
            edition=self.editions.take(worker_id, self.now),
            started_at=self.now,
            jobs_limit=jobs_limit(self.policy.max_jobs, self._rng, young=young),
            retire_at=self.now + age_limit_s(self.policy.max_age_s, self._rng, young=young),
            due=None,
        )
        self.set_due(worker, self.now + self.policy.boot_timeout_s)
        self.workers[worker.id] = worker
        self.starts.began(worker.id, self.now)
        self.note(worker, "starting" if worker.edition == 1 else f"starting, with data sets {worker.edition}")
        self.commands.append(
            StartWorker(worker_id=worker.id, number=self._numbered, edition=worker.edition, cause=self.cause)
        )

    @property
    def start_concurrency(self) -> int:
        """How many workers may be starting: one while the engine fails."""
        return 1 if self.breaker.failures else self.starts.limit

    def free_worker(self, worker: WorkerRecord, text: str) -> None:
        if self.demand is not None and worker.leased_at:  # not the job that an adopted one had before this daemon
            self.demand.freed(self.now - worker.leased_at)
        worker.last_used, worker.code = self.now, ""
        self.set_due(worker, self.now + MISSED_HEARTBEATS * self.policy.heartbeat_s)
        self.move(worker, WorkerState.IDLE, text)

    def take_over(self, worker_id: str, *, started_at: float, edition: int) -> WorkerRecord:
        """The record of a worker that an earlier daemon has left. The names of new ones go on after its own."""
        self._numbered = max(self._numbered, int(worker_id.rpartition("-")[2]))
        worker = WorkerRecord(
            id=worker_id,
            state=WorkerState.FOUND,
            edition=edition,
            started_at=started_at,
            jobs_limit=jobs_limit(self.policy.max_jobs, self._rng, young=False),
            retire_at=started_at + age_limit_s(self.policy.max_age_s, self._rng, young=False),
            due=None,
        )
        self.set_due(worker, self.now + ADOPTION_S)
        self.workers[worker_id] = worker
        return worker

    def stop_worker(self, worker: WorkerRecord, reason: StopReason, *, failure: str = "") -> None:
        worker.leaving, worker.due = reason, None
        self.stopping += 1
        self.editions.gone(worker.id, self.now)
        self.starts.failed(worker.id, self.now)
        self.move(worker, WorkerState.STOPPING, f"stopping: {reason}")
        self.commands.append(StopWorker(worker_id=worker.id, reason=reason, failure=failure, cause=self.cause))

    def drop_worker(self, worker: WorkerRecord, text: str) -> None:
        """The container is gone, and with it the record; only the history is kept."""
        self.stopping -= worker.state is WorkerState.STOPPING
        self.move(worker, WorkerState.GONE, text)
        self.past_histories.add(worker.id, self.workers.pop(worker.id).history)
        if self.outgoing is worker:
            self.outgoing = None
        self.editions.gone(worker.id, self.now)
        self.editions.settle(self.workers.values())


# ---- transition tables ----

E = TypeVar("E", bound=Event)
R = TypeVar("R", bound=Record)
S = TypeVar("S", bound=StrEnum)

Step = Callable[[State, R, E], None]
Table = Mapping[tuple[S, type[Event]], Step[R, Event]]


class InvalidTransition(PoolError):  # noqa: N818 - named after what happened, as in the design
    """The pool received an event that cannot happen in this state."""

    code = "invalid_transition"

    def __init__(self, record: Record, event: Event, why: str) -> None:
        name = type(event).__name__
        super().__init__(
            f"{name} for {record.id} while {record.state}: {why}. Nothing was changed. This is a bug: report it with "
            f"the output of pool-admin job {record.id}",
            record=record.id,
            state=str(record.state),
            event=name,
        )
        self.history: tuple[HistoryEntry, ...] = tuple(record.history)


@dataclass(frozen=True, slots=True)
class Ignore:
    why: str
    silent: bool = False  #: too frequent for an entry in the history

    def __call__(self, pool: State, record: Record, event: Event) -> None:
        if not self.silent:
            pool.note(record, f"{type(event).__name__} ignored: {self.why}")


@dataclass(frozen=True, slots=True)
class Illegal:
    why: str

    def __call__(self, _pool: State, record: Record, event: Event) -> None:
        raise InvalidTransition(record, event, self.why)


def row(event: type[E], states: Iterable[S], **steps: Step[R, E]) -> dict[tuple[S, type[Event]], Step[R, Event]]:
    """One line of a table: an entry for each state, by its name. Raises TypeError unless each state has one."""
    by_name = {state.value: state for state in states}
    if by_name.keys() != steps.keys():
        raise TypeError(f"the row for {event.__name__} needs exactly one entry for each of {', '.join(by_name)}")
    # A step for one kind of event is only ever looked up with that kind of event.
    return {(by_name[name], event): cast("Step[R, Event]", step) for name, step in steps.items()}


def table(*rows: dict[tuple[S, type[Event]], Step[R, Event]]) -> Table[S, R]:
    return MappingProxyType({key: step for each in rows for key, step in each.items()})

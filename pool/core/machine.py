"""The core of a pool: events in, commands out, the clock an argument. No sockets, threads, files or containers.

                       ┌──────────────────────── PoolState ────────────────────────┐
    event, now ──▶ handle ─▶ the tables of *_transitions.py ─▶ State ─▶ sizing.settle ──▶ [command, ...]
                       └────────────────────────────────────────────────────────────┘

Contract:
1. Each command is carried out, in order, and answered by its event: StartWorker by WorkerReady or WorkerFailed,
   StopWorker by WorkerRemoved, Dispatch by JobStarted, JobEnded and WorkerFreed, KillJob by JobEnded, ProbeWorker by
   BeatHeard. An answer may be late, come twice, or never: deadlines see to that, except for WorkerRemoved, which the
   engine owes.
2. Each accepted job gets exactly one Finish; each one that is not accepted gets exactly one Refuse.
3. A Tick is delivered at `next_deadline()` at the latest, after the events that have arrived by then. It clears every
   deadline that has passed, so the next one always lies ahead.
4. An event that cannot happen raises InvalidTransition and changes nothing. Nothing else is raised by `handle`, but for
   ConfigError by a ResizeRequested that makes no sense, which changes nothing either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from pool.core import job_transitions, pool_transitions, sizing, worker_transitions
from pool.core.breaker import BreakerView
from pool.core.editions import EditionsView
from pool.core.events import (
    BeatHeard,
    CancelRequested,
    Command,
    DrainRequested,
    EditionOffered,
    Event,
    JobEnded,
    JobForgotten,
    JobStarted,
    JobSubmitted,
    PardonRequested,
    RecycleRequested,
    ResizeRequested,
    ResumeRequested,
    ShutdownRequested,
    Tick,
    WorkerFailed,
    WorkerFreed,
    WorkerReady,
    WorkerRemoved,
    WorkerVanished,
)
from pool.core.poison import PoisonView
from pool.core.policy import PoolPolicy
from pool.core.records import JobRecord, PoolPhase, StoryEntry, WorkerRecord
from pool.core.state import State, validate
from pool.core.table import InvalidTransition

__all__ = ["InvalidTransition", "PoolState"]

_WorkerEvent = (
    WorkerReady | WorkerFailed | WorkerVanished | WorkerRemoved | BeatHeard | JobStarted | JobEnded | WorkerFreed
)


def _to_worker(books: State, event: Event) -> None:
    assert isinstance(event, _WorkerEvent)
    worker_transitions.apply(books, event.worker_id, event)


def _to_job(books: State, event: Event) -> None:
    assert isinstance(event, CancelRequested | JobForgotten)
    job_transitions.apply(books, event.job_id, event)


def _to_pool_or_job(books: State, event: Event) -> None:
    assert isinstance(event, JobSubmitted)
    if event.job_id in books.jobs:
        job_transitions.apply(books, event.job_id, event)
    else:
        pool_transitions.apply(books, event)


#: Whose table an event from outside goes to first.
ROUTES: Mapping[type[Event], Callable[[State, Event], None]] = MappingProxyType(
    {
        JobSubmitted: _to_pool_or_job,
        CancelRequested: _to_job,
        JobForgotten: _to_job,
        WorkerReady: _to_worker,
        WorkerFailed: _to_worker,
        WorkerVanished: _to_worker,
        WorkerRemoved: _to_worker,
        BeatHeard: _to_worker,
        JobStarted: _to_worker,
        JobEnded: _to_worker,
        WorkerFreed: _to_worker,
        DrainRequested: pool_transitions.apply,
        ResumeRequested: pool_transitions.apply,
        RecycleRequested: pool_transitions.apply,
        ResizeRequested: pool_transitions.apply,
        EditionOffered: pool_transitions.apply,
        PardonRequested: pool_transitions.apply,
        ShutdownRequested: pool_transitions.apply,
        Tick: pool_transitions.apply,
    }
)


#: After these, sizes and leases stand as they stood.
UNSIZED = frozenset({JobStarted, JobForgotten})


class PoolState:
    """All that one pool knows and decides. Change it through `handle` only."""

    def __init__(self, name: str, policy: PoolPolicy, *, seed: int = 0, edition: int = 1) -> None:
        """`edition`: of the data sets; 0 where no worker can be started before one is offered."""
        self._books = State(name, policy, seed=seed, edition=edition)

    def handle(self, event: Event, now: float) -> list[Command]:
        """What has happened, and what is to be done about it. `now` is monotonic seconds and does not go back."""
        books = self._books
        books.begin(event, now)
        ROUTES[type(event)](books, event)
        if type(event) not in UNSIZED:
            sizing.settle(books)
        return books.close()

    def next_deadline(self) -> float | None:
        """When a Tick must be delivered at the latest; None: when something else happens."""
        books = self._books
        times = [worker.due for worker in books.workers.values()]
        times += (books.backlog.next_deadline(), books.review_at)
        return min((at for at in times if at is not None), default=None)

    def validate(self) -> None:
        """Assert every invariant across the collections."""
        validate(self._books)

    def story(self, record_id: str) -> list[StoryEntry]:
        """The bounded history of a job, a worker or the pool itself; also for a while after it is gone."""
        books = self._books
        entries = list(books.bygone.of(record_id))
        for record in (books.workers.get(record_id), books.jobs.get(record_id)):
            if record is not None:
                entries += record.history
        if record_id == books.pool.id:
            entries += books.pool.history
        return sorted(entries, key=lambda entry: entry.at)

    # ---- for the snapshot ----

    @property
    def name(self) -> str:
        return self._books.pool.id

    @property
    def state(self) -> PoolPhase:
        return self._books.pool.state

    @property
    def policy(self) -> PoolPolicy:
        """As it is now: a resize changes it."""
        return self._books.policy

    @property
    def workers(self) -> Mapping[str, WorkerRecord]:
        """Records of the workers whose container exists or may exist; to be read, not changed."""
        return MappingProxyType(self._books.workers)

    @property
    def jobs(self) -> Mapping[str, JobRecord]:
        """Records of the jobs that were accepted and not forgotten; to be read, not changed."""
        return MappingProxyType(self._books.jobs)

    @property
    def target(self) -> int:
        """Workers the pool wants just now."""
        return self._books.target

    @property
    def backlog_length(self) -> int:
        return len(self._books.backlog)

    @property
    def running(self) -> int:
        """Jobs that are with a worker."""
        return sum(worker.job_id is not None for worker in self._books.workers.values())

    def poison(self, now: float) -> list[PoisonView]:
        """Code that has cost workers lately, the last killer first."""
        return self._books.poison.view(now)

    @property
    def editions(self) -> EditionsView:
        return self._books.editions.view()

    @property
    def breaker(self) -> BreakerView:
        return self._books.breaker.view()

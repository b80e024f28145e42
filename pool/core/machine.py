"""The core of a pool: events in, commands out, the clock an argument. No sockets, threads, files or containers.

                       ┌──────────────────────── PoolState ─────────────────────────┐
    event, now ──▶ handle ─▶ a table of *_transitions.py ─▶ State ─▶ sizing.settle ─▶ [command, ...]
                       └─────────────────────────────────────────────────────────────┘

Contract:
1. The daemon carries out each command, in order. An event answers each command about a worker: WorkerReady or
   WorkerFailed answers StartWorker, WorkerRemoved StopWorker, Heartbeat ProbeWorker, JobEnded KillJob; JobStarted (not
   of a short job), JobEnded and WorkerFreed answer Dispatch, also one that comes in an Accept. An answer may be late or
   never come: deadlines see to that, except for WorkerRemoved, which always comes.
2. JobSubmitted leads to exactly one Accept or Refuse, as its first command, unless the pool has a job of that id. Each
   accepted or restored job gets exactly one Finish, unless it waits at a shutdown that keeps the waiting jobs; then the
   core has no record of it any more.
3. A Tick is delivered soon after `wake_at`, and after all events that had arrived by `Tick.until`. No deadline lies
   before `wake_at`. A Tick clears every deadline up to its time, so the next one always lies after it.
4. An event that cannot happen raises InvalidTransition and changes nothing. `handle` raises nothing else, except
   ConfigError for a ResizeRequested that makes no sense, which also changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from operator import attrgetter
from random import Random
from types import MappingProxyType

from pool.core import job_transitions, pool_transitions, worker_transitions
from pool.core.breaker import Breaker
from pool.core.editions import EditionsView
from pool.core.events import Command, Event, JobEvent, WorkerEvent
from pool.core.poison import PoisonView
from pool.core.policy import PoolPolicy
from pool.core.records import HistoryEntry, JobRecord, Numbers, PoolPhase, WorkerRecord
from pool.core.sizing import Census, settle
from pool.core.state import InvalidTransition, State
from pool.model import JobState, WorkerState

__all__ = ["InvalidTransition", "PoolState"]

FIRST = Numbers()
_due_of = attrgetter("due")


class PoolState:
    """The state and the decisions of one pool. Only `handle` changes it."""

    def __init__(
        self,
        name: str,
        policy: PoolPolicy,
        *,
        seed: int = 0,
        jitter: Random | None = None,
        edition: int = 1,
        numbers: Numbers = FIRST,
    ) -> None:
        """`seed` spreads the wear of workers; `jitter` the tries after failed starts, from the same seed by default.
        `edition`: of the data sets; 0 if no worker can be started before one is offered.
        """
        jitter = Random(seed) if jitter is None else jitter  # noqa: S311 - protects nothing
        self.wake_at = 0.0  #: monotonic seconds: when the next Tick is due; infinite: not before the next event
        self._state = State(name, policy, seed=seed, jitter=jitter, edition=edition, numbers=numbers)
        #: The workers whose container exists or may exist, and the accepted jobs that are not done; to be read only.
        self.workers: Mapping[str, WorkerRecord] = MappingProxyType(self._state.workers)
        self.jobs: Mapping[str, JobRecord] = MappingProxyType(self._state.jobs)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take an event and return the commands for the daemon. `now` is monotonic seconds and never goes back."""
        pool = self._state
        pool.now = max(pool.now, now)
        pool.cause = event.cause or type(event).__name__
        pool.commands, pool.resize = [], True
        if isinstance(event, WorkerEvent) and (worker := pool.workers.get(event.worker_id)) is not None:
            worker_transitions.TABLE[worker.state, type(event)](pool, worker, event)
        elif isinstance(event, JobEvent) and (job := pool.jobs.get(event.job_id)) is not None:
            job_transitions.TABLE[job.state, type(event)](pool, job, event)
        elif (step := pool_transitions.TABLE.get((pool.state, type(event)))) is not None:
            step(pool, pool, event)
        else:
            _ignore_unknown(pool, event)
        if pool.resize:
            settle(pool)
        if pool.wake_at <= pool.now:
            pool.wake_at = self.next_deadline()
        self.wake_at = pool.wake_at
        return pool.commands

    def next_deadline(self) -> float:
        """The next deadline; infinite: there is none before the next event. It looks at all workers."""
        pool = self._state
        deadline: float = min([pool.review_at, *filter(None, map(_due_of, pool.workers.values()))])
        if pool.backlog.waiting and (at := pool.backlog.next_deadline()) is not None:
            deadline = min(deadline, at)
        return deadline

    def history(self, record_id: str) -> list[HistoryEntry]:
        """What happened to an unfinished job, a worker, code or the pool itself; of workers and code also for a while
        after they are gone. The history of a finished job is in its Finish.
        """
        pool = self._state
        records = (pool.workers.get(record_id), pool.jobs.get(record_id), pool if record_id == pool.id else None)
        histories = [record.history for record in records if record is not None]
        return sorted(chain(pool.past_histories.of(record_id), *histories), key=lambda entry: entry.at)

    # ---- for the snapshot ----

    @property
    def name(self) -> str:
        return self._state.id

    @property
    def state(self) -> PoolPhase:
        return self._state.state

    @property
    def policy(self) -> PoolPolicy:
        """The present policy; a resize changes it."""
        return self._state.policy

    @property
    def target(self) -> int:
        """The number of workers that the pool should have now."""
        return 0 if self._state.shutdown_at is not None else Census(self._state).target

    @property
    def backlog_length(self) -> int:
        return len(self._state.backlog.waiting)

    def places(self, client: str) -> dict[str, int]:
        """The place in the queue of each waiting job of this client, from 1."""
        return self._state.backlog.places(client)

    @property
    def running(self) -> int:
        """The number of jobs that a worker has."""
        return sum(worker.job is not None for worker in self._state.workers.values())

    def poison(self, now: float) -> list[PoisonView]:
        """Code that workers were lost to, the latest first."""
        return self._state.poison.view(now)

    @property
    def editions(self) -> EditionsView:
        return self._state.editions.view()

    @property
    def breaker(self) -> Breaker:
        """To be read, not changed."""
        return self._state.breaker

    # ---- for the tests ----

    def validate(self) -> None:
        """Assert every invariant across the collections. Raises AssertionError with the name of the record."""
        pool = self._state
        pool.backlog.validate()
        assert self.wake_at <= self.next_deadline(), "a deadline lies before the next Tick"
        for worker_id, worker in pool.workers.items():
            assert worker.id == worker_id
            _check_worker(pool, worker)
        for job_id, job in pool.jobs.items():
            assert job.id == job_id
            _check_job(pool, job)
        assert pool.backlog.waiting.keys() <= pool.jobs.keys(), "only jobs with a record wait"
        _check_sizes(pool)


def _ignore_unknown(pool: State, event: Event) -> None:
    """The id is of something that is gone, or never existed."""
    assert isinstance(event, WorkerEvent | JobEvent), event
    record_id, kind = (event.worker_id, "worker") if isinstance(event, WorkerEvent) else (event.job_id, "job")
    pool.note_past(record_id, f"{type(event).__name__} ignored: no such {kind}, or it is gone")


_HAS_JOB = frozenset({WorkerState.LEASED, WorkerState.DRAINING})
_LEAVES = frozenset({WorkerState.DRAINING, WorkerState.STOPPING})


def _check_worker(pool: State, worker: WorkerRecord) -> None:
    name, state = worker.id, worker.state
    assert state is not WorkerState.GONE, f"{name} is gone and still has a record"
    if state is not WorkerState.FOUND:
        assert (worker.leaving is not None) == (state in _LEAVES), f"{name} is {state}, leaving: {worker.leaving}"
    assert (worker.due is None) == (state is WorkerState.STOPPING), f"{name} is {state}, due: {worker.due}"
    assert worker.jobs <= worker.jobs_limit <= pool.policy.max_jobs, f"{name} has served {worker.jobs}"
    assert (worker.ready_at is None) <= (worker.jobs == 0), f"{name} served a job before it was ready"
    if state not in {WorkerState.FOUND, WorkerState.STOPPING}:
        assert (worker.job is not None) == (state in _HAS_JOB), f"{name} is {state} with job {worker.job}"
    if state not in _HAS_JOB | {WorkerState.CLEANING, WorkerState.STOPPING}:
        assert not worker.code, f"{name} is {state}, and its failure would count against code"
    if (job := worker.job) is not None:
        assert pool.jobs[job.id] is job, f"{name} has {job.id}, which is gone"
        assert job.worker_id == name, f"{name} and {job.id} disagree on the lease"
        assert job.state is not JobState.QUEUED, f"{name} holds {job.id}, which waits"
        assert (job.pending_end is not None) == (state is WorkerState.STOPPING), f"{job.id}: {job.pending_end}"


def _check_job(pool: State, job: JobRecord) -> None:
    name, state = job.id, job.state
    assert state is not JobState.DONE, f"{name} is done and still has a record"
    assert (state is JobState.QUEUED) == (name in pool.backlog.waiting), f"{name} is {state}; in the backlog or not?"
    assert job.attempt <= 1 + job.retries, f"{name} was tried {job.attempt} times"
    if state is JobState.QUEUED:
        judged = any(worker.blamed == job.code for worker in pool.workers.values())
        assert judged or pool.poison.refused_s(job.code, pool.now) is None, f"{name} waits and its code is refused"
    else:
        assert job.worker_id is not None, f"{name} is {state} without a worker"
        assert pool.workers[job.worker_id].job is job, f"{job.worker_id} does not have {name}"


def _check_sizes(pool: State) -> None:
    policy, workers = pool.policy, pool.workers.values()
    assert pool.stopping == sum(worker.state is WorkerState.STOPPING for worker in workers)
    staying = [worker for worker in workers if worker.leaving is None]
    starting = [worker for worker in staying if worker.state is WorkerState.STARTING]
    assert len(staying) <= policy.max_workers, f"{len(staying)} workers, at most {policy.max_workers} may exist"
    assert len(starting) <= policy.start_concurrency, f"{len(starting)} starts at the same time"
    if pool.outgoing is not None:
        assert pool.workers.get(pool.outgoing.id) is pool.outgoing, "the worker being replaced is gone"
        assert pool.outgoing.worn is not None, "the worker being replaced has no reason to be"
    if pool.state in {PoolPhase.STOPPING, PoolPhase.STOPPED}:
        assert not staying, "workers stay in a pool that stops"
        assert not pool.backlog.waiting, "jobs wait in a pool that stops"
    if pool.state is PoolPhase.STOPPED:
        assert not workers, "workers in a pool that has stopped"

"""The state of one pool: every record and collection, and the few elementary changes that everything else is made of.

Only `core` touches it. What is decided stands in the tables and in the rules that run after each event; here it is only
written down, so that a change of state, its entry in the story and its command never come apart.
"""

from __future__ import annotations

from random import Random

from pool.core import policy as rules
from pool.core.backlog import Backlog
from pool.core.breaker import Breaker
from pool.core.editions import Editions
from pool.core.events import Command, Event, Finish, StartWorker, StopWorker
from pool.core.poison import Poison
from pool.core.policy import PoolPolicy
from pool.core.records import (
    JOB_MOVES,
    WORKER_MOVES,
    Bygone,
    JobRecord,
    PoolPhase,
    PoolRecord,
    Record,
    StopReason,
    StoryEntry,
    WorkerRecord,
    append,
)
from pool.model import JobState, Outcome, WorkerState


class State:
    """Mutable, passive. `begin` opens an event, `close` hands over the commands it led to."""

    def __init__(self, name: str, policy: PoolPolicy, *, seed: int, edition: int) -> None:
        self.pool = PoolRecord(id=name)
        self.policy = policy
        self.rng = Random(seed)  # noqa: S311 - spreads the recycling of workers and guards nothing
        self.workers: dict[str, WorkerRecord] = {}
        self.jobs: dict[str, JobRecord] = {}
        self.backlog = Backlog(max_jobs=policy.backlog_max, max_per_client=policy.backlog_per_client)
        self.breaker = Breaker()
        self.editions = Editions(edition)
        self.poison = Poison(
            kills=policy.poison_kills, window_s=policy.poison_window_s, refuse_s=policy.poison_refuse_s
        )
        self.bygone = Bygone()
        self.outgoing: WorkerRecord | None = None  #: the one worn worker that is being replaced
        self.epoch = 0
        self.target = 0
        self.review_at: float | None = 0.0  #: when the sizes must be looked at again; a new pool wants it at once
        self.now = 0.0
        self.cause = ""
        self.arrival: str | None = None  #: the job that came with this event
        self._numbered = 0
        self._commands: list[Command] = []

    # ---- one event ----

    def begin(self, event: Event, now: float) -> None:
        self.now = max(self.now, now)
        self.cause = event.cause or type(event).__name__
        self.arrival = None

    def close(self) -> list[Command]:
        commands, self._commands = self._commands, []
        return commands

    def emit(self, command: Command) -> None:
        self._commands.append(command)

    def review(self, at: float) -> None:
        """Look at the sizes again then, at the latest."""
        if self.review_at is None or at < self.review_at:
            self.review_at = at

    def tell(self, record: Record, text: str) -> None:
        append(record.history, StoryEntry(self.now, record.id, record.state, text, self.cause))

    def tell_bygone(self, record_id: str, text: str) -> None:
        """For what has no record: refused, unknown, or long gone."""
        self.bygone.keep(record_id, [StoryEntry(self.now, record_id, "", text, self.cause)])

    # ---- workers ----

    def move_worker(self, worker: WorkerRecord, to: WorkerState, text: str) -> None:
        assert to in WORKER_MOVES[worker.state], f"{worker.id}: {worker.state} -> {to}"
        worker.state = to
        self.tell(worker, text)

    def start_worker(self) -> None:
        self._numbered += 1
        young = self._numbered <= self.policy.max_workers
        worker_id = f"{self.pool.id}-{self._numbered}"
        worker = WorkerRecord(
            id=worker_id,
            edition=self.editions.take(worker_id, self.now),
            started_at=self.now,
            jobs_limit=rules.jobs_limit(self.policy.max_jobs, self.rng, young=young),
            retire_at=self.now + rules.age_limit_s(self.policy.max_age_s, self.rng, young=young),
            due=self.now + self.policy.boot_timeout_s,
        )
        self.workers[worker.id] = worker
        self.tell(worker, "start asked for" if worker.edition == 1 else f"start asked for, data {worker.edition}")
        self.emit(StartWorker(worker_id=worker.id, edition=worker.edition, cause=self.cause))

    def drain_worker(self, worker: WorkerRecord, reason: StopReason) -> None:
        worker.leaving = reason
        self.move_worker(worker, WorkerState.DRAINING, f"takes no more jobs: {reason}")

    def stop_worker(self, worker: WorkerRecord, reason: StopReason) -> None:
        """From any state but STOPPING and GONE. Of one that drains already, the story keeps the first reason."""
        if worker.state is not WorkerState.DRAINING:
            self.drain_worker(worker, reason)
        worker.leaving = reason
        worker.due = None
        self.editions.gone(worker.id, self.now)
        self.move_worker(worker, WorkerState.STOPPING, f"stop asked for: {reason}")
        self.emit(StopWorker(worker_id=worker.id, reason=reason, cause=self.cause))

    def drop_worker(self, worker: WorkerRecord) -> None:
        """The container is gone; so is the record, only its history stays."""
        if worker.state is not WorkerState.STOPPING:
            if worker.state is not WorkerState.DRAINING:
                self.drain_worker(worker, StopReason.VANISHED)
            self.move_worker(worker, WorkerState.STOPPING, "its container went by itself")
        self.move_worker(worker, WorkerState.GONE, "container gone")
        if self.outgoing is worker:
            self.outgoing = None
        self.bygone.keep(worker.id, self.workers.pop(worker.id).history)
        self.editions.gone(worker.id, self.now)
        self.editions.settle(self.workers.values())

    # ---- jobs ----

    def move_job(self, job: JobRecord, to: JobState, text: str) -> None:
        assert to in JOB_MOVES[job.state], f"{job.id}: {job.state} -> {to}"
        job.state = to
        self.tell(job, text)

    def finish_job(self, job: JobRecord, outcome: Outcome, reason: str, *, from_worker: bool = False) -> None:
        job.outcome, job.reason, job.done_at = outcome, reason, self.now
        self.move_job(job, JobState.DONE, f"{outcome}: {reason}" if reason else outcome.value)
        self.emit(
            Finish(
                job_id=job.id,
                outcome=outcome,
                reason=reason,
                worker_id=job.worker_id,
                attempt=job.attempt,
                from_worker=from_worker,
                started_at=job.started_at,
                cause=self.cause,
            )
        )

    def answer_deadline(self, job: JobRecord) -> float:
        """When the worker of a leased job must have answered."""
        began = job.leased_at if job.started_at is None else job.started_at
        assert began is not None, f"{job.id} was never leased"
        return rules.answer_deadline(
            began=began,
            wall_s=job.wall_s,
            kill_grace_s=self.policy.kill_grace_s,
            cancelled_at=job.cancelled_at,
            shutdown_at=self.pool.shutdown_at,
        )

    @property
    def accepting(self) -> bool:
        return self.pool.state is PoolPhase.RUNNING


# ---- invariants ----

_ON_A_WORKER = {JobState.LEASED, JobState.RUNNING}
_UNUSED = {WorkerState.STARTING, WorkerState.IDLE, WorkerState.SUSPECT}
_AT_WORK = {WorkerState.LEASED, WorkerState.DRAINING}
_ON_ITS_WAY_OUT = {WorkerState.DRAINING, WorkerState.STOPPING}


def validate(books: State) -> None:
    """Raise AssertionError with the record's name if anything contradicts anything."""
    books.backlog.validate()
    for worker_id, worker in books.workers.items():
        assert worker.id == worker_id
        _check_worker(books, worker)
    for job_id, job in books.jobs.items():
        assert job.id == job_id
        _check_job(books, job)
    assert set(books.backlog) <= set(books.jobs), "only jobs with a record wait"
    _check_sizes(books)


def _check_worker(books: State, worker: WorkerRecord) -> None:
    name, state = worker.id, worker.state
    assert state is not WorkerState.GONE, f"{name} is gone and still has a record"
    assert (worker.leaving is not None) == (state in _ON_ITS_WAY_OUT), f"{name} is {state}, leaving: {worker.leaving}"
    assert (worker.due is None) == (state is WorkerState.STOPPING), f"{name} is {state}, due: {worker.due}"
    assert worker.jobs <= worker.jobs_limit <= books.policy.max_jobs, f"{name} has served {worker.jobs}"
    assert (worker.ready_at is None) <= (worker.jobs == 0), f"{name} served a job before it was ready"
    if state in _UNUSED:
        assert worker.job_id is None, f"{name} is {state} with job {worker.job_id}"
        assert not worker.code, f"{name} is {state}, and code is to blame for what becomes of it"
    if state in _AT_WORK:
        assert (worker.job_id is None) == worker.clearing, f"{name} is {state} with job {worker.job_id}"
    if worker.clearing:
        assert state in {WorkerState.LEASED, WorkerState.STOPPING}, f"{name} is {state} and clears up"
    if worker.job_id is not None:
        job = books.jobs[worker.job_id]
        assert (job.worker_id, job.epoch) == (name, worker.epoch), f"{name} and {job.id} disagree on the lease"
        assert job.state in _ON_A_WORKER, f"{name} holds {job.id}, which is {job.state}"
        assert (job.verdict is not None) == (state is WorkerState.STOPPING), f"{job.id}, verdict: {job.verdict}"


def _check_job(books: State, job: JobRecord) -> None:
    name, state = job.id, job.state
    assert (state is JobState.QUEUED) == (name in books.backlog), f"{name} is {state}; in the backlog or not?"
    assert (state is JobState.DONE) == (job.outcome is not None), f"{name} is {state}, outcome: {job.outcome}"
    if state is JobState.QUEUED:
        assert books.poison.refused_s(job.code, books.now) is None, f"{name} waits and its code is refused"
    assert job.attempt <= 1, f"{name} was tried {job.attempt} times"
    if state in _ON_A_WORKER:
        assert job.worker_id is not None, f"{name} is {state} without a worker"
        assert books.workers[job.worker_id].job_id == name, f"{job.worker_id} does not know of {name}"


def _check_sizes(books: State) -> None:
    policy, workers = books.policy, books.workers.values()
    staying = [worker for worker in workers if worker.leaving is None]
    starting = [worker for worker in staying if worker.state is WorkerState.STARTING]
    assert len(staying) <= policy.max_workers, f"{len(staying)} workers, at most {policy.max_workers} may be"
    assert len(starting) <= policy.start_concurrency, f"{len(starting)} starts at the same time"
    if books.outgoing is not None:
        assert books.workers.get(books.outgoing.id) is books.outgoing, "the worker being replaced is gone"
        assert books.outgoing.worn is not None, "the worker being replaced is not worn"
    if books.pool.state in {PoolPhase.STOPPING, PoolPhase.STOPPED}:
        assert not staying, "workers stay in a pool that stops"
        assert not books.backlog, "jobs wait in a pool that stops"
    if books.pool.state is PoolPhase.STOPPED:
        assert not workers, "workers in a pool that has stopped"

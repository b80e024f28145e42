"""A PoolState with a clock of its own: every event is followed by validate(), every command is kept."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from pool.core.events import (
    CancelRequested,
    Command,
    Event,
    Finish,
    JobEnded,
    JobStarted,
    JobSubmitted,
    StartWorker,
    StopWorker,
    Tick,
    WorkerFreed,
    WorkerReady,
    WorkerRemoved,
)
from pool.core.machine import PoolState
from pool.core.policy import PoolPolicy
from pool.model import Outcome, WorkerState

C = TypeVar("C", bound=Command)

#: Nothing wears out and nobody falls silent, unless a test wants it.
STEADY = {"heartbeat_s": 1e6, "max_age_s": 1e6, "start_concurrency": 8, "boot_timeout_s": 1e5, "spare": 0}


class Rehearsal:
    """Plays events to a pool. Methods return the commands that the event led to."""

    def __init__(self, *, seed: int = 0, **policy: object) -> None:
        self.pool = PoolState("p", PoolPolicy(**{**STEADY, **policy}), seed=seed)
        self.now = 1000.0
        self.log: list[Command] = []

    def play(self, event: Event) -> list[Command]:
        commands = self.pool.handle(event, self.now)
        self.pool.validate()
        self.log += commands
        return commands

    def tick(self, after: float = 0.0) -> list[Command]:
        self.now += after
        return self.play(Tick())

    def pass_time(self, seconds: float) -> list[Command]:
        """Let time pass with a Tick at each deadline on the way, as the daemon does."""
        until, commands = self.now + seconds, []
        while (due := self.pool.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            commands += self.tick()
            later = self.pool.next_deadline()
            assert later is None or later > self.now, "a Tick clears every deadline that has passed"
        self.now = until
        return commands

    # ---- workers ----

    def up(self) -> Rehearsal:
        """Start the pool and let every start succeed."""
        self.tick()
        while starting := self.ids(WorkerState.STARTING):
            for worker_id in starting:
                self.play(WorkerReady(worker_id=worker_id))
        self.log.clear()
        return self

    def ready(self, worker_id: str) -> list[Command]:
        return self.play(WorkerReady(worker_id=worker_id))

    def clear_away(self) -> list[Command]:
        """The engine removes whatever is being stopped."""
        commands: list[Command] = []
        for worker_id in self.ids(WorkerState.STOPPING):
            commands += self.play(WorkerRemoved(worker_id=worker_id))
        return commands

    def ids(self, *states: WorkerState) -> list[str]:
        return [worker.id for worker in self.pool.workers.values() if not states or worker.state in states]

    def states(self) -> Counter[str]:
        return Counter(worker.state.value for worker in self.pool.workers.values())

    # ---- jobs ----

    def submit(self, job_id: str, client: str = "ann", *, wall_s: float = 10.0, **rest: object) -> list[Command]:
        return self.play(JobSubmitted(job_id=job_id, client=client, wall_s=wall_s, **rest))

    def start(self, job_id: str) -> list[Command]:
        job = self.pool.jobs[job_id]
        return self.play(JobStarted(worker_id=job.worker_id, job_id=job_id, epoch=job.epoch))

    def end(self, job_id: str, outcome: Outcome = Outcome.OK, *, dirty: str = "") -> list[Command]:
        job = self.pool.jobs[job_id]
        commands = self.play(JobEnded(worker_id=job.worker_id, job_id=job_id, epoch=job.epoch, outcome=outcome))
        return commands + self.play(WorkerFreed(worker_id=job.worker_id, epoch=job.epoch, dirty=dirty))

    def cancel(self, job_id: str) -> list[Command]:
        return self.play(CancelRequested(job_id=job_id))

    def run(self, job_id: str, client: str = "ann") -> str:
        """A whole job; the worker that ran it."""
        self.submit(job_id, client)
        self.start(job_id)
        self.end(job_id)
        return self.pool.jobs[job_id].worker_id

    def finishes(self) -> dict[str, Finish]:
        found = [command for command in self.log if isinstance(command, Finish)]
        by_id = {command.job_id: command for command in found}
        assert len(found) == len(by_id), "a job ends once"
        return by_id


def only(commands: list[Command], kind: type[C]) -> C:
    """The one command of this kind."""
    found = [command for command in commands if isinstance(command, kind)]
    assert len(found) == 1, commands
    return found[0]


def every(commands: list[Command], kind: type[C]) -> list[C]:
    return [command for command in commands if isinstance(command, kind)]


def started(commands: list[Command]) -> list[str]:
    return [command.worker_id for command in every(commands, StartWorker)]


def stopped(commands: list[Command]) -> dict[str, str]:
    return {command.worker_id: str(command.reason) for command in every(commands, StopWorker)}

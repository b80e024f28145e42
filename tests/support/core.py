"""A PoolState with a clock of its own: every event is followed by validate(), every command is kept."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TypeVar

from pool.core import events as ev
from pool.core.machine import PoolState
from pool.core.policy import PoolPolicy
from pool.errors import PoolError
from pool.model import Outcome, WorkerState

C = TypeVar("C", bound=ev.Command)

#: Nothing wears out and no worker falls silent, unless a test wants it.
STEADY = {"heartbeat_s": 1e6, "max_age_s": 1e6, "start_concurrency": 8, "boot_timeout_s": 1e5, "spare": 0}


class Core:
    """Sends events to a pool. Methods return the commands that the event led to."""

    def __init__(self, *, seed: int = 0, jitter: Random | None = None, edition: int = 1, **policy: object) -> None:
        self.pool = PoolState("p", PoolPolicy(**{**STEADY, **policy}), seed=seed, jitter=jitter, edition=edition)
        self.now = 1000.0
        self.log: list[ev.Command] = []
        self._workers: dict[str, str] = {}  # of each job that was dispatched

    def handle(self, event: ev.Event) -> list[ev.Command]:
        commands = with_dispatches(self.pool.handle(event, self.now))
        self.pool.validate()
        self.log += commands
        self._workers |= {each.job_id: each.worker_id for each in every(commands, ev.Dispatch)}
        return commands

    def tick(self, after: float = 0.0) -> list[ev.Command]:
        self.now += after
        return self.handle(ev.Tick())

    def pass_time(self, seconds: float) -> list[ev.Command]:
        """Let time pass with a Tick at each deadline on the way, as the daemon does."""
        until, commands = self.now + seconds, []
        while (due := self.pool.next_deadline()) <= until:
            self.now = max(self.now, due)
            commands += self.tick()
            assert self.pool.next_deadline() > self.now, "a Tick clears every deadline that has passed"
        self.now = until
        return commands

    # ---- workers ----

    def up(self) -> Core:
        """Start the pool and let every start succeed."""
        self.tick()
        self.all_ready()
        self.log.clear()
        return self

    def all_ready(self) -> None:
        while starting := self.ids(WorkerState.STARTING):
            for worker_id in starting:
                self.ready(worker_id)

    def ready(self, worker_id: str, *, shareable: bool = True) -> list[ev.Command]:
        return self.handle(ev.WorkerReady(worker_id=worker_id, shareable=shareable))

    def vanish(self, worker_id: str, reason: str = "link closed") -> list[ev.Command]:
        return self.handle(ev.WorkerVanished(worker_id=worker_id, reason=reason))

    def remove_stopped(self) -> list[ev.Command]:
        """The engine removes the containers that are being stopped."""
        commands: list[ev.Command] = []
        for worker_id in self.ids(WorkerState.STOPPING):
            commands += self.handle(ev.WorkerRemoved(worker_id=worker_id))
        return commands

    def recover(self) -> None:
        """The engine removes what is being stopped, and the starts that are under way succeed."""
        self.remove_stopped()
        self.all_ready()

    def ids(self, *states: WorkerState) -> list[str]:
        return [worker.id for worker in self.pool.workers.values() if not states or worker.state in states]

    def states(self) -> Counter[str]:
        return Counter(worker.state.value for worker in self.pool.workers.values())

    # ---- jobs ----

    def submit(self, job_id: str, client: str = "ann", *, wall_s: float = 10.0, **rest: object) -> list[ev.Command]:
        return self.handle(ev.JobSubmitted(job_id=job_id, client=client, wall_s=wall_s, **rest))

    def start(self, job_id: str) -> list[ev.Command]:
        return self.handle(ev.JobStarted(worker_id=self.worker_of(job_id)))

    def report(self, job_id: str, outcome: Outcome = Outcome.OK) -> list[ev.Command]:
        """The worker reports the end of the job, and has not cleaned up yet."""
        return self.handle(ev.JobEnded(worker_id=self.worker_of(job_id), outcome=outcome, attachment="the answer"))

    def free(self, worker_id: str, residue: str = "") -> list[ev.Command]:
        return self.handle(ev.WorkerFreed(worker_id=worker_id, residue=residue))

    def end(self, job_id: str, outcome: Outcome = Outcome.OK, *, residue: str = "") -> list[ev.Command]:
        """The worker reports the end of the job and cleans up."""
        worker_id, commands = self.worker_of(job_id), self.report(job_id, outcome)
        if worker_id in self.ids(WorkerState.CLEANING):
            commands += self.free(worker_id, residue)
        return commands

    def cancel(self, job_id: str) -> list[ev.Command]:
        return self.handle(ev.CancelRequested(job_id=job_id))

    def run(self, job_id: str, client: str = "ann", **rest: object) -> str:
        """A whole job; the worker that ran it."""
        self.submit(job_id, client, **rest)
        self.start(job_id)
        self.end(job_id)
        return self.worker_of(job_id)

    def worker_of(self, job_id: str) -> str:
        """The worker that the job was dispatched to. KeyError if there is none."""
        return self._workers[job_id]

    def finishes(self) -> dict[str, ev.Finish]:
        found = every(self.log, ev.Finish)
        by_id = {command.job_id: command for command in found}
        assert len(found) == len(by_id), "a job ends once"
        return by_id


def only(commands: list[ev.Command], kind: type[C]) -> C:
    """The one command of this kind."""
    found = every(commands, kind)
    assert len(found) == 1, commands
    return found[0]


def with_dispatches(commands: list[ev.Command]) -> list[ev.Command]:
    """The Dispatch of a job that was accepted and leased at once stands behind its Accept."""
    both = ([each, getattr(each, "dispatch", None)] for each in commands)
    return [command for pair in both for command in pair if command is not None]


def every(commands: list[ev.Command], kind: type[C]) -> list[C]:
    return [command for command in commands if isinstance(command, kind)]


def refusal(commands: list[ev.Command]) -> PoolError | None:
    """Why the submitted job was refused, if it was."""
    refused = every(commands, ev.Refuse)
    return refused[0].error if refused else None


def started(commands: list[ev.Command]) -> list[str]:
    return [command.worker_id for command in every(commands, ev.StartWorker)]


def stopped(commands: list[ev.Command]) -> dict[str, str]:
    return {command.worker_id: str(command.reason) for command in every(commands, ev.StopWorker)}

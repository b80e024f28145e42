"""One pool: its PoolState is fed with events, and what it decides is carried out.

    clients, admin, watch, clock ──┐                         ┌──▶ lifecycle.py   StartWorker, StopWorker
                                ├─event─▶ PoolState ─command─▶ attempts.py    Dispatch, KillJob, Finish
    links ─word─▶ hear ─────────┘         .handle         └──▶ here           ProbeWorker, Refuse

The keeper decides nothing; what is in here is translation. A command that fails becomes the event that says so.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import structlog

from pool import wire
from pool.config import Template
from pool.core import events as ev
from pool.core.machine import InvalidTransition, PoolState
from pool.daemon.attempts import Attempts
from pool.daemon.berth import Pool, Shared
from pool.daemon.boot import Boot, Step
from pool.daemon.datasets import PoolDatasets, Report
from pool.daemon.job_store import Job
from pool.daemon.lifecycle import Lifecycle
from pool.daemon.worker_spec import WorkerSpecFactory
from pool.errors import RemoteProtocolError
from pool.model import WorkerState

log = structlog.get_logger(__name__)


class Keeper:
    """Runs one pool. All methods are called from the loop's thread."""

    def __init__(
        self, state: PoolState, template: Template, specs: WorkerSpecFactory, shared: Shared, *, datasets: PoolDatasets
    ) -> None:
        pool = Pool(state=state, template=template, datasets=datasets, shared=shared)
        self.state = state
        self.template = template
        self.datasets = datasets
        self.metrics = pool.metrics
        self.berths = pool.berths
        self.was_ready = False
        self.broken_since: float | None = None
        self._links = shared.transport.links
        self._lifecycle = Lifecycle(pool, specs, apply=self.apply)
        self._attempts = Attempts(pool, apply=self.apply, lost=self._lifecycle.lost)
        self._events: deque[ev.Event] = deque()
        self._busy = False
        self._refusal: ev.Refuse | None = None
        self._carry = {
            ev.StartWorker: self._lifecycle.start,
            ev.StopWorker: self._lifecycle.stop,
            ev.ProbeWorker: self._probe_worker,
            ev.Dispatch: self._attempts.dispatch,
            ev.KillJob: self._attempts.kill,
            ev.Finish: self._attempts.finish,
            ev.Refuse: self._refuse,
        }

    # ---- events in, commands out ----

    def apply(self, event: ev.Event) -> None:
        """Handle an event, and every event that carrying out its commands leads to."""
        self._events.append(event)
        if self._busy:
            return  # called from within a command; the outer call goes on with it
        self._busy = True
        try:
            while self._events:
                for command in self.state.handle(self._events.popleft(), time.monotonic()):
                    self._carry[type(command)](command)  # type: ignore[operator]
        finally:
            self._busy = False
        if not self.state.breaker.open:
            self.broken_since = None
        elif self.broken_since is None:
            self.broken_since = time.monotonic()

    def submit(self, event: ev.JobSubmitted) -> ev.Refuse | None:
        """Offer a job; the refusal, if the pool cannot take it."""
        self._refusal = None
        self.apply(event)
        return self._refusal

    def _refuse(self, command: ev.Refuse) -> None:
        self._refusal = command

    def stream(self, job: Job) -> None:
        """Somebody reads what this job prints."""
        self._attempts.stream(job)

    def tick(self, now: float) -> None:
        due = self.state.next_deadline()
        if due is not None and now >= due:
            self.apply(ev.Tick(cause="clock"))

    def stock(self, report: Report) -> None:
        """What the watch has found of the data sets: offer it, if it is new."""
        if self.datasets.update(report):
            edition = self.datasets.newest
            contents = {name: f"{pin.path} {pin.digest[:12]}" for name, pin in self.datasets.of(edition).items()}
            log.info("data sets", action="datasets", pool=self.state.name, edition=edition, **contents)
            self.apply(ev.EditionOffered(edition=edition, cause="data sets"))
        view = self.state.editions
        self.datasets.trim({view.current, view.trial or 0, *(each.edition for each in self.state.workers.values())})

    # ---- workers ----

    def hear(self, worker_id: str, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> None:
        """A word from a worker."""
        berth = self.berths.get(worker_id)
        if berth is None:
            return
        try:
            message = berth.conduct.hear(message, time.monotonic())
            if berth.boot.step is not Step.UP:
                self._lifecycle.hear(worker_id, message, payload)
            elif isinstance(message, wire.Heartbeat):
                self.apply(ev.BeatHeard(worker_id=worker_id, cause="link"))
            elif isinstance(message, wire.Broken):
                self.lost(worker_id, message.reason)
            else:
                self._attempts.hear(worker_id, message, payload)
        except RemoteProtocolError as error:
            self.lost(worker_id, f"it broke the protocol: {error}")
        except InvalidTransition as error:
            self.lost(worker_id, f"it said what cannot be: {error}")

    def lost(self, worker_id: str, reason: str) -> None:
        """Its link is of no use any more."""
        self._lifecycle.lost(worker_id, reason)

    def _probe_worker(self, command: ev.ProbeWorker) -> None:
        self._links.send(command.worker_id, wire.Probe(seq=0))

    @property
    def ready(self) -> bool:
        """Whether at least one worker can take, or has taken, a job."""
        return any(worker.state in {WorkerState.IDLE, WorkerState.LEASED} for worker in self.state.workers.values())

    @property
    def failed(self) -> tuple[str, Boot] | None:
        """The last worker whose lockdown did not hold, while none is up."""
        return self._lifecycle.failed

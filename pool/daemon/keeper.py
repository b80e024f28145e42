"""One pool: its PoolState is fed with events, and what it decides is carried out.

    transport, crew, clock ──event──▶ PoolState.handle ──commands──▶ links, crew, ledger, submitters

The keeper decides nothing; what is in here is translation. A command that fails becomes the event that says so.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence

import msgspec
import structlog

from pool import wire
from pool.config import Template
from pool.core import events as ev
from pool.core.machine import InvalidTransition, PoolState
from pool.daemon.answers import check, from_worker, without_run
from pool.daemon.berth import Berth, Shared
from pool.daemon.blueprint import Blueprint
from pool.daemon.boot import Boot, BootError, Step
from pool.daemon.conduct import Conduct, shown
from pool.daemon.crew import Launched
from pool.daemon.intake import largest_answer
from pool.daemon.ledger import Entry
from pool.daemon.links import UNLEASED_BYTES
from pool.daemon.metrics import Metrics
from pool.daemon.shelf import Shelf
from pool.daemon.watch import Report
from pool.engines.base import Container
from pool.errors import ImageMissingError, PoolError, RemoteProtocolError
from pool.model import WorkerState

log = structlog.get_logger(__name__)


class Keeper:
    """Runs one pool. All methods are called from the loop's thread."""

    def __init__(
        self, state: PoolState, template: Template, blueprint: Blueprint, shared: Shared, *, shelf: Shelf
    ) -> None:
        self.state = state
        self.template = template
        self.shelf = shelf
        self.metrics = Metrics()
        self.berths: dict[str, Berth] = {}
        self.was_ready = False
        self.broken_since: float | None = None
        self.failed: tuple[str, Boot] | None = None  #: the last worker whose lockdown did not hold, while none is up
        self._blueprint = blueprint
        self._shared = shared
        self._events: deque[ev.Event] = deque()
        self._busy = False
        self._refusal: ev.Refuse | None = None
        self._largest_answer = largest_answer(template.maximum)
        self._carry = {
            ev.StartWorker: self._start_worker,
            ev.StopWorker: self._stop_worker,
            ev.ProbeWorker: self._probe_worker,
            ev.Dispatch: self._dispatch,
            ev.KillJob: self._kill_job,
            ev.Finish: self._finish,
            ev.Refuse: self._refuse,
        }

    # ---- events in ----

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

    def tick(self, now: float) -> None:
        due = self.state.next_deadline()
        if due is not None and now >= due:
            self.apply(ev.Tick(cause="clock"))

    def hear(self, worker_id: str, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> None:
        """A word from a worker."""
        berth = self.berths.get(worker_id)
        if berth is None:
            return
        try:
            self._hear(worker_id, berth, berth.conduct.hear(message, time.monotonic()), payload)
        except RemoteProtocolError as error:
            self.lost(worker_id, f"it broke the protocol: {error}")
        except InvalidTransition as error:
            self.lost(worker_id, f"it said what cannot be: {error}")

    def _hear(self, worker_id: str, berth: Berth, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> None:
        if berth.boot.step is not Step.UP:
            self._hear_booting(worker_id, berth, message, payload)
        elif isinstance(message, wire.Beat):
            self.apply(ev.BeatHeard(worker_id=worker_id, cause="link"))
        elif isinstance(message, wire.Started):
            self.apply(ev.JobStarted(worker_id=worker_id, job_id=self._key(worker_id), epoch=message.epoch))
        elif isinstance(message, wire.Printed):
            self._hear_printed(worker_id, message, payload)
        elif isinstance(message, wire.Done):
            self._hear_done(worker_id, berth, message, payload)
        elif isinstance(message, wire.Freed):
            if message.dirty:
                log.warning("a worker is not as before its job", action="dirty", worker=worker_id, reason=message.dirty)
                self.metrics.dirtied(message.dirty)
            self.apply(ev.WorkerFreed(worker_id=worker_id, epoch=message.epoch, dirty=message.dirty, cause="link"))
        elif isinstance(message, wire.Broken):
            self.lost(worker_id, message.reason)

    def lost(self, worker_id: str, reason: str) -> None:
        """The link is of no use any more."""
        berth = self.berths.get(worker_id)
        if berth is None:
            return
        reason = shown(reason)
        if berth.boot.step is Step.UP:
            log.warning("a worker is lost", action="worker_lost", worker=worker_id, reason=reason)
            self.apply(ev.WorkerVanished(worker_id=worker_id, reason=reason, cause="link"))
        else:
            self._boot_failed(worker_id, reason)

    # ---- a worker's start ----

    def _start_worker(self, command: ev.StartWorker) -> None:
        worker_id = command.worker_id
        directory = self._shared.transport.links.open(worker_id)
        spec = self._blueprint.spec(worker_id, directory, self.shelf.of(command.edition))
        conduct = Conduct(heartbeat_s=self.template.heartbeat_s)
        self.berths[worker_id] = Berth(boot=self._blueprint.boot(), conduct=conduct, uid=spec.uid)
        log.info(
            "starting a worker",
            action="worker_start",
            pool=self.state.name,
            worker=worker_id,
            edition=command.edition,
            cause=command.cause,
        )
        self._shared.crew.launch(
            spec,
            on_up=lambda launched: self._launched(worker_id, launched),
            on_failed=lambda error: self._launch_failed(worker_id, error),
        )

    def _launched(self, worker_id: str, launched: Launched) -> None:
        berth = self.berths.get(worker_id)
        if berth is not None:
            berth.container, berth.pid = launched.container, launched.pid
        if launched.pidfd is None:
            return
        if berth is None or berth.boot.step is not Step.LAUNCHED:
            os.close(launched.pidfd)
            return
        # Only until its first word: from then on the link tells of its end, after everything it has said.
        berth.pidfd = launched.pidfd
        self._shared.transport.watch(launched.pidfd, lambda: self._died_early(worker_id, launched.container))

    def _launch_failed(self, worker_id: str, error: PoolError) -> None:
        self._boot_failed(worker_id, error.message, permanent=isinstance(error, ImageMissingError))

    def _died_early(self, worker_id: str, container: Container) -> None:
        berth = self.berths.get(worker_id)
        if berth is not None:
            berth.pidfd = None
        self._shared.crew.diagnose(
            container, lambda words: self._boot_failed(worker_id, f"its container ended before it said a word: {words}")
        )

    def _hear_booting(
        self, worker_id: str, berth: Berth, message: wire.FromRunner, payload: Sequence[wire.Frame]
    ) -> None:
        self._unwatch(berth)
        try:
            if (question := berth.boot.hear(message, payload)) is not None:
                berth.conduct.lease(question.run.job_id, 0)
                self._shared.transport.links.send(worker_id, question.run, question.payload)
        except BootError as error:
            if berth.boot.lockdown == "broken":
                self.failed = worker_id, berth.boot
            self._boot_failed(worker_id, str(error), permanent=error.permanent)
            return
        if berth.boot.step is Step.UP:
            self.failed = None
            log.info(
                "a worker is idle",
                action="worker_ready",
                pool=self.state.name,
                worker=worker_id,
                boot_ms=berth.boot.boot_ms,
            )
            if berth.boot.missing:
                log.warning(
                    "this host refuses parts of a worker's isolation: no worker serves two clients",
                    action="worker_degraded",
                    worker=worker_id,
                    missing=berth.boot.missing,
                )
            self.apply(ev.WorkerReady(worker_id=worker_id, shareable=not berth.boot.missing, cause="lockdown probe"))

    def _boot_failed(self, worker_id: str, reason: str, *, permanent: bool = False) -> None:
        reason = shown(reason)
        worker = self.state.workers.get(worker_id)
        wanted = worker is not None and worker.leaving is None  # a start that is being stopped may fail as it likes
        say = log.error if wanted else log.debug
        say("a worker could not be started", action="worker_failed", worker=worker_id, reason=reason)
        self.apply(ev.WorkerFailed(worker_id=worker_id, reason=reason, permanent=permanent, cause="boot"))

    # ---- a worker's end ----

    def _stop_worker(self, command: ev.StopWorker) -> None:
        worker_id = command.worker_id
        berth = self.berths.get(worker_id)
        self.metrics.recycles[command.reason] += 1
        log.info(
            "stopping a worker", action="worker_stop", worker=worker_id, reason=command.reason, cause=command.cause
        )
        self._shared.transport.links.close(worker_id)
        if berth is not None:
            self._unwatch(berth)
        self._shared.crew.stop(
            worker_id, diagnose=command.reason == "boot_timeout", on_gone=lambda words: self._removed(worker_id, words)
        )

    def _removed(self, worker_id: str, words: str) -> None:
        if words:
            log.error("last words of a worker", action="worker_words", worker=worker_id, words=words)
        self.apply(ev.WorkerRemoved(worker_id=worker_id, cause="engine"))  # a job that died with it is answered now
        self.berths.pop(worker_id, None)

    def _unwatch(self, berth: Berth) -> None:
        if berth.pidfd is not None:
            self._shared.transport.unwatch(berth.pidfd)
            berth.pidfd = None

    def _probe_worker(self, command: ev.ProbeWorker) -> None:
        self._shared.transport.links.send(command.worker_id, wire.Probe(seq=0))

    # ---- data sets ----

    def stock(self, report: Report) -> None:
        """What the watch has found: offer it, if it is new."""
        if self.shelf.update(report):
            edition = self.shelf.newest
            contents = {name: f"{pin.path} {pin.digest[:12]}" for name, pin in self.shelf.of(edition).items()}
            log.info("data sets", action="datasets", pool=self.state.name, edition=edition, **contents)
            self.apply(ev.EditionOffered(edition=edition, cause="data sets"))
        view = self.state.editions
        self.shelf.trim({view.current, view.trial or 0, *(each.edition for each in self.state.workers.values())})

    # ---- jobs ----

    def _dispatch(self, command: ev.Dispatch) -> None:
        entry = self._shared.ledger.get(command.job_id)
        if entry is None or entry.run is None:  # pragma: no cover - core and ledger are changed together
            raise RuntimeError(f"the core dispatched {command.job_id}, which the ledger does not hold")
        entry.leased_ns, entry.worker = time.monotonic_ns(), command.worker_id
        entry.attempt, entry.start = command.attempt, command.start
        self.metrics.leased(command.start)
        run = msgspec.structs.replace(entry.run, epoch=command.epoch)
        links = self._shared.transport.links
        links.allow(command.worker_id, self._largest_answer + wire.MAX_HEADER_BYTES)
        self.berths[command.worker_id].conduct.lease(run.job_id, run.epoch)
        if not links.send(command.worker_id, run, entry.payload):
            self.lost(command.worker_id, "it did not take a job")
        elif entry.tape is not None:
            self.stream(entry)

    def stream(self, entry: Entry) -> None:
        """Have the job's worker say what it prints, if it has one now."""
        berth = self.berths.get(entry.worker or "")
        if berth is None or entry.worker is None or entry.tape is None or self._key(entry.worker) != entry.key:
            return
        if (order := berth.conduct.stream()) is not None:
            entry.tape.start(time.monotonic())
            self._shared.transport.links.send(entry.worker, order)

    def _kill_job(self, command: ev.KillJob) -> None:
        entry = self._shared.ledger.get(command.job_id)
        if entry is not None and entry.run is not None:
            order = wire.Kill(job_id=entry.run.job_id, epoch=command.epoch)
            self._shared.transport.links.send(command.worker_id, order)

    def _key(self, worker_id: str) -> str:
        """The job the core has leased to a worker: what a worker says is only ever about that one."""
        worker = self.state.workers.get(worker_id)
        return (worker.job_id if worker is not None else None) or ""

    def _hear_printed(self, worker_id: str, printed: wire.Printed, payload: Sequence[wire.Frame]) -> None:
        entry = self._shared.ledger.get(self._key(worker_id))
        if entry is not None and entry.tape is not None:
            entry.tape.take(printed, payload, time.monotonic())
            self._shared.outlet.show(entry.tape)

    def _hear_done(self, worker_id: str, berth: Berth, done: wire.Done, payload: Sequence[wire.Frame]) -> None:
        check(done, payload, largest=self._largest_answer)
        entry = self._shared.ledger.get(self._key(worker_id))
        if entry is not None and entry.tape is not None:
            entry.tape.check(payload)
        self._shared.transport.links.allow(worker_id, UNLEASED_BYTES)
        berth.done = done, payload
        self.apply(
            ev.JobEnded(
                worker_id=worker_id,
                job_id=self._key(worker_id),
                epoch=done.epoch,
                outcome=done.outcome,
                reason=done.reason,
                cause="link",
            )
        )
        berth.done = None

    def _finish(self, command: ev.Finish) -> None:
        entry = self._shared.ledger.get(command.job_id)
        if entry is None:
            return
        berth = self.berths.get(command.worker_id or "")
        container = berth.container.id if berth is not None and berth.container is not None else None
        if command.from_worker and berth is not None and berth.done is not None:
            result, answer = from_worker(
                entry, *berth.done, container=container, memory_bytes=self.template.maximum.memory
            )
        else:
            result, answer = without_run(entry, command, container=container)
        overhead = result.dispatch_ms + result.collect_ms if command.from_worker else None
        self.metrics.ended(result.outcome, overhead_ms=overhead, queue_ms=result.queue_ms)
        log.debug("a job is done", action="job_done", job=entry.key, outcome=result.outcome)
        self._shared.deliver(entry, self._shared.ledger.finish(entry, result, answer, now=time.monotonic()))

    def _refuse(self, command: ev.Refuse) -> None:
        self._refusal = command

    @property
    def ready(self) -> bool:
        """Whether at least one worker can take, or has taken, a job."""
        return any(worker.state in {WorkerState.IDLE, WorkerState.LEASED} for worker in self.state.workers.values())

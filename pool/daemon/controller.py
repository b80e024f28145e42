"""One pool: events go into its PoolState, and the commands that come out are carried out.

    clients, admin, data sets, clock ──┐
    worker ─message─▶ WorkerProtocol ──┼─event─▶ PoolState.handle ─command─▶ StartWorker, StopWorker, ProbeWorker
    engine ─outcome────────────────────┘                                     Dispatch, KillJob, Accept, Refuse, Finish

The controller decides nothing. It never waits: engine calls and the journal run in threads, and their outcome is
another event. Accept, Dispatch and Finish are written to the journal before anything is sent to a client or worker.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import structlog

from pool import wire
from pool.config import Template
from pool.core import events as ev
from pool.core.machine import InvalidTransition, PoolState
from pool.daemon.adoption import Adoption
from pool.daemon.datasets import PoolDatasets, Report
from pool.daemon.engine_executor import Launched
from pool.daemon.job_carrier import Answer, JobCarrier
from pool.daemon.journal_entries import SetFact
from pool.daemon.metrics import Metrics
from pool.daemon.output import OutputStream
from pool.daemon.self_tests import StartFailed
from pool.daemon.worker_handle import Services, WorkerHandle
from pool.daemon.worker_protocol import (
    Effect,
    Phase,
    WorkerProtocol,
    check_answer,
    claims_of,
    largest_answer,
    printable,
)  # fmt: skip
from pool.daemon.worker_spec import WorkerSpecFactory
from pool.engines.base import Container
from pool.errors import ImageMissingError, PoolError, RemoteProtocolError
from pool.model import Outcome, WorkerState

log = structlog.get_logger(__name__)

_REPORTED = "reported by the worker"
#: The text for a message that only reports an event.
_EVENTS: Mapping[Effect, type[ev.WorkerEvent]] = {
    Effect.CONNECTED: ev.WorkerConnected,
    Effect.HEARTBEAT: ev.Heartbeat,
    Effect.STARTED: ev.JobStarted,
}
#: An answer that is refused in one of these phases, and leaves it as it is, is a second one or of an earlier attempt.
_NO_ANSWER_DUE = frozenset({Phase.IDLE, Phase.LEASED, Phase.CLEANUP})
#: Of a worker that has no directory, and so no link.
_NO_USER = -1


class PoolController:
    """Runs one pool. All methods are called from the loop's thread."""

    def __init__(
        self,
        state: PoolState,
        template: Template,
        specs: WorkerSpecFactory,
        services: Services,
        *,
        datasets: PoolDatasets,
    ) -> None:
        self.state = state  #: read by others, changed by `apply` only
        self.template = template
        self.datasets = datasets
        self._metrics = Metrics()
        self.handles: dict[str, WorkerHandle] = {}
        self.was_ready = False  #: whether one of its workers has ever been ready
        self.lockdown_failure: WorkerHandle | None = None  #: the last one whose lockdown did not hold, while none is up
        self.engine = specs.engine
        self._specs = specs
        self._transport = services.transport
        self._links = services.transport.links
        self._executor = services.executors[specs.engine]
        self._jobs = services.jobs
        self._journal = services.journal
        self._outputs = services.outputs
        self._kept = services.kept
        self._largest_answer = largest_answer(template.maximum)
        self._events: deque[ev.Event] = deque()
        self._busy = False
        self.adoption = Adoption(
            self, services, specs, heartbeat_s=template.heartbeat_s, largest_answer=self._largest_answer
        )
        self.carrier = JobCarrier(self, services, self._metrics, bind=self.adoption.bind, template=template)
        self._commands: dict[type[ev.Command], Callable[..., PoolError | None]] = {
            ev.StartWorker: self._start_worker,
            ev.StopWorker: self._stop_worker,
            ev.ProbeWorker: self._probe_worker,
            ev.Accept: self.carrier.accept,
            ev.Refuse: self.carrier.refused,
            ev.Dispatch: self.carrier.dispatch,
            ev.KillJob: self.carrier.kill,
            ev.Finish: self.carrier.finish,
        }
        self._effects: dict[Effect, Callable[..., None]] = {
            Effect.SEND_TEST: self._send_test,
            Effect.READY: self._ready,
            Effect.RESUMED: self.adoption.resumed,
            Effect.PRINTED: self._printed,
            Effect.DONE: self._done,
            Effect.FREED: self._freed,
            Effect.BROKEN: self._broken,
        }

    @property
    def metrics(self) -> Metrics:
        """With all jobs counted. The way of a job has no need of that."""
        self._metrics.count()
        return self._metrics

    @property
    def missing(self) -> tuple[str, ...]:
        """Parts of the isolation that the host refuses its workers."""
        return tuple(sorted({part for handle in self.handles.values() for part in handle.start.missing}))

    # ---- events in, commands out ----

    def apply(self, event: ev.Event) -> PoolError | None:
        """Handle an event, and every event that carrying out its commands leads to. Returns why a job is refused."""
        if self._busy:
            self._events.append(event)
            return None  # called from within a command; the outer call goes on with it
        refusal, self._busy, following = None, True, self._events
        try:
            while True:
                for command in self.state.handle(event, time.monotonic()):
                    refusal = self._commands[type(command)](command) or refusal
                if not following:
                    return refusal
                event = following.popleft()
        finally:
            self._busy = False

    def update_datasets(self, report: Report) -> None:
        """Offer the pool a new edition if the content of its data sets has changed."""
        if self.datasets.update(report):
            edition = self.datasets.newest
            contents = {name: f"{pin.path} {pin.digest[:12]}" for name, pin in self.datasets.of(edition).items()}
            log.info("data sets", action="datasets", pool=self.state.name, edition=edition, **contents)
            self.apply(ev.EditionOffered(edition=edition, cause="data sets"))
        view = self.state.editions
        self.datasets.trim({view.current, view.trial or 0, *(each.edition for each in self.state.workers.values())})

    # ---- a worker's start ----

    def _start_worker(self, command: ev.StartWorker) -> None:
        worker_id, edition = command.worker_id, command.edition
        protocol = WorkerProtocol(self._specs.start_check(), heartbeat_s=self.template.heartbeat_s)
        try:
            directory = self._links.open(worker_id, self)
            spec = self._specs.spec(worker_id, directory, self.datasets.of(edition))
        except OSError as error:
            handle = self.add_handle(worker_id, _NO_USER, number=0, protocol=protocol)
            self._start_failed(handle, f"its directory in daemon.run_dir cannot be made: {error}")
            return
        handle = self.add_handle(worker_id, spec.uid, number=int(directory.name), protocol=protocol)
        handle.log.info("starting a worker", action="worker_start", edition=edition, cause=command.cause)

        def failed(error: PoolError) -> None:
            self._start_failed(handle, error.message, permanent=isinstance(error, ImageMissingError))

        def numbered(_: PoolError | None) -> None:
            worker = self.state.workers.get(worker_id)
            if worker is not None and worker.leaving is None:
                self._executor.launch(spec, on_up=lambda launched: self.launched(handle, launched), on_failed=failed)

        self._journal.write(SetFact(worker_number(self.state.name), command.number), numbered)

    def add_handle(self, worker_id: str, uid: int, *, number: int, protocol: WorkerProtocol) -> WorkerHandle:
        logger = log.bind(pool=self.state.name, worker=worker_id)
        handle = WorkerHandle(id=worker_id, uid=uid, number=number, protocol=protocol, log=logger)
        self.handles[worker_id] = handle
        return handle

    def launched(self, handle: WorkerHandle, launched: Launched) -> None:
        handle.container, handle.pid = launched.container, launched.pid
        if launched.pidfd is None:
            return
        if handle.id not in self.handles or handle.protocol.phase is not Phase.NEW:
            os.close(launched.pidfd)
            return
        handle.pidfd = launched.pidfd
        self._transport.watch(launched.pidfd, lambda: self._exited_early(handle, launched.container))

    def _exited_early(self, handle: WorkerHandle, container: Container) -> None:
        """Its process has ended before its first message. After the first message the end of the link shows it."""
        handle.pidfd = None
        reason = "its container ended before its first message"
        self._executor.diagnose(container, lambda output: self._start_failed(handle, f"{reason}: {output}"))

    def _unwatch(self, handle: WorkerHandle) -> None:
        if handle.pidfd is not None:
            self._transport.unwatch(handle.pidfd)
            handle.pidfd = None

    def _start_failed(self, handle: WorkerHandle, reason: str, *, permanent: bool = False) -> None:
        reason = printable(reason)
        worker = self.state.workers.get(handle.id)
        wanted = worker is not None and worker.leaving is None  # a worker that is being stopped need not start
        write = handle.log.error if wanted else handle.log.debug
        if wanted:
            self._metrics.failed_starts.add(reason)
        write("a worker could not be started", action="worker_failed", reason=reason)
        self.apply(ev.WorkerFailed(worker_id=handle.id, reason=reason, permanent=permanent, cause="start"))

    def _send_test(self, handle: WorkerHandle, *_: object) -> None:
        if (test := handle.start.test) is not None:
            self._links.send(handle.id, test.run, test.payload)

    def _ready(self, handle: WorkerHandle, *_: object) -> None:
        self.lockdown_failure = None
        self._metrics.starts.add()
        handle.log.info("a worker is idle", action="worker_ready", boot_ms=round(handle.start.boot_ms))
        if not self.was_ready:
            self.was_ready = True
            log.info("a pool is ready", action="pool_ready", pool=self.state.name)
        missing = handle.start.missing
        if missing:
            text = "this host refuses parts of a worker's isolation: no worker serves two clients"
            handle.log.warning(text, action="worker_degraded", missing=missing)
        self.adoption.keep(handle)
        self.apply(ev.WorkerReady(worker_id=handle.id, shareable=not missing, cause="self-tests passed"))

    # ---- messages from workers ----

    def receive(self, worker_id: str, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> None:
        """A message from a worker. One that is not allowed destroys the worker."""
        handle = self.handles.get(worker_id)
        if handle is None:
            return
        phase = handle.protocol.phase
        try:
            effect, message = handle.protocol.receive(message, payload, time.monotonic())
            if handle.pidfd is not None:
                self._unwatch(handle)
            if (event := _EVENTS.get(effect)) is not None:
                self.apply(event(worker_id=worker_id, cause=_REPORTED))
            elif (act := self._effects.get(effect)) is not None:
                act(handle, message, payload)
        except StartFailed as error:
            if handle.start.lockdown == "broken":
                self.lockdown_failure = handle
                self._metrics.lockdown_failures.add(printable(str(error)))
            self._start_failed(handle, str(error), permanent=error.permanent)
        except RemoteProtocolError as error:
            late = phase in _NO_ANSWER_DUE and phase is handle.protocol.phase
            self._metrics.late_answers += late and isinstance(message, wire.Done)
            self.lost(worker_id, f"it broke the protocol: {error}")
        except InvalidTransition as error:
            self.lost(worker_id, f"it reported an event that is not possible now: {error}")

    def _broken(self, handle: WorkerHandle, message: wire.Broken, _: object) -> None:
        if handle.protocol.starting:
            self._start_failed(handle, message.reason, permanent=message.permanent)
        else:
            self.lost(handle.id, message.reason)

    def _probe_worker(self, command: ev.ProbeWorker) -> None:
        self._links.send(command.worker_id, wire.Probe(seq=0))

    # ---- a worker's end ----

    def lost(self, worker_id: str, reason: str) -> None:
        """The worker's link cannot be used any more."""
        handle, reason = self.handles.get(worker_id), printable(reason)
        if handle is None:
            return
        if handle.protocol.starting:
            self._start_failed(handle, reason)
        else:
            handle.log.warning("a worker is lost", action="worker_lost", reason=reason, **self._ids(handle))
            has_job = handle.protocol.has_job
            self.apply(ev.WorkerVanished(worker_id=worker_id, reason=reason, has_job=has_job, cause="link"))

    def _stop_worker(self, command: ev.StopWorker) -> None:
        handle, reason = self.handles[command.worker_id], command.reason
        self._metrics.recycles[reason] += 1
        handle.log.info("stopping a worker", action="worker_stop", reason=reason, cause=command.cause)
        self._kept.remove(handle.number)
        self._links.close(handle.id)
        self._unwatch(handle)
        if command.failure:
            self._metrics.failed_starts.add(command.failure)
            handle.log.error("a worker could not be started", action="worker_failed", reason=command.failure)
        self._executor.stop(handle.id, diagnose=bool(command.failure), on_gone=lambda *end: self._removed(handle, *end))

    def _removed(self, handle: WorkerHandle, output: str, engine_away: bool) -> None:  # noqa: FBT001 - of a callback
        if output:
            handle.log.error("the last output of a worker", action="worker_output", output=output)
        # This finishes a job that was killed with it.
        self.apply(ev.WorkerRemoved(worker_id=handle.id, engine_away=engine_away, cause="engine"))
        del self.handles[handle.id]

    # ---- a job and its worker ----

    def _ids(self, handle: WorkerHandle) -> dict[str, str | None]:
        """The worker's job and its client, for a line of the log."""
        worker = self.state.workers.get(handle.id)
        job = worker.job if worker is not None else None
        return {"job": job.id if job is not None else None, "client": worker.client if worker is not None else None}

    def _output_of(self, handle: WorkerHandle) -> OutputStream | None:
        """The output of the worker's job, if a client has asked for it."""
        worker = self.state.workers.get(handle.id)
        job = self._jobs.by_key.get(worker.job.id) if worker is not None and worker.job is not None else None
        return job.output if job is not None else None

    def _printed(self, handle: WorkerHandle, message: wire.Printed, payload: Sequence[wire.Frame]) -> None:
        if (output := self._output_of(handle)) is not None:
            output.append(message, payload, time.monotonic())
            self._outputs.send(output)

    def _done(self, handle: WorkerHandle, done: wire.Done, payload: Sequence[wire.Frame]) -> None:
        largest, has_frames = self._largest_answer, len(payload) >= wire.FIXED_FRAMES
        if done.outcome is not Outcome.OK or any(claims_of(done)) or not has_frames or sum(map(len, payload)) > largest:
            check_answer(done, payload, largest=largest)
        if handle.protocol.streams and (output := self._output_of(handle)) is not None:
            output.check(payload)
        self._metrics.late_answers += self.state.workers[handle.id].state is WorkerState.STOPPING
        answer: Answer = done, payload
        ended = ev.JobEnded(
            worker_id=handle.id, outcome=done.outcome, reason=done.reason, attachment=answer, cause=_REPORTED
        )
        self.apply(ended)

    def _freed(self, handle: WorkerHandle, freed: wire.Freed, _: object) -> None:
        if freed.residue:
            handle.log.warning(
                "a job left something behind", action="residue", residue=freed.residue, **self._ids(handle)
            )
            self._metrics.count_residue(freed.residue)
        self.apply(ev.WorkerFreed(worker_id=handle.id, residue=freed.residue, cause=_REPORTED))


def worker_number(pool: str) -> str:
    """The name of the journal's fact that has the number of the last worker of this pool."""
    return f"worker:{pool}"

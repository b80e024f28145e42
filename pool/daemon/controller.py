"""One pool: events go into its PoolState, and the commands that come out are carried out.

    clients, admin, data sets, clock ──┐
    worker ─message─▶ WorkerProtocol ──┼─event─▶ PoolState.handle ─command─▶ StartWorker, StopWorker, ProbeWorker
    engine ─outcome────────────────────┘                                     Dispatch, KillJob, Accept, Refuse, Finish

The controller decides nothing. It never waits: engine calls and the journal run in threads, and what came of them is an
event again. What a client or worker is told follows from a write: Accept, Dispatch and Finish are written first.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import msgspec
import structlog

from pool import wire
from pool.config import Template
from pool.core import events as ev
from pool.core.machine import InvalidTransition, PoolState
from pool.core.records import StopReason
from pool.daemon import grading, results
from pool.daemon.datasets import PoolDatasets, Report
from pool.daemon.engine_executor import Launched
from pool.daemon.job_carrier import JobCarrier
from pool.daemon.job_store import Grader, Job
from pool.daemon.journal_entries import SetFact
from pool.daemon.kept_workers import KeptWorker
from pool.daemon.metrics import Metrics
from pool.daemon.output import OutputStream
from pool.daemon.self_tests import StartFailed
from pool.daemon.worker_handle import Services, WorkerHandle
from pool.daemon.worker_protocol import Effect, Phase, WorkerProtocol, printable
from pool.daemon.worker_spec import WorkerSpecFactory
from pool.daemon.zmtp import UNLEASED_BYTES
from pool.engines.base import Container
from pool.errors import ImageMissingError, PoolError, RemoteProtocolError

log = structlog.get_logger(__name__)

_REPORTED = "reported by the worker"
#: What travels with JobEnded and comes back with Finish.
Answer = tuple[wire.Done, Sequence[wire.Frame]]


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
        self.metrics = Metrics()
        self.handles: dict[str, WorkerHandle] = {}
        self.was_ready = False  #: whether one of its workers has ever been ready
        self.lockdown_failure: WorkerHandle | None = None  #: the last one whose lockdown did not hold, while none is up
        self._specs = specs
        self._transport = services.transport
        self._links = services.transport.links
        self._executor = services.executor
        self._jobs = services.jobs
        self._journal = services.journal
        self._endings = services.endings
        self._outputs = services.outputs
        self._kept = services.kept
        self._digest = specs.digest()
        self._largest_answer = results.largest_answer(template.maximum)
        self._events: deque[ev.Event] = deque()
        self._busy = False
        self.carrier = JobCarrier(self, services, largest_answer=self._largest_answer)
        self._commands = {
            ev.StartWorker: self._start_worker,
            ev.StopWorker: self._stop_worker,
            ev.ProbeWorker: self._probe_worker,
            ev.Accept: self.carrier.accept,
            ev.Dispatch: self.carrier.dispatch,
            ev.KillJob: self.carrier.kill,
            ev.Finish: self._finish,
        }
        self._effects: dict[Effect, Callable[..., None]] = {
            Effect.NOTHING: lambda *_: None,
            Effect.SEND_TEST: self._send_test,
            Effect.READY: self._ready,
            Effect.RESUMED: self._resumed,
            Effect.HEARTBEAT: self._heartbeat,
            Effect.STARTED: self._started,
            Effect.PRINTED: self._printed,
            Effect.DONE: self._done,
            Effect.FREED: self._freed,
            Effect.BROKEN: self._broken,
        }

    # ---- events in, commands out ----

    def apply(self, event: ev.Event) -> PoolError | None:
        """Handle an event, and every event that carrying out its commands leads to. Returns why a job is refused."""
        self._events.append(event)
        if self._busy:
            return None  # called from within a command; the outer call goes on with it
        refusal, self._busy = None, True
        try:
            while self._events:
                for command in self.state.handle(self._events.popleft(), time.monotonic()):
                    if isinstance(command, ev.Refuse):
                        refusal = self._refused(command) or refusal
                    else:
                        self._commands[type(command)](command)  # type: ignore[operator]
        finally:
            self._busy = False
        return refusal

    def tick(self, now: float) -> float:
        """Tell the pool of the time if one of its deadlines has come. When the next one comes."""
        due = self.state.next_deadline()
        if due is not None and now >= due:
            self.apply(ev.Tick(cause="clock"))
            due = self.state.next_deadline()
        return math.inf if due is None else due

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
        directory = self._links.open(worker_id, self)
        spec = self._specs.spec(worker_id, directory, self.datasets.of(edition))
        protocol = WorkerProtocol(self._specs.start_check(), heartbeat_s=self.template.heartbeat_s)
        handle = self._add_handle(worker_id, spec.uid, number=int(directory.name), protocol=protocol)
        handle.log.info("starting a worker", action="worker_start", edition=edition, cause=command.cause)

        def failed(error: PoolError) -> None:
            self._start_failed(handle, error.message, permanent=isinstance(error, ImageMissingError))

        def numbered(_: PoolError | None) -> None:
            worker = self.state.workers.get(worker_id)
            if worker is not None and worker.leaving is None:
                self._executor.launch(spec, on_up=lambda launched: self._launched(handle, launched), on_failed=failed)

        self._journal.write(SetFact(worker_number(self.state.name), command.number), numbered)

    def _add_handle(self, worker_id: str, uid: int, *, number: int, protocol: WorkerProtocol) -> WorkerHandle:
        logger = log.bind(pool=self.state.name, worker=worker_id)
        handle = WorkerHandle(id=worker_id, uid=uid, number=number, protocol=protocol, log=logger)
        self.handles[worker_id] = handle
        return handle

    def _launched(self, handle: WorkerHandle, launched: Launched) -> None:
        handle.container, handle.pid = launched.container, launched.pid
        if launched.pidfd is None:
            return
        if handle.id not in self.handles or handle.protocol.phase is not Phase.NEW:
            os.close(launched.pidfd)
            return
        handle.pidfd = launched.pidfd
        self._transport.watch(launched.pidfd, lambda: self._exited_early(handle, launched.container))

    def _exited_early(self, handle: WorkerHandle, container: Container) -> None:
        """Its process has ended before its first message. After that the link tells of its end."""
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
        write("a worker could not be started", action="worker_failed", reason=reason)
        self.apply(ev.WorkerFailed(worker_id=handle.id, reason=reason, permanent=permanent, cause="start"))

    def _send_test(self, handle: WorkerHandle, *_: object) -> None:
        if (test := handle.start.test) is not None:
            self._links.send(handle.id, test.run, test.payload)

    def _ready(self, handle: WorkerHandle, *_: object) -> None:
        self.lockdown_failure = None
        handle.log.info("a worker is idle", action="worker_ready", boot_ms=round(handle.start.boot_ms))
        if not self.was_ready:
            self.was_ready = True
            log.info("a pool is ready", action="pool_ready", pool=self.state.name)
        missing = handle.start.missing
        if missing:
            text = "this host refuses parts of a worker's isolation: no worker serves two clients"
            handle.log.warning(text, action="worker_degraded", missing=missing)
        self._keep(handle)
        self.apply(ev.WorkerReady(worker_id=handle.id, shareable=not missing, cause="self-tests passed"))

    # ---- workers that outlive the daemon ----

    def _keep(self, handle: WorkerHandle) -> None:
        """Note a ready worker for the next daemon, and give its runner the token."""
        started_at = self.state.workers[handle.id].started_at
        kept = handle.to_keep(
            instance=self._specs.instance, pool=self.state.name, template=self._digest, started_at=started_at
        )
        self._note(handle, kept)
        self._links.send(handle.id, wire.Welcome(token=kept.token))

    def _note(self, handle: WorkerHandle, kept: KeptWorker) -> None:
        """Without its note a worker ends with this daemon."""
        try:
            self._kept.write(kept)
            handle.kept = kept
        except OSError as error:
            self._kept.remove(handle.number)
            handle.kept = None
            handle.log.warning("the worker cannot be noted for the next daemon", action="not_kept", error=str(error))

    def bind(self, worker_id: str, client: str) -> None:
        """Note whose worker this is, before it is sent his first job."""
        handle = self.handles[worker_id]
        if self.state.policy.reuse_scope == "client" and handle.kept is not None and handle.kept.client != client:
            self._note(handle, msgspec.structs.replace(handle.kept, client=client))

    def find(self, kept: KeptWorker, container: Container) -> None:
        """An earlier daemon has left this worker. Its runner may connect now, and has to prove itself."""
        start = self._specs.start_check()
        start.restore(kept.isolation, kept.missing, kept.rows)
        protocol = WorkerProtocol(start, heartbeat_s=self.template.heartbeat_s, token=kept.token)
        handle = self._add_handle(kept.worker_id, kept.uid, number=kept.number, protocol=protocol)
        handle.kept = kept
        self._links.reopen(handle.id, self, kept.number)
        self._executor.attach(handle.id, container, on_up=lambda launched: self._launched(handle, launched))
        found = ev.WorkerFound(
            worker_id=handle.id,
            started_at=kept.started_at,
            edition=self.datasets.newest,
            client=kept.client,
            cause="start of the daemon",
        )
        self.apply(found)

    def _resumed(self, handle: WorkerHandle, resume: wire.Resume, _: object) -> None:
        assert handle.kept is not None
        claims_job = resume.state in {"running", "answered"}
        has_job = claims_job and self._was_left(handle, resume)
        unusable = None
        if claims_job and not has_job:
            unusable = StopReason.UNKNOWN_JOB
        elif handle.kept.template != self._digest:
            unusable = StopReason.OUTDATED
        handle.log.info("a worker was found", action="worker_found", state=resume.state, unusable=unusable)
        if has_job:
            self._links.set_limit(handle.id, self._largest_answer + wire.MAX_HEADER_BYTES)
        if unusable is None or has_job:
            self.was_ready = True
            self._links.send(handle.id, wire.Adopted())
        adopted = ev.WorkerAdopted(
            worker_id=handle.id,
            jobs=resume.jobs,
            shareable=not handle.start.missing,
            cleaning=resume.state == "cleaning",
            has_job=has_job,
            epoch=resume.epoch,
            elapsed_s=resume.elapsed_s,
            unusable=unusable,
            cause="its runner has proved itself",
        )
        self.apply(adopted)

    def _was_left(self, handle: WorkerHandle, resume: wire.Resume) -> bool:
        """Whether the journal has a lease of this job, of this epoch, to this worker."""
        worker = self.state.workers[handle.id]
        run = self._jobs[worker.job.id].run if worker.job is not None else None
        return run is not None and (run.job_id, worker.epoch) == (resume.job_id, resume.epoch)

    # ---- messages from workers ----

    def receive(self, worker_id: str, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> None:
        """A message from a worker. One that is not allowed destroys the worker."""
        handle = self.handles.get(worker_id)
        if handle is None:
            return
        try:
            effect, message = handle.protocol.receive(message, payload, time.monotonic())
            if handle.pidfd is not None:
                self._unwatch(handle)
            self._effects[effect](handle, message, payload)
        except StartFailed as error:
            if handle.start.lockdown == "broken":
                self.lockdown_failure = handle
            self._start_failed(handle, str(error), permanent=error.permanent)
        except RemoteProtocolError as error:
            self.lost(worker_id, f"it broke the protocol: {error}")
        except InvalidTransition as error:
            self.lost(worker_id, f"it reported what is not possible: {error}")

    def _heartbeat(self, handle: WorkerHandle, *_: object) -> None:
        self.apply(ev.Heartbeat(worker_id=handle.id, cause="link"))

    def _broken(self, handle: WorkerHandle, message: wire.Broken, _: object) -> None:
        if handle.protocol.starting:
            self._start_failed(handle, message.reason, permanent=message.permanent)
        else:
            self.lost(handle.id, message.reason)

    def _probe_worker(self, command: ev.ProbeWorker) -> None:
        self._links.send(command.worker_id, wire.Probe(seq=0))

    # ---- a worker's end ----

    def lost(self, worker_id: str, reason: str) -> None:
        """The worker's link is of no use any more."""
        handle, reason = self.handles.get(worker_id), printable(reason)
        if handle is None:
            return
        if handle.protocol.starting:
            self._start_failed(handle, reason)
        else:
            handle.log.warning("a worker is lost", action="worker_lost", reason=reason)
            self.apply(ev.WorkerVanished(worker_id=worker_id, reason=reason, cause="link"))

    def _stop_worker(self, command: ev.StopWorker) -> None:
        handle, reason = self.handles[command.worker_id], command.reason
        self.metrics.recycles[reason] += 1
        handle.log.info("stopping a worker", action="worker_stop", reason=reason, cause=command.cause)
        self._kept.remove(handle.number)
        self._links.close(handle.id)
        self._unwatch(handle)
        diagnose = reason is StopReason.BOOT_TIMEOUT
        self._executor.stop(handle.id, diagnose=diagnose, on_gone=lambda output: self._removed(handle, output))

    def _removed(self, handle: WorkerHandle, output: str) -> None:
        if output:
            handle.log.error("the last output of a worker", action="worker_output", output=output)
        self.apply(ev.WorkerRemoved(worker_id=handle.id, cause="engine"))  # finishes a job that was killed with it
        del self.handles[handle.id]

    # ---- a job and its worker ----

    def _output_of(self, handle: WorkerHandle) -> OutputStream | None:
        """The output of the worker's job, if a client has asked for it."""
        worker = self.state.workers.get(handle.id)
        job = self._jobs.get(worker.job.id) if worker is not None and worker.job is not None else None
        return job.output if job is not None else None

    def _started(self, handle: WorkerHandle, *_: object) -> None:
        self.apply(ev.JobStarted(worker_id=handle.id, cause=_REPORTED))

    def _printed(self, handle: WorkerHandle, message: wire.Printed, payload: Sequence[wire.Frame]) -> None:
        if (output := self._output_of(handle)) is not None:
            output.append(message, payload, time.monotonic())
            self._outputs.send(output)

    def _done(self, handle: WorkerHandle, done: wire.Done, payload: Sequence[wire.Frame]) -> None:
        results.check(done, payload, largest=self._largest_answer)
        if handle.protocol.streams and (output := self._output_of(handle)) is not None:
            output.check(payload)
        self._links.set_limit(handle.id, UNLEASED_BYTES)
        answer: Answer = done, payload
        ended = ev.JobEnded(
            worker_id=handle.id, outcome=done.outcome, reason=done.reason, attachment=answer, cause=_REPORTED
        )
        self.apply(ended)

    def _freed(self, handle: WorkerHandle, freed: wire.Freed, _: object) -> None:
        if freed.residue:
            handle.log.warning("a job left something behind", action="residue", residue=freed.residue)
            self.metrics.count_residue(freed.residue)
        self.apply(ev.WorkerFreed(worker_id=handle.id, residue=freed.residue, cause=_REPORTED))

    def _finish(self, command: ev.Finish) -> None:
        """The end of a job: from its worker's answer, if there is one."""
        job, handle = self._jobs[command.job_id], self.handles.get(command.worker_id or "")
        if job.refused is not None:
            return
        container = handle.container.id if handle is not None and handle.container is not None else None
        reported = cast("Answer | None", command.attachment)
        if reported is not None:
            most = self.template.maximum.memory
            result, answer = results.from_worker(job, command, *reported, container=container, memory_bytes=most)
        else:
            result, answer = results.without_answer(job, command, container=container)
        acknowledge = partial(self._acknowledge, command.worker_id or "", reported)
        log.debug("a job is done", action="job_done", job=job.key, outcome=result.outcome)
        if job.whole is not None:
            job.whole.history = [*job.whole.history, *command.history]
            self._jobs.forget(job)
            self._endings.end(job.whole, *grading.graded(job.whole, (result, answer)), acknowledge)
            return
        job.history = command.history
        self.metrics.ended(result, ran=reported is not None)
        if job.grader is None or not self._grade(job, job.grader, (result, answer)):
            self._endings.end(job, *(job.ended or (result, answer)), acknowledge)
        else:
            acknowledge()

    def _grade(self, job: Job, grader: Grader, ended: grading.Ended) -> bool:
        """Submit the job that grades this one. False if there is nothing to grade."""
        part = grading.begin(job, grader, ended)
        if part is None:
            return False
        submitted = ev.JobSubmitted(
            job_id=part.key,
            client=part.client,
            wall_s=grader.run.wall_s,
            priority=grading.PRIORITY,
            code=grader.code,
            follow_up=True,
            attachment=part,
            cause=f"grade of {job.key}",
        )
        self.apply(submitted)
        return True

    def _refused(self, command: ev.Refuse) -> PoolError | None:
        """What the submitter is told; None for the grade of a job, which then ends without one."""
        whole = command.attachment.whole if isinstance(command.attachment, Job) else None
        if whole is None:
            return command.error
        self._endings.end(whole, *grading.refused(whole, command.error.message))
        return None

    def _acknowledge(self, worker_id: str, reported: Answer | None) -> None:
        """The answer is written and need not be held. The next lease is written after it, and only then sent."""
        if reported is not None:
            done, _ = reported
            self._links.send(worker_id, wire.Collected(job_id=done.job_id, epoch=done.epoch))


def worker_number(pool: str) -> str:
    """The name of the journal's fact that has the number of the last worker of this pool."""
    return f"worker:{pool}"

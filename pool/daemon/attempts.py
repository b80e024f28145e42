"""A job with its worker, from the lease to the result.

    Dispatch ─▶ Run ──▶ worker ──Started──▶ JobStarted        KillJob ─▶ Kill ──▶ worker
                           ├────Printed──▶ the job's output stream, where somebody reads it
                           ├────Done─────▶ JobEnded ─▶ the core's Finish ─▶ ledger, and to who waits for the result
                           └────Freed────▶ WorkerFreed

What a worker says has passed its conduct before: it is about its lease, and in its order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from pool import wire
from pool.core import events as ev
from pool.daemon.berth import Apply, Pool
from pool.daemon.job_store import Job
from pool.daemon.results import check, from_worker, largest_answer, without_run
from pool.daemon.zmtp import UNLEASED_BYTES

log = structlog.get_logger(__name__)


class Attempts:
    """Brings the jobs of one pool to its workers, and what these say of them to the ledger."""

    def __init__(self, pool: Pool, *, apply: Apply, lost: Callable[[str, str], None]) -> None:
        self._pool = pool
        self._apply = apply
        self._lost = lost
        self._links = pool.shared.transport.links
        self._jobs = pool.shared.jobs
        self._largest_answer = largest_answer(pool.template.maximum)

    # ---- to the worker ----

    def dispatch(self, command: ev.Dispatch) -> None:
        job = self._jobs.get(command.job_id)
        if job is None or job.run is None:  # pragma: no cover - core and ledger are changed together
            raise RuntimeError(f"the core dispatched {command.job_id}, which the ledger does not hold")
        job.leased_ns, job.worker = time.monotonic_ns(), command.worker_id
        job.attempt, job.start = command.attempt, command.start
        self._pool.metrics.leased(command.start)
        run = msgspec.structs.replace(job.run, epoch=command.epoch)
        self._links.set_limit(command.worker_id, self._largest_answer + wire.MAX_HEADER_BYTES)
        self._pool.berths[command.worker_id].conduct.lease(run.job_id, run.epoch)
        if not self._links.send(command.worker_id, run, job.payload):
            self._lost(command.worker_id, "it did not take a job")
        elif job.output is not None:
            self.stream(job)

    def stream(self, job: Job) -> None:
        """Have the job's worker say what it prints, if it has one now."""
        berth = self._pool.berths.get(job.worker or "")
        if berth is None or job.worker is None or job.output is None or self._key(job.worker) != job.key:
            return
        if (order := berth.conduct.stream()) is not None:
            job.output.start(time.monotonic())
            self._links.send(job.worker, order)

    def kill(self, command: ev.KillJob) -> None:
        job = self._jobs.get(command.job_id)
        if job is not None and job.run is not None:
            self._links.send(command.worker_id, wire.Kill(job_id=job.run.job_id, epoch=command.epoch))

    # ---- from the worker ----

    def hear(self, worker_id: str, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> None:
        """A word about a job. Raises RemoteProtocolError when there cannot be such a job."""
        if isinstance(message, wire.Started):
            self._apply(ev.JobStarted(worker_id=worker_id, job_id=self._key(worker_id), epoch=message.epoch))
        elif isinstance(message, wire.Printed):
            self._printed(worker_id, message, payload)
        elif isinstance(message, wire.Done):
            self._done(worker_id, message, payload)
        elif isinstance(message, wire.Freed):
            self._freed(worker_id, message)

    def _key(self, worker_id: str) -> str:
        """The job the core has leased to a worker: what a worker says is only ever about that one."""
        worker = self._pool.state.workers.get(worker_id)
        return (worker.job_id if worker is not None else None) or ""

    def _printed(self, worker_id: str, printed: wire.Printed, payload: Sequence[wire.Frame]) -> None:
        job = self._jobs.get(self._key(worker_id))
        if job is not None and job.output is not None:
            job.output.append(printed, payload, time.monotonic())
            self._pool.shared.outputs.send(job.output)

    def _done(self, worker_id: str, done: wire.Done, payload: Sequence[wire.Frame]) -> None:
        check(done, payload, largest=self._largest_answer)
        job = self._jobs.get(self._key(worker_id))
        if job is not None and job.output is not None:
            job.output.check(payload)
        self._links.set_limit(worker_id, UNLEASED_BYTES)
        berth = self._pool.berths[worker_id]
        berth.done = done, payload
        self._apply(
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

    def _freed(self, worker_id: str, freed: wire.Freed) -> None:
        if freed.residue:
            log.warning("a worker is not as before its job", action="dirty", worker=worker_id, reason=freed.residue)
            self._pool.metrics.dirtied(freed.residue)
        self._apply(ev.WorkerFreed(worker_id=worker_id, epoch=freed.epoch, dirty=freed.residue, cause="link"))

    # ---- to the ledger ----

    def finish(self, command: ev.Finish) -> None:
        """The one result of a job: with what its worker has just said, or without."""
        job = self._jobs.get(command.job_id)
        if job is None:
            return
        berth = self._pool.berths.get(command.worker_id or "")
        container = berth.container.id if berth is not None and berth.container is not None else None
        if command.from_worker and berth is not None and berth.done is not None:
            most = self._pool.template.maximum.memory
            result, answer = from_worker(job, *berth.done, container=container, memory_bytes=most)
        else:
            result, answer = without_run(job, command, container=container)
        overhead = result.dispatch_ms + result.collect_ms if command.from_worker else None
        self._pool.metrics.ended(result.outcome, overhead_ms=overhead, queue_ms=result.queue_ms)
        log.debug("a job is done", action="job_done", job=job.key, outcome=result.outcome)
        self._pool.shared.deliver(job, self._jobs.finish(job, result, answer, now=time.monotonic()))

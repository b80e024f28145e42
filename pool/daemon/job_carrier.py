"""The way of a job through its pool: each step is written to the journal before a message is sent.

    Accept ──▶ journal ──▶ Accepted is sent               Dispatch ──▶ journal ──▶ Run is sent to the worker
                  └─ no room: JobWithdrawn, it never was                  └─ no room, or cancelled: JobWithdrawn

    Finish ──▶ its grade, if it has a grader ──▶ journal ──▶ Collected to the worker, the result to the submitter

If the job ends between the command and the write, nothing is sent. So an acknowledged job is in the journal, and a job
without a lease in the journal was never sent to a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, cast

import msgspec
import structlog

from pool import wire
from pool.core import events as ev
from pool.core.machine import PoolState
from pool.daemon import grading, results
from pool.daemon.job_store import Grader, Job
from pool.daemon.journal_entries import Lease
from pool.daemon.journal_file import INLINE_BYTES
from pool.daemon.metrics import Metrics
from pool.daemon.worker_handle import Services, WorkerHandle
from pool.errors import PoolError
from pool.model import Outcome, StartKind

log = structlog.get_logger(__name__)

#: What travels with JobEnded and comes back with Finish.
Answer = tuple[wire.Done, Sequence[wire.Frame]]


class Pool(Protocol):
    """The controller of the pool."""

    @property
    def state(self) -> PoolState: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def handles(self) -> Mapping[str, WorkerHandle]: ...
    def apply(self, event: ev.Event) -> PoolError | None: ...
    def lost(self, worker_id: str, reason: str) -> None: ...


class JobCarrier:
    """Carries out Accept, Refuse, Dispatch, KillJob and Finish for one pool. Called from the loop's thread."""

    def __init__(
        self,
        pool: Pool,
        services: Services,
        *,
        bind: Callable[[str, str], None],
        largest_answer: int,
        memory_bytes: int,
    ) -> None:
        """`bind` notes a worker's client before a job is sent to it.

        `largest_answer`: bytes that a worker with a job may send in one message. `memory_bytes`: what a worker has.
        """
        self._bind = bind
        self._pool = pool
        self._jobs = services.jobs
        self._journal = services.journal
        self._endings = services.endings
        self._links = services.transport.links
        self._largest_answer = largest_answer
        self._memory_bytes = memory_bytes

    def accept(self, command: ev.Accept) -> None:
        job = cast("Job", command.attachment)
        self._jobs.accept(job)
        if job.trace is not None:
            job.mark("daemon: accepted")
        log.debug("a job is accepted", action="job_accepted", job=job.key, client=job.client, cause=command.cause)
        if job.whole is not None:
            return  # the whole is in the journal
        self._journal.write(job.acceptance(), partial(self._accepted, job))

    def _accepted(self, job: Job, error: PoolError | None) -> None:
        """The acceptance is written, or cannot be: answer its submitter."""
        job.written, job.refused = True, error
        if job.trace is not None:
            job.mark("journal: job written")
        if error is None:
            if job.held_bytes > INLINE_BYTES:
                job.set_frames(self._journal.payload(job.number, job.frames()))
        else:
            self._pool.apply(
                ev.JobWithdrawn(job_id=job.key, outcome=Outcome.REJECTED, reason=error.message, cause="journal")
            )
            self._jobs.forget(job)
        calls, job.when_written = job.when_written, []
        for call in calls:
            call()

    def restore(self, job: Job, *, attempt: int = 0, left: ev.Lease | None = None, lost: str = "") -> None:
        """A job of an earlier daemon has to run, or is with a worker that was found. `lost`: why it runs again."""
        if left is not None:
            job.leased_ns, job.start, job.sent_epoch = int(left.at * 1e9), StartKind.WARM, left.epoch
        assert job.run is not None, "it has not ended"
        self._pool.apply(
            ev.JobRestored(
                job_id=job.key,
                client=job.client,
                wall_s=job.run.wall_s * max(1, len(job.run.calls)),
                loop=job.terms.loop,
                priority=job.terms.priority,
                queue_timeout_s=job.terms.queue_timeout_s,
                code=job.terms.code,
                submitted_at=job.received_ns / 1e9,
                retries=job.terms.retries,
                attempt=attempt,
                left=left,
                lost=lost,
                cause="journal",
            )
        )

    def dispatch(self, command: ev.Dispatch) -> None:
        job = self._jobs.by_key[command.job_id]
        job.leased_ns, job.start = time.monotonic_ns(), command.start
        if job.trace is not None:
            job.mark("daemon: worker chosen")
        self._pool.metrics.leased(command.start, again=command.attempt > 1)
        if job.output is not None and command.attempt > 1:
            job.output.begin_again()
        if job.whole is not None:
            self._leased(job, command, None)  # a grade may be given twice
            return
        lease = Lease(job.number, command.epoch, command.attempt, command.worker_id, job.leased_ns / 1e9)
        self._journal.write(lease, partial(self._leased, job, command))

    def _leased(self, job: Job, command: ev.Dispatch, error: PoolError | None) -> None:
        """The lease is written, or cannot be: send the job, unless it has ended or was cancelled meanwhile."""
        record, worker = self._pool.state.jobs.get(job.key), self._pool.state.workers.get(command.worker_id)
        if record is None or worker is None or worker.job is not record or worker.epoch != command.epoch:
            return
        if error is not None:
            self._withdraw(job, Outcome.LOST, f"it was not sent to a worker, and did not run: {error.message}")
        elif record.cancelled_at is not None:
            self._withdraw(job, Outcome.CANCELLED, "cancelled before it was sent to its worker; it did not run")
        elif record.pending_end is None:
            self._send_run(job, command)

    def _withdraw(self, job: Job, outcome: Outcome, reason: str) -> None:
        self._pool.apply(ev.JobWithdrawn(job_id=job.key, outcome=outcome, reason=reason, cause="journal"))

    def _send_run(self, job: Job, command: ev.Dispatch) -> None:
        worker_id = command.worker_id
        assert job.run is not None, "only a job that is not done is dispatched"
        job.sent_epoch = command.epoch
        handle = self._pool.handles[worker_id]
        if handle.kept is not None and handle.kept.client != job.client:
            self._bind(worker_id, job.client)
        handle.protocol.lease(job.run.job_id, command.epoch)
        most = self._largest_answer * (wire.CHUNK_ANSWERS if job.run.calls else 1) + wire.MAX_HEADER_BYTES
        run = msgspec.structs.replace(job.run, epoch=command.epoch)
        if job.trace is not None:
            job.mark("daemon: sent to the worker")
        if not self._links.send(worker_id, run, job.payload, answer_bytes=most):
            self._pool.lost(worker_id, "it did not take a job")
        elif job.output is not None:
            self.stream(job)
        ids = {"job": job.key, "client": job.client, "worker": worker_id, "cause": command.cause}
        log.debug("a job is sent to a worker", action="job_sent", epoch=command.epoch, **ids)

    def stream(self, job: Job) -> None:
        """Have the job's worker send what the job prints, if a worker has it now."""
        record = self._pool.state.jobs.get(job.key)
        handle = self._pool.handles.get(record.worker_id or "") if record is not None else None
        if handle is not None and job.output is not None and (stream := handle.protocol.stream()) is not None:
            job.output.start(time.monotonic())
            self._links.send(handle.id, stream)

    def kill(self, command: ev.KillJob) -> None:
        job = self._jobs.by_key[command.job_id]
        if job.run is not None and job.sent_epoch == command.epoch:
            self._links.send(command.worker_id, wire.Kill(job_id=job.run.job_id, epoch=command.epoch))

    # ---- its end ----

    def finish(self, command: ev.Finish) -> None:
        """The end of a job: from its worker's answer, if there is one."""
        job, handle = self._jobs.by_key[command.job_id], self._pool.handles.get(command.worker_id or "")
        if job.refused is not None:
            return
        container = handle.container.id if handle is not None and handle.container is not None else None
        reported = cast("Answer | None", command.attachment)
        if reported is not None:
            most = self._memory_bytes
            result, answer = results.from_worker(job, command, *reported, container=container, memory_bytes=most)
        else:
            result, answer = results.without_answer(job, command, container=container)
        acknowledge = None
        if reported is not None:  # once the answer is written, the worker need not hold it any more
            collected = wire.Collected(job_id=reported[0].job_id, epoch=reported[0].epoch)
            acknowledge = partial(self._links.send, command.worker_id or "", collected)
        ids = {"job": job.key, "client": job.client, "worker": command.worker_id, "cause": command.cause}
        log.debug("a job is done", action="job_done", outcome=result.outcome, reason=result.reason, **ids)
        if job.whole is not None:
            job.whole.history = [*job.whole.history, *command.history]
            self._jobs.forget(job)
            self._endings.end(job.whole, *grading.graded(job.whole, (result, answer)), acknowledge)
            return
        job.history = command.history
        self._pool.metrics.ended(result, ran=reported is not None)
        if job.grader is None or not self._grade(job, job.grader, (result, answer)):
            self._endings.end(job, *(job.ended or (result, answer)), acknowledge)
        elif acknowledge is not None:
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
            retries=job.terms.retries,
            follow_up=True,
            attachment=part,
            cause=f"grade of {job.key}",
        )
        self._pool.apply(submitted)
        return True

    def refused(self, command: ev.Refuse) -> PoolError | None:
        """The error for the submitter; None for the grade of a job, which then ends without one."""
        whole = command.attachment.whole if isinstance(command.attachment, Job) else None
        if whole is None:
            return command.error
        self._endings.end(whole, *grading.refused(whole, command.error.message))
        return None

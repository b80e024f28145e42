"""The way of a job through its pool: each step is written to the journal before a message is sent.

    Accept ──▶ journal ──▶ Accepted is sent               Dispatch ──▶ journal ──▶ Run is sent to the worker
                  └─ no room: JobWithdrawn, it never was                  └─ no room, or cancelled: JobWithdrawn

    Finish ──▶ its grade, if it has a grader ──▶ journal ──▶ the result to the submitter

A worker holds its answer until it gets another job. So Run is sent after the end of the job before is written, and a
large answer is acknowledged at once.

A job that finds an idle worker is accepted and dispatched by one command, and written once with its lease.

If the job ends between the command and the write, nothing is sent. So an acknowledged job is in the journal, and a job
without a lease in the journal was never sent to a worker.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Protocol, cast

import msgspec
import structlog

from pool import wire
from pool.config import Template
from pool.core import events as ev
from pool.core.machine import PoolState
from pool.core.records import JobRecord
from pool.daemon import grading
from pool.daemon.job import Grader, Job
from pool.daemon.job_body import offered
from pool.daemon.journal_entries import Lease, LeaseRow, Tidy
from pool.daemon.metrics import Metrics
from pool.daemon.worker_handle import Services, WorkerHandle
from pool.daemon.worker_protocol import Phase, largest_answer
from pool.engines.lockdown import maps_files
from pool.errors import PoolError
from pool.model import Outcome, StartKind

log = structlog.get_logger(__name__)

_NS_PER_MS = 1e6
_NS_PER_S = 1e9
#: Of a job, as the core has them too.
_TERMS = ("loop", "priority", "queue_timeout_s", "code", "retries")
#: The fields of Done that Result has too.
_END = (*wire.EndFields.__struct_fields__, "calls")
_of_end = attrgetter(*_END)
#: CPU seconds that a child may have used before it got its job: it runs warm-up jobs before it parks.
_CPU_BEFORE_S = 1.0
#: Asking for it opens a file of /sys.
_CORES = os.cpu_count() or 1

#: A larger answer is acknowledged at once, so that a free worker holds no more memory than this for the last one.
_HELD_BYTES = 64 * 1024

#: What travels with JobEnded and comes back with Finish.
Answer = tuple[wire.Done, Sequence[wire.Frame]]


class Pool(Protocol):
    """The controller of the pool."""

    @property
    def state(self) -> PoolState: ...
    @property
    def handles(self) -> Mapping[str, WorkerHandle]: ...
    def apply(self, event: ev.Event) -> PoolError | None: ...
    def lost(self, worker_id: str, reason: str) -> None: ...


class JobCarrier:
    """Carries out Accept, Refuse, Dispatch, KillJob and Finish for one pool. Called from the loop's thread."""

    def __init__(
        self, pool: Pool, services: Services, metrics: Metrics, *, bind: Callable[[str, str], None], template: Template
    ) -> None:
        """`bind` notes a worker's client before a job is sent to it."""
        #: Whether the pool's workers can map a file of the daemon.
        self._maps = maps_files(template.runtime, template.allow)
        self._log = log.bind()  # getting the logger again costs as much as a line that is not written
        self._debugs = self._log.is_enabled_for(logging.DEBUG)  # three lines of each job are not even made otherwise
        self._bind = bind
        self._pool = pool
        self._metrics = metrics
        self._jobs = services.jobs
        self._journal = services.journal
        self._links = services.transport.links
        self._largest_answer = largest_answer(template.maximum)  # bytes that one job may answer with
        self._memory_bytes = template.maximum.memory  # of a worker

    def accept(self, command: ev.Accept) -> None:
        job = cast("Job", command.attachment)
        if self._debugs:
            ids = {"job": job.key, "client": job.client, "cause": command.cause}
            self._log.debug("a job is accepted", action="job_accepted", **ids)
        if job.trace is not None:
            job.mark("daemon: accepted")
        if (dispatch := command.dispatch) is None:
            self._jobs.accept(job, None, partial(self._waits, job))
            return
        self._metrics.new_leases.append(dispatch)
        job.leased_ns, job.start = int(dispatch.at * _NS_PER_S), dispatch.start
        if job.trace is not None:
            job.mark("daemon: worker chosen")
        lease = LeaseRow(dispatch.epoch, dispatch.attempt, dispatch.worker_id, dispatch.at)
        then = self._leased if job.whole is None else self._lease_grade
        self._jobs.accept(job, lease, partial(then, job, dispatch))

    def _waits(self, job: Job, error: PoolError | None) -> None:
        """The acceptance of a job that waits is written, or cannot be."""
        if error is not None:
            self._withdraw(job, Outcome.REJECTED, error.message)

    def restore(self, job: Job, *, attempt: int = 0, left: ev.Lease | None = None, lost: str = "") -> None:
        """A job of an earlier daemon has to run, or is with a worker that was found. `lost`: why it runs again."""
        if left is not None:
            job.leased_ns, job.start, job.sent_epoch = int(left.at * _NS_PER_S), StartKind.WARM, left.epoch
        assert job.run is not None, "it has not ended"
        terms = {name: getattr(job.terms, name) for name in _TERMS}
        self._pool.apply(
            ev.JobRestored(
                job_id=job.key,
                client=job.client,
                wall_s=job.run.wall_s * max(1, len(job.run.calls)),
                submitted_at=job.received_ns / _NS_PER_S,
                attempt=attempt,
                left=left,
                lost=lost,
                cause="journal",
                **terms,
            )
        )

    def dispatch(self, command: ev.Dispatch) -> None:
        """A job that has waited."""
        job = self._jobs.by_key[command.job_id]
        self._metrics.new_leases.append(command)
        self._metrics.retries += command.attempt > 1
        job.leased_ns, job.start = int(command.at * _NS_PER_S), command.start
        if job.trace is not None:
            job.mark("daemon: worker chosen")
        if job.output is not None and command.attempt > 1:
            job.output.begin_again()
        if job.whole is not None:
            self._lease_grade(job, command, None)
            return
        lease = LeaseRow(command.epoch, command.attempt, command.worker_id, command.at)
        self._journal.write(Lease(job.number, lease), partial(self._leased, job, command))

    def _lease_grade(self, job: Job, command: ev.Dispatch, _: PoolError | None) -> None:
        """A grade may be given twice, so its lease is not written. What is to be written before it still is."""
        self._journal.write(Tidy(), partial(self._leased, job, command))

    def _leased(self, job: Job, command: ev.Dispatch, error: PoolError | None) -> None:
        """The lease is written, perhaps with its acceptance, or cannot be: send the job, unless it has ended or was
        cancelled meanwhile.
        """
        worker_id, worker = command.worker_id, self._pool.state.workers.get(command.worker_id)
        record = worker.job if worker is not None and worker.epoch == command.epoch else None
        if record is None or record.id != job.key:
            return
        if error is not None or record.cancelled_at is not None or record.pending_end is not None:
            self._not_sent(job, record, error)
            return
        assert job.run is not None, "only a job that is not done is dispatched"
        handle, job.sent_epoch = self._pool.handles[worker_id], command.epoch
        if handle.kept is not None and handle.kept.client != job.client:
            self._bind(worker_id, job.client)
        most = self._largest_answer * (wire.CHUNK_ANSWERS if job.run.calls else 1) + wire.MAX_HEADER_BYTES
        run = msgspec.structs.replace(job.run, epoch=command.epoch)
        if job.trace is not None:
            job.mark("daemon: sent to the worker")
        payload = job.payload
        if job.held_bytes > wire.MAPPED_BYTES and self._maps:
            refused = partial(self._refused_body, job, command, run)
            run, payload = offered(job, run, self._journal, partial(self._links.offer, worker_id, on_refused=refused))
        if not self._links.send(worker_id, run, payload, answer_bytes=most):
            self._pool.lost(worker_id, "it did not take a job")
            return
        handle.protocol.lease(run.job_id, command.epoch)
        if job.output is not None:
            self.stream(job)
        if self._debugs:
            ids = {"job": job.key, "client": job.client, "worker": worker_id, "cause": command.cause}
            self._log.debug("a job is sent to a worker", action="job_sent", epoch=command.epoch, **ids)

    def _refused_body(self, job: Job, command: ev.Dispatch, run: wire.Run) -> None:
        """The worker cannot map the file, and has dropped Run: send it again, with the payload."""
        worker, handle = self._pool.state.workers.get(command.worker_id), self._pool.handles.get(command.worker_id)
        record = worker.job if worker is not None and worker.epoch == command.epoch else None
        if record is None or record.id != job.key or handle is None or handle.protocol.phase is not Phase.LEASED:
            return
        self._maps = False
        text = "a worker maps no file of the daemon: large arguments are sent to the workers of this pool"
        self._log.warning(text, action="no_mapping", worker=command.worker_id)
        self._links.send(command.worker_id, run, job.payload)
        if record.cancelled_at is not None:
            self._links.send(command.worker_id, wire.Kill(job_id=run.job_id, epoch=command.epoch))
        elif handle.protocol.streams:
            self._links.send(command.worker_id, wire.Stream(job_id=run.job_id, epoch=command.epoch))

    def _not_sent(self, job: Job, record: JobRecord, error: PoolError | None) -> None:
        """Note that the job ends with its worker: it ends when the worker is gone."""
        if error is not None and error is job.refused:
            self._withdraw(job, Outcome.REJECTED, error.message)
        elif error is not None:
            self._withdraw(job, Outcome.LOST, f"it was not sent to a worker, and did not run: {error.message}")
        elif record.cancelled_at is not None:
            self._withdraw(job, Outcome.CANCELLED, "cancelled before it was sent to its worker; it did not run")

    def _withdraw(self, job: Job, outcome: Outcome, reason: str) -> None:
        self._pool.apply(ev.JobWithdrawn(job_id=job.key, outcome=outcome, reason=reason, cause="journal"))

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
        result, answer = result_of(job, command, container=container, memory_bytes=self._memory_bytes)
        reported, acknowledge = cast("Answer | None", command.attachment), None
        if reported is not None and (job.grader is not None or sum(map(len, answer)) > _HELD_BYTES):
            collected = wire.Collected(job_id=reported[0].job_id, epoch=reported[0].epoch)
            acknowledge = partial(self._links.send, command.worker_id or "", collected)
        if self._debugs:
            ids = {"job": job.key, "client": job.client, "worker": command.worker_id, "cause": command.cause}
            self._log.debug("a job is done", action="job_done", outcome=result.outcome, reason=result.reason, **ids)
        if job.whole is not None:
            job.whole.history = [*job.whole.history, *command.history]
            self._jobs.forget(job)
            self._jobs.end(job.whole, *grading.graded(job.whole, (result, answer)), acknowledge)
            return
        job.history = command.history
        self._metrics.new_ends.append((time.monotonic(), result, reported is not None))
        if job.grader is None or not self._grade(job, job.grader, (result, answer)):
            self._jobs.end(job, *(job.ended or (result, answer)), acknowledge)
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
        self._jobs.end(whole, *grading.refused(whole, command.error.message))
        return None


# ---- the result ----


def result_of(job: Job, command: ev.Finish, *, container: str | None, memory_bytes: int = 0) -> grading.Ended:
    """The result as the worker reported it, with its figures limited to what is possible: times are in order and not
    in the future, and no job uses more CPU time than the host has or more memory than its container.
    """
    now = time.monotonic_ns()
    leased = job.leased_ns or now
    if command.attachment is None:
        end, answer = _unanswered(job, command)
        started, ended = now if command.started_at is None else int(command.started_at * _NS_PER_S), now
    else:
        done, answer = cast("Answer", command.attachment)
        if job.trace is not None:
            job.mark_attempt(done)
            job.mark("daemon: answer received")
        end = dict(zip(_END, _of_end(done), strict=True))
        end["cpu_s"] = min(done.cpu_s, _CPU_BEFORE_S + (now - leased) / _NS_PER_S * _CORES)
        end["max_rss_bytes"] = min(done.max_rss_bytes, memory_bytes)
        started, ended = done.started_ns, done.ended_ns
    started = min(max(started, leased), now)
    ended = min(max(ended, started), now)
    result = wire.Result(
        worker=command.worker_id,
        container=container,
        attempt=command.attempt,
        start=job.start,
        queue_ms=(leased - job.received_ns) / _NS_PER_MS,
        dispatch_ms=(started - leased) / _NS_PER_MS,
        run_ms=(ended - started) / _NS_PER_MS,
        collect_ms=(now - ended) / _NS_PER_MS,
        total_ms=(now - job.received_ns) / _NS_PER_MS,
        **end,
    )
    return result, answer


def _unanswered(job: Job, command: ev.Finish) -> tuple[dict[str, Any], Sequence[wire.Frame]]:
    """The end of a job that no worker has answered: it waited, or its worker is gone. Its output is what the worker had
    sent of it, if a client was reading.
    """
    stdout, stderr = job.output.frames if job.output is not None else (b"", b"")
    end = {
        "job_id": job.key.partition("/")[2],
        "outcome": command.outcome,
        "reason": command.reason[:4096],
        "stdout_bytes": len(stdout),
        "stderr_bytes": len(stderr),
    }
    return end, (stdout, stderr, b"")

"""Answers the clients on the submit socket. Every request gets one answer: Accepted, Refused or Pong."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog

from pool import wire
from pool._version import __version__
from pool.core import events as ev
from pool.daemon import admission
from pool.daemon.admission import Digests
from pool.daemon.controller import PoolController
from pool.daemon.job_store import Job, JobStore, key_of
from pool.daemon.output import OutputSender, OutputStream
from pool.daemon.zmtp import ClientListener
from pool.errors import PoolError, UnknownJobError, UnknownPoolError

log = structlog.get_logger(__name__)

_MAX_MESSAGE_CHARS = 4000


class _Submission(NamedTuple):
    """A Submit that has passed admission."""

    address: bytes
    client: str
    submit: wire.Submit
    payload: Sequence[wire.Frame]
    controller: PoolController
    run: wire.Run
    received_ns: int


class SubmitService:
    """Takes jobs from clients and gives them results. Called from the loop's thread."""

    def __init__(
        self,
        listener: ClientListener,
        controllers: Mapping[str, PoolController],
        jobs: JobStore,
        *,
        outputs: OutputSender,
        instance: str,
    ) -> None:
        self._listener = listener
        self._controllers = controllers
        self._jobs = jobs
        self._outputs = outputs
        self._instance = instance

    def receive(self, address: bytes, client: str, frames: Sequence[wire.Frame]) -> None:
        """One message of one client."""
        request = 0
        try:
            message, payload = wire.decode(wire.from_client, frames)
            request = message.request
            if isinstance(message, wire.Submit):
                self._submit(address, client, message, payload)
            elif isinstance(message, wire.Watch):
                self._watch(address, client, message)
            elif isinstance(message, wire.Cancel):
                self._cancel(address, client, message)
            else:
                pong = wire.Pong(request=request, instance=self._instance, version=__version__)
                self._listener.send(address, pong)
        except PoolError as error:
            self._refuse(address, client, request, error)

    def _refuse(self, address: bytes, client: str, request: int, error: PoolError) -> None:
        log.info("a request was refused", action="refuse", client=client, code=error.code, reason=error.message[:500])
        message = error.message[:_MAX_MESSAGE_CHARS]
        self._listener.send(
            address, wire.Refused(request=request, code=error.code, message=message, fields=error.fields)
        )

    # ---- submit ----

    def _submit(self, address: bytes, client: str, submit: wire.Submit, payload: Sequence[wire.Frame]) -> None:
        received_ns = time.monotonic_ns()
        controller = self._controllers.get(submit.pool)
        if controller is None:
            raise UnknownPoolError(f"there is no pool {submit.pool!r:.60}; there are: {', '.join(self._controllers)}")
        run = admission.prepare(submit, payload, controller.template)
        submission = _Submission(address, client, submit, payload, controller, run, received_ns)
        self._enter(submission, admission.digest(submit, payload))

    def _enter(self, submission: _Submission, digests: Digests) -> None:
        """Queue the job, unless it was submitted before. Either way the client is told that it is accepted."""
        submit = submission.submit
        key = key_of(submission.client, submit.job_id)
        job = self._jobs.find(key, digests.whole) or self._accept(key, submission, digests)
        self._listener.send(submission.address, wire.Accepted(request=submit.request, job_id=submit.job_id))
        if submit.watch:
            self._attend(job, submission.address, stream=submit.stream)

    def _accept(self, key: str, submission: _Submission, digests: Digests) -> Job:
        job = Job(
            key=key,
            client=submission.client,
            pool=submission.submit.pool,
            digest=digests.whole,
            received_ns=submission.received_ns,
            run=submission.run,
            payload=submission.payload,
        )
        held_bytes = self._jobs.held_bytes(job.client)
        refusal = submission.controller.apply(_event(job, submission, code=digests.code, held_bytes=held_bytes))
        if refusal is not None:
            raise refusal
        return job

    # ---- watch, cancel ----

    def _watch(self, address: bytes, client: str, message: wire.Watch) -> None:
        job = self._own(client, message.job_id)
        self._listener.send(address, wire.Accepted(request=message.request, job_id=message.job_id))
        self._attend(job, address, stream=message.stream)

    def _attend(self, job: Job, address: bytes, *, stream: bool) -> None:
        if job.result is not None:
            self._listener.send(address, job.result, job.answer)
        if job.run is None:
            return
        job.watchers.add(address)
        if stream:
            job.output = job.output or OutputStream(job.run.job_id, limit=job.run.output)
            self._controllers[job.pool].stream(job)
            self._outputs.add_reader(job.output, address)

    def _cancel(self, address: bytes, client: str, message: wire.Cancel) -> None:
        job = self._own(client, message.job_id)
        self._listener.send(address, wire.Accepted(request=message.request, job_id=message.job_id))
        self._controllers[job.pool].apply(ev.CancelRequested(job_id=job.key, cause=f"client {client}"))

    def _own(self, client: str, job_id: str) -> Job:
        job = self._jobs.get(key_of(client, job_id))
        if job is None:
            raise UnknownJobError(
                f"there is no job {job_id!r:.140} of yours: this user never submitted it, its result is over its time, "
                "or the daemon was restarted since"
            )
        return job


def _event(job: Job, submission: _Submission, *, code: str, held_bytes: int) -> ev.JobSubmitted:
    submit, timeout_s = submission.submit, submission.submit.queue_timeout_s
    if timeout_s is None:
        timeout_s = submission.controller.template.backlog.queue_timeout_s
    return ev.JobSubmitted(
        job_id=job.key,
        client=job.client,
        wall_s=submission.run.wall_s,
        priority=submit.priority,
        queue_timeout_s=timeout_s,
        code=code,
        size_bytes=job.held_bytes,
        held_bytes=held_bytes,
        attachment=job,
        cause=f"client {job.client}",
    )

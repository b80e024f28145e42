"""Answers the clients on the submit socket. Every request gets one answer: Accepted, Refused or Pong.

Submit ─▶ admission: checks, limits ─▶ digest ─▶ job store: known? ─▶ PoolController ─▶ Accepted
│ a large one, in a thread: until it is done, nothing else is
▼ received from this client, so that its requests keep their order
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial

import msgspec
import structlog

from pool import wire
from pool._version import __version__
from pool.core import events as ev
from pool.daemon import admission, grading
from pool.daemon.admission import Digests
from pool.daemon.controller import PoolController
from pool.daemon.engine_executor import LoopExecutor
from pool.daemon.job import JOB_BYTES, Job, Terms
from pool.daemon.journal_entries import SetHeader
from pool.daemon.output import OutputStream
from pool.daemon.sessions import Sessions
from pool.daemon.status import own
from pool.daemon.worker_handle import Services
from pool.errors import JobConflictError, PoolError, StorageFullError, UnknownJobError, UnknownPoolError

log = structlog.get_logger(__name__)

#: A larger submission is digested in a thread. This one takes the loop about 1 ms.
MAX_INLINE_BYTES = 1024 * 1024
_MAX_MESSAGE_CHARS = 4000
_ABOUT_A_JOB = (wire.Watch, wire.Cancel)  # `Watch | Cancel` would be made anew for each message


class SubmitService:
    """Takes jobs from clients and gives them results. Called from the loop's thread."""

    def __init__(
        self, controllers: Mapping[str, PoolController], services: Services, *, executor: LoopExecutor, instance: str
    ) -> None:
        self.sessions = Sessions(services.transport.submit, services.jobs, self._cancel_orphan)
        self.sessions.restore(time.monotonic())
        self.digesting = 0  #: submissions that are being digested in a thread
        self._listener = services.transport.submit
        self._controllers = controllers
        self._jobs = services.jobs
        self._journal = services.journal
        self._outputs = services.outputs
        self._executor = executor
        self._instance = instance

    def receive(self, address: bytes, client: str, frames: Sequence[wire.Frame]) -> None:
        """One message of one client."""
        request = 0
        try:
            message, payload = wire.decode(wire.from_client, frames)
            request = message.request
            if isinstance(message, wire.Submit):
                self._submit(address, client, message, payload)
            elif isinstance(message, _ABOUT_A_JOB):
                self._confirm(self._own(client, message.job_id), address, message)
            elif isinstance(message, wire.Mine):
                self._mine(address, client, message)
            else:
                if message.session is not None:
                    self.sessions.announce(address, client, message.session)
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
        size = sum(map(len, payload))
        own, rest = (payload, ()) if submit.grade is None else grading.split(submit.grade, payload)
        run = admission.prepare(submit, own, controller.template, size_bytes=size)
        job = Job(
            key=f"{client}/{submit.job_id}",
            client=client,
            pool=submit.pool,
            received_ns=received_ns,
            run=run,
            payload=own,
            held_bytes=JOB_BYTES + size,
        )
        if submit.trace:
            job.trace = [("client: sent", min(submit.sent_ns, received_ns)), ("daemon: received", received_ns)]
        if rest:
            grading.add_grader(job, submit, rest, controller.template)
        if size > MAX_INLINE_BYTES:
            self._digest_in_thread(address, submit, job, payload)
        else:
            self._enter(address, submit, job, admission.digest(submit, payload))

    def _digest_in_thread(self, address: bytes, submit: wire.Submit, job: Job, payload: Sequence[wire.Frame]) -> None:
        """The client's other messages wait until this job is queued: an id is compared with the ids before it, and a
        cancel or watch request finds the job.
        """

        def done(digests: Future[Digests]) -> None:
            self.digesting -= 1
            self._listener.resume(job.client)
            try:
                self._enter(address, submit, job, digests.result())
            except PoolError as error:
                self._refuse(address, job.client, submit.request, error)

        self.digesting += 1
        self._listener.pause(job.client)
        self._executor.submit(lambda: admission.digest(submit, payload), done)

    def _enter(self, address: bytes, submit: wire.Submit, job: Job, digests: Digests) -> None:
        """Give a new job to its pool. Once it is written, Accepted is sent, as for one that was submitted before.

        Raises BusyError, PoisonedCodeError or JobConflictError.
        """
        if (known := self._jobs.by_key.get(job.key)) is not None:
            self._enter_again(known, address, submit, digests)
            return
        if (trouble := self._journal.trouble) is not None:
            raise StorageFullError(trouble.error.message, **trouble.error.fields)
        if self._jobs.over:
            self._jobs.require_room(job.client)
        controller, timeout_s, run = self._controllers[job.pool], submit.queue_timeout_s, job.run
        assert run is not None, "it is new"
        job.digest = digests.whole
        job.terms = Terms(
            loop=self.sessions.of.get(address) or address.hex(),
            priority=submit.priority,
            queue_timeout_s=controller.template.backlog.queue_timeout_s if timeout_s is None else timeout_s,
            code=digests.code,
            retries=submit.retries,
            session="" if submit.session is None else f"{job.client}/{submit.session}",
        )
        submitted = ev.JobSubmitted(
            job_id=job.key,
            client=job.client,
            wall_s=run.wall_s * max(1, len(run.calls)),
            loop=job.terms.loop,
            priority=submit.priority,
            queue_timeout_s=job.terms.queue_timeout_s,
            code=digests.code,
            retries=submit.retries,
            size_bytes=job.held_bytes,
            held_bytes=self._jobs.unfinished_bytes[job.client],
            attachment=job,
            cause=f"client {job.client}",
        )
        if (refusal := controller.apply(submitted)) is not None:
            raise refusal
        job.session = job.terms.session
        if job.session and job.session not in self.sessions.with_jobs:
            self.sessions.bind(job.session)
        self._confirm(job, address, submit)

    def _enter_again(self, job: Job, address: bytes, submit: wire.Submit, digests: Digests) -> None:
        """A job that was submitted before ends with its latest client, unless anybody has asked to keep it."""
        if job.digest != digests.whole:
            raise JobConflictError("job_id: this id was already used for another job; give each job an id of its own")
        if submit.session is None:
            job.session = ""
        elif job.session:
            job.session = f"{job.client}/{submit.session}"
            self.sessions.bind(job.session)
        if job.session == job.terms.session or job.run is None:
            self._confirm(job, address, submit)
            return
        job.terms = msgspec.structs.replace(job.terms, session=job.session)
        self._journal.write(SetHeader(job.number, job.header()), lambda _: self._confirm(job, address, submit))

    def _confirm(self, job: Job, address: bytes, message: wire.Submit | wire.Watch | wire.Cancel) -> None:
        """Answer a message about a job when the acceptance of the job is written, and carry out the message."""
        if not job.written:
            job.when_written.append(partial(self._confirm, job, address, message))
            return
        if job.refused is not None:
            self._refuse(address, job.client, message.request, job.refused)
            return
        accepted = wire.Accepted(request=message.request, job_id=message.job_id)
        if isinstance(message, wire.Cancel):
            self._listener.send(address, accepted)
            cancel = ev.CancelRequested(job_id=job.current, cause=f"client {job.client}")
            self._controllers[job.pool].apply(cancel)
            return
        if not (isinstance(message, wire.Watch) or message.watch):
            self._listener.send(address, accepted)
        elif job.result is not None:
            self._jobs.send(address, job, first=accepted)
        elif job.held_until and not message.stream and address not in job.unsent:
            job.unsent[address] = accepted
            job.watchers.add(address)
        else:
            self._listener.send(address, accepted)
            job.watchers.add(address)
            if message.stream:
                self._stream(job, address)

    # ---- watch, cancel ----

    def _stream(self, job: Job, address: bytes) -> None:
        """Send the client what the job prints, from the first byte."""
        run = job.run
        assert run is not None, "it has not ended"
        limit = run.output * (wire.CHUNK_ANSWERS if run.calls else 1)
        job.output = job.output or OutputStream(run.job_id, limit=limit)
        self._controllers[job.pool].carrier.stream(job)
        self._outputs.add_reader(job.output, address)

    def _mine(self, address: bytes, client: str, message: wire.Mine) -> None:
        answer = msgspec.json.encode(own(client, self._jobs, self._controllers))
        self._listener.send(address, wire.AdminReply(request=message.request), [answer])

    def _cancel_orphan(self, job: Job) -> None:
        self._controllers[job.pool].apply(ev.CancelRequested(job_id=job.current, cause="its client is gone"))

    def _own(self, client: str, job_id: str) -> Job:
        job = self._jobs.by_key.get(f"{client}/{job_id}")
        if job is None:
            raise UnknownJobError(
                f"there is no job {job_id!r:.140} of yours: it was never submitted, or its result is no longer kept"
                + ("" if self._journal.durable else " or did not outlive a restart of the daemon"),
                known_since_ns=self._jobs.known_since_ns,
            )
        return job

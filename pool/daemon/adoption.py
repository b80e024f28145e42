"""Workers that outlive the daemon: the note about each, and how the next daemon takes them over.

    a worker is ready ──▶ note in the run directory, token to its runner
    next daemon: note and container ──find──▶ WorkerFound ──its runner resumes with the token──▶ WorkerAdopted

What a runner says of its job is compared with the lease in the journal; only the same job and epoch go on. A runner
holds its last answer until it gets another job. If no lease is left for that answer, the end of its job was written, or
nobody waits for it any more: the runner drops it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from pool import wire
from pool.core import events as ev
from pool.core.machine import PoolState
from pool.core.records import StopReason
from pool.daemon.datasets import PoolDatasets
from pool.daemon.engine_executor import Launched
from pool.daemon.kept_workers import KeptWorker
from pool.daemon.metrics import Metrics
from pool.daemon.worker_handle import Services, WorkerHandle
from pool.daemon.worker_protocol import WorkerProtocol
from pool.daemon.worker_spec import WorkerSpecFactory
from pool.engines.base import Container
from pool.errors import PoolError

log = structlog.get_logger(__name__)


class Pool(Protocol):
    """The controller of the pool."""

    was_ready: bool

    @property
    def state(self) -> PoolState: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def datasets(self) -> PoolDatasets: ...
    @property
    def handles(self) -> Mapping[str, WorkerHandle]: ...
    def apply(self, event: ev.Event) -> PoolError | None: ...
    def add_handle(self, worker_id: str, uid: int, *, number: int, protocol: WorkerProtocol) -> WorkerHandle: ...
    def launched(self, handle: WorkerHandle, launched: Launched) -> None: ...
    def receive(self, worker_id: str, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> None: ...
    def lost(self, worker_id: str, reason: str) -> None: ...


class Adoption:
    """Keeps and takes over the workers of one pool. Called from the loop's thread."""

    def __init__(
        self, pool: Pool, services: Services, specs: WorkerSpecFactory, *, heartbeat_s: float, largest_answer: int
    ) -> None:
        """`largest_answer`: bytes that a worker with a job may send in one message."""
        self._pool = pool
        self._specs = specs
        self._digest = specs.digest()
        self._links = services.transport.links
        self._executor = services.executors[specs.engine]
        self._jobs = services.jobs
        self._kept = services.kept
        self._heartbeat_s = heartbeat_s
        self._largest_answer = largest_answer

    def keep(self, handle: WorkerHandle) -> None:
        """Note a ready worker for the next daemon, and give its runner the token."""
        started_at = self._pool.state.workers[handle.id].started_at
        kept = handle.to_keep(
            instance=self._specs.instance, pool=self._pool.state.name, template=self._digest, started_at=started_at
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
        handle = self._pool.handles[worker_id]
        if self._pool.state.policy.reuse_scope == "client" and handle.kept is not None and handle.kept.client != client:
            self._note(handle, msgspec.structs.replace(handle.kept, client=client))

    def find(self, kept: KeptWorker, container: Container) -> bool:
        """An earlier daemon has left this worker. Its runner may connect now, and has to prove itself.

        False: its link cannot be made, and the pool does not have it.
        """
        try:
            self._links.reopen(kept.worker_id, self._pool, kept.number)
        except OSError as error:
            text = "a worker that an earlier daemon left cannot be reached and is removed"
            log.warning(text, action="not_adopted", worker=kept.worker_id, error=str(error))
            return False
        start = self._specs.start_check()
        start.restore(kept.isolation, kept.missing, kept.rows)
        protocol = WorkerProtocol(start, heartbeat_s=self._heartbeat_s, token=kept.token)
        handle = self._pool.add_handle(kept.worker_id, kept.uid, number=kept.number, protocol=protocol)
        handle.kept = kept
        self._executor.attach(handle.id, container, on_up=lambda launched: self._pool.launched(handle, launched))
        found = ev.WorkerFound(
            worker_id=handle.id,
            started_at=kept.started_at,
            edition=self._pool.datasets.newest,
            client=kept.client,
            cause="start of the daemon",
        )
        self._pool.apply(found)
        return True

    def resumed(self, handle: WorkerHandle, resume: wire.Resume, _: object) -> None:
        assert handle.kept is not None
        has_job = resume.state in {"running", "answered"} and self._was_left(handle, resume)
        drops_answer = resume.state == "answered" and not has_job
        unusable = None
        if resume.state == "running" and not has_job:
            unusable = StopReason.UNKNOWN_JOB
        elif handle.kept.template != self._digest:
            unusable = StopReason.OUTDATED
        handle.log.info("a worker was found", action="worker_found", state=resume.state, unusable=unusable)
        if drops_answer:
            self._links.send(handle.id, handle.protocol.collected())
        if unusable is None or has_job:
            self._pool.was_ready = True
            most = wire.CHUNK_ANSWERS * self._largest_answer + wire.MAX_HEADER_BYTES if has_job else 0
            self._links.send(handle.id, wire.Adopted(), answer_bytes=most)
        adopted = ev.WorkerAdopted(
            worker_id=handle.id,
            jobs=resume.jobs,
            shareable=not handle.start.missing,
            cleaning=drops_answer or resume.state == "cleaning",
            has_job=has_job,
            epoch=resume.epoch,
            elapsed_s=resume.elapsed_s,
            unusable=unusable,
            cause="its runner has proved itself",
        )
        self._pool.apply(adopted)

    def _was_left(self, handle: WorkerHandle, resume: wire.Resume) -> bool:
        """Whether the journal has a lease of this job, of this epoch, to this worker."""
        worker = self._pool.state.workers[handle.id]
        run = self._jobs.by_key[worker.job.id].run if worker.job is not None else None
        return run is not None and (run.job_id, worker.epoch) == (resume.job_id, resume.epoch)

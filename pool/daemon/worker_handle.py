"""The daemon's record of a worker, and the parts that all pools of a daemon share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from pool.daemon.engine_executor import EngineExecutor
from pool.daemon.job_store import JobStore
from pool.daemon.journal import Journal
from pool.daemon.kept_workers import KeptWorker, KeptWorkers, new_token
from pool.daemon.output import OutputSender
from pool.daemon.self_tests import StartCheck
from pool.daemon.worker_protocol import WorkerProtocol
from pool.daemon.zmtp import Transport
from pool.engines.base import Container


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What all pools of a daemon share."""

    transport: Transport
    executors: Mapping[str, EngineExecutor]  #: by the name of their engine
    jobs: JobStore
    journal: Journal
    outputs: OutputSender
    kept: KeptWorkers


@dataclass(slots=True, kw_only=True, eq=False)
class WorkerHandle:
    """The daemon's record of a worker, from its start, or since it was found, until its container is gone."""

    id: str
    uid: int
    number: int  #: of its link's directory
    protocol: WorkerProtocol
    log: structlog.typing.FilteringBoundLogger  #: with the names of the worker and its pool
    container: Container | None = None
    pid: int | None = None
    pidfd: int | None = None  #: watched until its first message
    kept: KeptWorker | None = None  #: as it is noted for the next daemon; None: it cannot be adopted

    @property
    def start(self) -> StartCheck:
        return self.protocol.start

    def to_keep(self, *, instance: str, pool: str, template: str, started_at: float) -> KeptWorker:
        """The note of this worker, with a new token."""
        return KeptWorker(
            worker_id=self.id,
            instance=instance,
            pool=pool,
            number=self.number,
            uid=self.uid,
            token=new_token(),
            template=template,
            started_at=started_at,
            isolation=self.start.isolation,
            missing=self.start.missing,
            rows=self.start.rows,
        )

"""What a keeper holds: for each worker, for its pool, and together with the other pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pool import wire
from pool.config import Template
from pool.core.events import Event
from pool.core.machine import PoolState
from pool.daemon.boot import Boot
from pool.daemon.conduct import Conduct
from pool.daemon.datasets import PoolDatasets
from pool.daemon.engine_executor import EngineExecutor
from pool.daemon.job_store import Job, JobStore
from pool.daemon.metrics import Metrics
from pool.daemon.output import OutputSender
from pool.daemon.zmtp import Transport
from pool.engines.base import Container

Apply = Callable[[Event], None]
Deliver = Callable[[Job, set[bytes]], None]


@dataclass(slots=True, kw_only=True)
class Berth:
    """What the keeper holds for a worker while it exists: the facts that no decision needs."""

    boot: Boot
    conduct: Conduct
    uid: int
    container: Container | None = None
    pid: int | None = None
    pidfd: int | None = None
    done: tuple[wire.Done, Sequence[wire.Frame]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all pools of a daemon share."""

    transport: Transport
    executor: EngineExecutor
    jobs: JobStore
    outputs: OutputSender
    deliver: Deliver


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All there is of one pool. `state` is changed through the keeper's `apply` only."""

    state: PoolState
    template: Template
    datasets: PoolDatasets
    shared: Shared
    metrics: Metrics = field(default_factory=Metrics)
    berths: dict[str, Berth] = field(default_factory=dict)

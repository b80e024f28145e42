"""The daemon's answers as typed values, with the fields that the command line reads.

Unknown keys are ignored and missing keys have defaults, so that pool-admin works with an older or newer daemon.
`troubles` lists the reasons for exit status 4.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from pool.errors import RemoteProtocolError


class View(Struct, frozen=True):
    """Base of every part."""


class EngineView(View, frozen=True):
    name: str = ""
    version: str = ""
    runtime: str = ""
    cgroups: str = ""


class DaemonView(View, frozen=True):
    version: str = ""
    pid: int | None = None
    state: str = ""
    uptime_s: float | None = None
    run_dir: str = ""
    engine: EngineView | None = None


class SizeView(View, frozen=True):
    min: int = 0
    max: int = 0
    target: int = 0


class BreakerView(View, frozen=True):
    open: bool = False
    failures: int = 0
    last_reason: str | None = None
    retry_in_s: float | None = None


class Quantiles(View, frozen=True):
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class WorkerView(View, frozen=True):
    id: str = ""
    container: str | None = None
    state: str = ""
    jobs: int = 0
    age_s: float | None = None
    rss_bytes: int | None = None
    isolation: str | None = None
    lockdown: object = None
    job: str | None = None
    client: str | None = None
    uid: int | None = None
    boot_ms: float | None = None


class DatasetView(View, frozen=True):
    path: str = ""
    digest: str | None = None
    size_bytes: int | None = None
    problem: str | None = None


class PoolView(View, frozen=True):
    name: str
    engine: str | None = None
    image: str | None = None
    isolation: str | None = None
    state: str = ""
    size: SizeView = SizeView()
    breaker: BreakerView | None = None
    workers: tuple[WorkerView, ...] = ()
    backlog: int = 0
    running: int = 0
    jobs: dict[str, int] = {}
    hit_rate: float | None = None
    recycles: dict[str, int] = {}
    datasets: dict[str, DatasetView | str] = {}  #: an older daemon names the file alone
    overhead_ms: Quantiles | None = None
    queue_ms: Quantiles | None = None


class FallbackView(View, frozen=True):
    rate: float | None = None
    last_reason: str | None = None


class AlertView(View, frozen=True):
    id: str = ""
    text: str = ""


class SnapshotView(View, frozen=True):
    daemon: DaemonView
    pools: tuple[PoolView, ...]
    fallback: FallbackView | None = None
    alerts: tuple[AlertView, ...] = ()


class JobView(View, frozen=True):
    id: str = ""
    pool: str = ""
    state: str = ""
    outcome: str | None = None
    client: str | None = None
    age_s: float | None = None
    worker: str | None = None


class JobsView(View, frozen=True):
    jobs: tuple[JobView, ...]
    total: int = 0


class EntryView(View, frozen=True):
    age_s: float = 0.0
    state: str = ""
    what: str = ""
    cause: str = ""


class StoryView(View, frozen=True):
    id: str
    entries: tuple[EntryView, ...]
    pool: str = ""


class LastView(View, frozen=True):
    age_s: float | None = None
    worker: str = ""
    what: str = ""


class CodeView(View, frozen=True):
    code: str
    pool: str = ""
    kills: int = 0
    refused_until_s: float | None = None
    last: LastView = LastView()


class PoisonView(View, frozen=True):
    poison: tuple[CodeView, ...]


class ProbeView(View, frozen=True):
    probe: str = ""
    verdict: str = ""
    seen: str = ""


class WorkerProbesView(View, frozen=True):
    """One worker."""

    id: str = ""
    pool: str = ""
    isolation: str | None = None
    missing: tuple[str, ...] = ()
    probes: tuple[ProbeView, ...] = ()


class DoctorView(View, frozen=True):
    workers: tuple[WorkerProbesView, ...] = ()


NO_PROBES = DoctorView()


V = TypeVar("V", bound=View)


def read(answer: object, kind: type[V]) -> V:
    """The daemon's answer as a view. Raises RemoteProtocolError when it is something else."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(
            f"the daemon's answer is not what this version reads: {error}; use the pool-admin that came with the daemon"
        ) from None


def troubles(snapshot: SnapshotView) -> list[str]:
    """One sentence for each reason why a pool is degraded. Empty if none is."""
    state = snapshot.daemon.state
    found = [] if state == "running" else [f"the daemon is {state or 'in an unknown state'}, not running"]
    for pool in snapshot.pools:
        found += _pool_troubles(pool)
    return found


def _pool_troubles(pool: PoolView) -> list[str]:
    found = []
    ready = sum(worker.state in ("idle", "leased") for worker in pool.workers)
    if ready < pool.size.min:
        found.append(f"pool {pool.name}: {ready} of at least {pool.size.min} workers ready")
    if pool.breaker is not None and pool.breaker.open:
        again = "" if pool.breaker.retry_in_s is None else f", next try in {pool.breaker.retry_in_s:.0f} s"
        found.append(
            f"pool {pool.name}: no workers are started after {pool.breaker.failures} failed starts{again}: "
            f"{pool.breaker.last_reason or 'no reason given'}"
        )
    return found

"""The Snapshot: a plain dict of the whole daemon, as `pool-admin status --json` prints it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import psutil

from pool._version import __version__
from pool.core.poison import PoisonView
from pool.core.records import WorkerRecord
from pool.daemon import metrics
from pool.daemon.controller import PoolController, WorkerHandle
from pool.engines.base import EngineFacts
from pool.model import Outcome, WorkerState

Json = dict[str, object]
#: Of the code that has cost workers, the last killers.
_SHOWN_CODES = 100


def snapshot(
    pools: Mapping[str, PoolController],
    *,
    state: str,
    started_at: float,
    instance: str,
    run_dir: str,
    engine: EngineFacts,
) -> Json:
    """All of it, at this moment."""
    now = time.monotonic()
    return {
        "daemon": {
            "version": __version__,
            "pid": os.getpid(),
            "state": state,
            "uptime_s": round(now - started_at, 1),
            "instance": instance,
            "run_dir": run_dir,
            "rss_bytes": psutil.Process().memory_info().rss,
            "engine": {
                "name": engine.name,
                "version": engine.version,
                "runtime": engine.runtime,
                "cgroups": engine.cgroups,
            },
        },
        "pools": [_pool(pool, engine, now) for pool in pools.values()],
        "fallback": {"rate": 0.0, "last_reason": None},
        "alerts": [alert for pool in pools.values() for alert in _alerts(pool, now)],
    }


def _pool(pool: PoolController, engine: EngineFacts, now: float) -> Json:
    core, metrics = pool.state, pool.metrics
    workers = [_worker(pool, worker, now) for worker in core.workers.values() if worker.state is not WorkerState.GONE]
    return {
        "name": core.name,
        "state": str(core.state),
        "ready": pool.ready,
        "engine": engine.name,
        "image": pool.template.image,
        "isolation": next((handle.start.isolation for handle in pool.handles.values() if handle.start.isolation), None),
        "missing": sorted({part for handle in pool.handles.values() for part in handle.start.missing}),
        "reuse_scope": core.policy.reuse_scope,
        "size": {"min": core.policy.min_workers, "max": core.policy.max_workers, "target": core.target},
        "workers": workers,
        "backlog": core.backlog_length,
        "running": core.running,
        "jobs": {str(outcome): metrics.outcomes[outcome] for outcome in Outcome},
        "hit_rate": metrics.hit_rate,
        "recycles": dict(metrics.recycles),
        "residue": dict(metrics.residue),
        "overhead_ms": metrics.overhead_ms,
        "queue_ms": metrics.queue_ms,
        "breaker": _breaker(pool, now),
        "poison": [_poisoned(each, now) for each in core.poison(now)[:_SHOWN_CODES]],
        "datasets": {name: _dataset(pool, name) for name in pool.datasets.paths},
        "edition": _edition(pool, now),
    }


def _dataset(pool: PoolController, name: str) -> Json:
    """What a worker that is started now is given; `problem` is why that may not be what is in the file."""
    pin = pool.datasets.of(pool.state.editions.current).get(name)
    return {
        "path": str(pool.datasets.paths[name]),
        "digest": pin.digest if pin is not None else None,
        "size_bytes": pin.size_bytes if pin is not None else None,
        "problem": problem.text if (problem := pool.datasets.problems.get(name)) is not None else None,
    }


def _edition(pool: PoolController, now: float) -> Json:
    view = pool.state.editions
    return {
        "current": view.current,
        "trial": view.trial,
        "reason": view.reason or None,
        "retry_in_s": round(max(0.0, view.retry_at - now), 1) if view.retry_at is not None else None,
    }


def _poisoned(code: PoisonView, now: float) -> Json:
    until, last = code.refused_until, code.kills[-1]
    return {
        "code": code.code,
        "kills": len(code.kills),
        "refused_until_s": round(until - now, 1) if until is not None else None,
        "last": {"age_s": round(now - last.at, 1), "worker": last.worker, "what": last.what},
    }


def _worker(pool: PoolController, worker: WorkerRecord, now: float) -> Json:
    handle = pool.handles.get(worker.id)
    container = handle.container if handle is not None else None
    at_work = worker.state in {WorkerState.LEASED, WorkerState.CLEANING}
    return {
        "id": worker.id,
        "container": container.id if container is not None else None,
        "state": str(WorkerState.LEASED if at_work else worker.state),
        "jobs": worker.jobs,
        "edition": worker.edition,
        "age_s": round(now - worker.started_at, 1),
        "rss_bytes": metrics.worker_memory(
            handle.pid if handle is not None else None, container.id if container is not None else None
        ),
        "lockdown": handle.start.lockdown if handle is not None else None,
        "isolation": handle.start.isolation or None if handle is not None else None,
        "missing": list(handle.start.missing) if handle is not None else [],
        "job": worker.job.id.partition("/")[2] if worker.job is not None else None,
        "client": worker.client,
        "uid": handle.uid if handle is not None else None,
        "boot_ms": round(handle.start.boot_ms, 1) if handle is not None else None,
    }


def _breaker(pool: PoolController, now: float) -> Json:
    breaker = pool.state.breaker
    retry_at = breaker.retry_at
    return {
        "open": breaker.open,
        "failures": breaker.failures,
        "last_reason": breaker.last_reason or None,
        "retry_in_s": round(max(0.0, retry_at - now), 1) if retry_at is not None and breaker.failures else None,
    }


def _alerts(pool: PoolController, now: float) -> list[Json]:
    name, breaker = pool.state.name, pool.state.breaker
    alerts: list[Json] = []
    if breaker.open:
        since, text = breaker.opened_at, f"pool {name} cannot start workers: {breaker.last_reason}"
        alerts.append({"id": f"breaker:{name}", "since": _date(since, now), "text": text})
    if missing := sorted({part for handle in pool.handles.values() for part in handle.start.missing}):
        text = f"pool {name} runs without {'; '.join(missing)}: no worker serves two clients; see pool-admin doctor"
        since = min((worker.started_at for worker in pool.state.workers.values()), default=now)
        alerts.append({"id": f"isolation:{name}", "since": _date(since, now), "text": text})
    return alerts + _dataset_alerts(pool, now)


def _dataset_alerts(pool: PoolController, now: float) -> list[Json]:
    name, view = pool.state.name, pool.state.editions
    has = "workers keep the data they have" if view.current else "no worker is started without it"
    alerts: list[Json] = [
        {
            "id": f"dataset:{name}:{dataset}",
            "since": _date(problem.since, now),
            "text": f"pool {name}, data set {dataset}: {problem.text}; {has}",
        }
        for dataset, problem in sorted(pool.datasets.problems.items())
    ]
    if view.reason:
        text = (
            f"pool {name} keeps the data it has, for the new ones cannot be used: {view.reason}; put a whole file in "
            "place by rename, or have it tried again with pool-admin resume"
        )
        alerts.append({"id": f"datasets:{name}", "since": _date(view.failed_at, now), "text": text})
    if refused := [code for code in pool.state.poison(now) if code.refused_until is not None]:
        text = f"pool {name} refuses code that has cost it workers ({len(refused)}); see pool-admin poison"
        alerts.append({"id": f"poison:{name}", "since": _date(refused[-1].kills[-1].at, now), "text": text})
    return alerts


def _date(since: float | None, now: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=now - (since or now))).isoformat(timespec="seconds")


def doctor(pools: Mapping[str, PoolController]) -> Json:
    """What each worker's lockdown probe saw before the worker got its first job."""
    return {
        "workers": [
            {
                "id": handle.id,
                "pool": pool.state.name,
                "isolation": handle.start.isolation or None,
                "lockdown": handle.start.lockdown,
                "missing": list(handle.start.missing),
                "probes": [row._asdict() for row in handle.start.rows],
            }
            for pool in pools.values()
            for handle in _probed(pool)
        ]
    }


def _probed(pool: PoolController) -> list[WorkerHandle]:
    """The workers, and the one whose lockdown did not hold: it is gone, but its table is needed most."""
    failure = pool.lockdown_failure
    others = [each for each in pool.handles.values() if each is not failure]
    return others if failure is None else [*others, failure]

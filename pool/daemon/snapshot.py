"""The Snapshot: a plain dict of the whole daemon, as `pool-admin status --json` prints it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import psutil

from pool._version import __version__
from pool.core.poison import PoisonView
from pool.core.records import WorkerRecord
from pool.daemon import metrics
from pool.daemon.boot import Boot
from pool.daemon.keeper import Keeper
from pool.engines.base import EngineFacts
from pool.model import Outcome, WorkerState

Json = dict[str, object]
#: Of the code that has cost workers, the last killers.
_SHOWN_CODES = 100


def snapshot(
    keepers: Mapping[str, Keeper], *, state: str, born: float, instance: str, run_dir: str, engine: EngineFacts
) -> Json:
    """All of it, at this moment."""
    now = time.monotonic()
    pools = [_pool(keeper, engine, now) for keeper in keepers.values()]
    return {
        "daemon": {
            "version": __version__,
            "pid": os.getpid(),
            "state": state,
            "uptime_s": round(now - born, 1),
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
        "pools": pools,
        "fallback": {"rate": 0.0, "last_reason": None},
        "alerts": [alert for keeper in keepers.values() for alert in _alerts(keeper, now)],
    }


def _pool(keeper: Keeper, engine: EngineFacts, now: float) -> Json:
    core, metrics = keeper.state, keeper.metrics
    workers = [_worker(keeper, worker, now) for worker in core.workers.values() if worker.state is not WorkerState.GONE]
    return {
        "name": core.name,
        "state": str(core.state),
        "ready": keeper.ready,
        "engine": engine.name,
        "image": keeper.template.image,
        "isolation": next((berth.boot.isolation for berth in keeper.berths.values() if berth.boot.isolation), None),
        "missing": sorted({part for berth in keeper.berths.values() for part in berth.boot.missing}),
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
        "breaker": _breaker(keeper, now),
        "poison": [_poisoned(each, now) for each in core.poison(now)[:_SHOWN_CODES]],
        "datasets": {name: _dataset(keeper, name) for name in keeper.datasets.paths},
        "edition": _edition(keeper, now),
    }


def _dataset(keeper: Keeper, name: str) -> Json:
    """What a worker that is started now is given; `problem` is why that may not be what is in the file."""
    pin = keeper.datasets.of(keeper.state.editions.current).get(name)
    return {
        "path": str(keeper.datasets.paths[name]),
        "digest": pin.digest if pin is not None else None,
        "size_bytes": pin.size_bytes if pin is not None else None,
        "problem": problem.text if (problem := keeper.datasets.problems.get(name)) is not None else None,
    }


def _edition(keeper: Keeper, now: float) -> Json:
    view = keeper.state.editions
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


def _worker(keeper: Keeper, worker: WorkerRecord, now: float) -> Json:
    berth = keeper.berths.get(worker.id)
    container = berth.container if berth is not None else None
    job = worker.job_id
    return {
        "id": worker.id,
        "container": container.id if container is not None else None,
        "state": str(worker.state),
        "jobs": worker.jobs,
        "edition": worker.edition,
        "age_s": round(now - worker.started_at, 1),
        "rss_bytes": metrics.worker_memory(
            berth.pid if berth is not None else None, container.id if container is not None else None
        ),
        "lockdown": berth.boot.lockdown if berth is not None else None,
        "isolation": berth.boot.isolation or None if berth is not None else None,
        "missing": list(berth.boot.missing) if berth is not None else [],
        "job": job.partition("/")[2] if job else None,
        "client": worker.client,
        "uid": berth.uid if berth is not None else None,
        "boot_ms": round(berth.boot.boot_ms, 1) if berth is not None else None,
    }


def _breaker(keeper: Keeper, now: float) -> Json:
    breaker = keeper.state.breaker
    retry_at = breaker.retry_at
    return {
        "open": breaker.open,
        "failures": breaker.failures,
        "last_reason": breaker.last_reason or None,
        "retry_in_s": round(max(0.0, retry_at - now), 1) if retry_at is not None and breaker.failures else None,
    }


def _alerts(keeper: Keeper, now: float) -> list[Json]:
    name, breaker = keeper.state.name, keeper.state.breaker
    alerts: list[Json] = []
    if breaker.open:
        since, text = keeper.broken_since, f"pool {name} cannot start workers: {breaker.last_reason}"
        alerts.append({"id": f"breaker:{name}", "since": _date(since, now), "text": text})
    if missing := sorted({part for berth in keeper.berths.values() for part in berth.boot.missing}):
        text = f"pool {name} runs without {'; '.join(missing)}: no worker serves two clients; see pool-admin doctor"
        since = min((worker.started_at for worker in keeper.state.workers.values()), default=now)
        alerts.append({"id": f"isolation:{name}", "since": _date(since, now), "text": text})
    return alerts + _dataset_alerts(keeper, now)


def _dataset_alerts(keeper: Keeper, now: float) -> list[Json]:
    pool, view = keeper.state.name, keeper.state.editions
    has = "workers keep the data they have" if view.current else "no worker is started without it"
    alerts: list[Json] = [
        {
            "id": f"dataset:{pool}:{name}",
            "since": _date(problem.since, now),
            "text": f"pool {pool}, data set {name}: {problem.text}; {has}",
        }
        for name, problem in sorted(keeper.datasets.problems.items())
    ]
    if view.reason:
        text = (
            f"pool {pool} keeps the data it has, for the new ones cannot be used: {view.reason}; put a whole file in "
            "place by rename, or have it tried again with pool-admin resume"
        )
        alerts.append({"id": f"datasets:{pool}", "since": _date(view.failed_at, now), "text": text})
    if refused := [code for code in keeper.state.poison(now) if code.refused_until is not None]:
        text = f"pool {pool} refuses code that has cost it workers ({len(refused)}); see pool-admin poison"
        alerts.append({"id": f"poison:{pool}", "since": _date(refused[-1].kills[-1].at, now), "text": text})
    return alerts


def _date(since: float | None, now: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=now - (since or now))).isoformat(timespec="seconds")


def doctor(keepers: Mapping[str, Keeper]) -> Json:
    """What each worker's lockdown probe saw before its first lease."""
    return {
        "workers": [
            {
                "id": worker_id,
                "pool": keeper.state.name,
                "isolation": boot.isolation or None,
                "lockdown": boot.lockdown,
                "missing": list(boot.missing),
                "probes": [asdict(row) for row in boot.rows],
            }
            for keeper in keepers.values()
            for worker_id, boot in _starts(keeper).items()
        ]
    }


def _starts(keeper: Keeper) -> dict[str, Boot]:
    """Of all that are there, and of the one whose lockdown did not hold: it is gone, and what it saw matters most."""
    starts = {worker_id: berth.boot for worker_id, berth in keeper.berths.items()}
    return starts | dict([keeper.failed] if keeper.failed is not None else [])

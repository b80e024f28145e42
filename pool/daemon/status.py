"""Fills the answers to pool-admin's `status`, `doctor` and `mine` from the daemon's parts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psutil

from pool import status as st
from pool._version import __version__
from pool.core.poison import PoisonView
from pool.core.records import WorkerRecord
from pool.daemon import metrics
from pool.daemon.controller import PoolController
from pool.daemon.engine_executor import Leftovers
from pool.daemon.job_store import Job
from pool.daemon.journal import Trouble
from pool.daemon.worker_handle import WorkerHandle
from pool.engines.base import EngineFacts
from pool.model import JobState, Outcome, WorkerState

_SERVES = frozenset({WorkerState.IDLE, WorkerState.LEASED, WorkerState.CLEANING})
#: Jobs of one submitter that are shown, the newest; he may have a hundred thousand.
_SHOWN_JOBS = 1000
#: Poisoned codes that are shown, the latest.
_SHOWN_CODES = 100


def daemon_status(
    *, state: str, started_at: float, instance: str, run_dir: str, journal: st.JournalStatus, engine: EngineFacts
) -> st.DaemonStatus:
    return st.DaemonStatus(
        version=__version__,
        pid=os.getpid(),
        state=state,
        uptime_s=round(time.monotonic() - started_at, 1),
        instance=instance,
        run_dir=run_dir,
        rss_bytes=psutil.Process().memory_info().rss,
        journal=journal,
        engine=st.EngineStatus(
            name=engine.name, version=engine.version, runtime=engine.runtime, cgroups=engine.cgroups
        ),
    )


def whole_status(
    daemon: st.DaemonStatus, pools: Mapping[str, PoolController], alerts: Sequence[st.Alert] = ()
) -> st.Status:
    """`alerts`: of the daemon as a whole."""
    now = time.monotonic()
    engine = daemon.engine.name if daemon.engine is not None else None
    return st.Status(
        daemon=daemon,
        pools=tuple(_pool(pool, engine, now) for pool in pools.values()),
        fallback=st.FallbackStatus(rate=0.0),
        alerts=(*alerts, *(alert for pool in pools.values() for alert in _alerts(pool, now))),
    )


def engine_alerts(left: Leftovers) -> tuple[st.Alert, ...]:
    """While the engine does not tell which containers are there."""
    if left.since is None:
        return ()
    text = (
        f"containers without a worker may be left, until the engine has told what is there: {left.reason}; workers go "
        "on, and the daemon asks again"
    )
    return (st.Alert(id="engine", since=_date(left.since, time.monotonic()), text=text),)


def _pool(pool: PoolController, engine: str | None, now: float) -> st.PoolStatus:
    core, counted = pool.state, pool.metrics
    return st.PoolStatus(
        name=core.name,
        state=core.state.value,
        ready=any(worker.state in _SERVES for worker in core.workers.values()),
        engine=engine,
        image=pool.template.image,
        isolation=next((handle.start.isolation for handle in pool.handles.values() if handle.start.isolation), None),
        missing=_missing(pool),
        reuse_scope=core.policy.reuse_scope,
        size=st.PoolSize(min=core.policy.min_workers, max=core.policy.max_workers, target=core.target),
        workers=tuple(_worker(worker, pool.handles.get(worker.id), now) for worker in core.workers.values()),
        backlog=core.backlog_length,
        running=core.running,
        jobs={outcome.value: counted.outcomes[outcome] for outcome in Outcome},
        hit_rate=counted.hit_rate,
        recycles=dict(counted.recycles),
        retries=counted.retries,
        late_answers=counted.late_answers,
        residue=dict(counted.residue),
        overhead_ms=counted.overhead_ms,
        queue_ms=counted.queue_ms,
        breaker=_breaker(pool, now),
        poison=tuple(_poison(each, now) for each in core.poison(now)[:_SHOWN_CODES]),
        datasets={name: _dataset(pool, name) for name in pool.datasets.paths},
        edition=_edition(pool, now),
    )


def _missing(pool: PoolController) -> tuple[str, ...]:
    return tuple(sorted({part for handle in pool.handles.values() for part in handle.start.missing}))


def _worker(worker: WorkerRecord, handle: WorkerHandle | None, now: float) -> st.WorkerStatus:
    busy = worker.state in {WorkerState.LEASED, WorkerState.CLEANING}
    shown = st.WorkerStatus(
        id=worker.id,
        state=(WorkerState.LEASED if busy else worker.state).value,
        jobs=worker.jobs,
        edition=worker.edition,
        age_s=round(now - worker.started_at, 1),
        job=worker.job.id.partition("/")[2] if worker.job is not None else None,
        client=worker.client,
    )
    if handle is None:
        return shown
    container = handle.container.id if handle.container is not None else None
    return msgspec.structs.replace(
        shown,
        container=container,
        rss_bytes=metrics.worker_memory(handle.pid, container),
        lockdown=handle.start.lockdown,
        isolation=handle.start.isolation or None,
        missing=handle.start.missing,
        uid=handle.uid,
        boot_ms=round(handle.start.boot_ms, 1),
    )


def _breaker(pool: PoolController, now: float) -> st.BreakerStatus:
    breaker = pool.state.breaker
    return st.BreakerStatus(
        open=breaker.open,
        failures=breaker.failures,
        last_reason=breaker.last_reason or None,
        retry_in_s=_seconds_until(breaker.retry_at if breaker.failures else None, now),
    )


def _dataset(pool: PoolController, name: str) -> st.DatasetStatus:
    pin, problem = pool.datasets.of(pool.state.editions.current).get(name), pool.datasets.problems.get(name)
    return st.DatasetStatus(
        path=str(pool.datasets.paths[name]),
        digest=pin.digest if pin is not None else None,
        size_bytes=pin.size_bytes if pin is not None else None,
        problem=problem.text if problem is not None else None,
    )


def _edition(pool: PoolController, now: float) -> st.EditionStatus:
    view = pool.state.editions
    return st.EditionStatus(
        current=view.current,
        trial=view.trial,
        reason=view.reason or None,
        retry_in_s=_seconds_until(view.retry_at, now),
    )


def _poison(code: PoisonView, now: float) -> st.PoisonStatus:
    until, last = code.refused_until, code.kills[-1]
    return st.PoisonStatus(
        code=code.code,
        kills=len(code.kills),
        refused_until_s=round(until - now, 1) if until is not None else None,
        last=st.LastKill(age_s=round(now - last.at, 1), worker=last.worker, what=last.what),
    )


def _seconds_until(at: float | None, now: float) -> float | None:
    return round(max(0.0, at - now), 1) if at is not None else None


# ---- alerts ----


def journal_alerts(trouble: Trouble | None, *, set_aside: Path | None, started_at: float) -> list[st.Alert]:
    """`set_aside`: where a journal is now that could not be read at the start."""
    now, alerts = time.monotonic(), []
    if trouble is not None:
        alerts.append(st.Alert(id="journal:room", since=_date(trouble.since, now), text=trouble.error.message))
    if set_aside is not None:
        text = f"the journal could not be read; it is in {set_aside} now, and its jobs and results are not served"
        alerts.append(st.Alert(id="journal:unreadable", since=_date(started_at, now), text=text))
    return alerts


def _alerts(pool: PoolController, now: float) -> list[st.Alert]:
    name, breaker = pool.state.name, pool.state.breaker
    alerts = []
    if breaker.open:
        text = f"pool {name} cannot start workers: {breaker.last_reason}"
        alerts.append(st.Alert(id=f"breaker:{name}", since=_date(breaker.opened_at, now), text=text))
    if missing := _missing(pool):
        text = f"pool {name} runs without {'; '.join(missing)}: no worker serves two clients; see pool-admin doctor"
        since = min((worker.started_at for worker in pool.state.workers.values()), default=now)
        alerts.append(st.Alert(id=f"isolation:{name}", since=_date(since, now), text=text))
    return [*alerts, *_dataset_alerts(pool, now), *_poison_alerts(name, pool.state.poison(now), now)]


def _dataset_alerts(pool: PoolController, now: float) -> list[st.Alert]:
    name, view = pool.state.name, pool.state.editions
    effect = "workers keep the data they have" if view.current else "no worker is started without it"
    alerts = [
        st.Alert(
            id=f"dataset:{name}:{dataset}",
            since=_date(problem.since, now),
            text=f"pool {name}, data set {dataset}: {problem.text}; {effect}",
        )
        for dataset, problem in sorted(pool.datasets.problems.items())
    ]
    if view.reason:
        text = (
            f"pool {name} keeps the data it has, for the new ones cannot be used: {view.reason}; put a whole file in "
            "place by rename, or have it tried again with pool-admin resume"
        )
        alerts.append(st.Alert(id=f"datasets:{name}", since=_date(view.failed_at, now), text=text))
    return alerts


def _poison_alerts(name: str, codes: Sequence[PoisonView], now: float) -> list[st.Alert]:
    refused = [code for code in codes if code.refused_until is not None]
    if not refused:
        return []
    text = f"pool {name} refuses code that has cost it workers ({len(refused)}); see pool-admin poison"
    return [st.Alert(id=f"poison:{name}", since=_date(refused[-1].kills[-1].at, now), text=text)]


def _date(since: float | None, now: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=now - (since or now))).isoformat(timespec="seconds")


# ---- mine ----


def own(client: str, jobs: Iterable[Job], pools: Mapping[str, PoolController]) -> st.Mine:
    """The answer to `mine`: what a submitter may see without being an operator."""
    found = [job for job in jobs if job.client == client]
    places = {key: place for pool in pools.values() for key, place in pool.state.places(client).items()}
    return st.Mine(
        user=client,
        jobs=tuple(_own_job(job, pools[job.pool], places.get(job.current)) for job in found[: -_SHOWN_JOBS - 1 : -1]),
        total=len(found),
        pools=tuple(map(_own_pool, pools.values())),
    )


def _own_job(job: Job, pool: PoolController, place: int | None) -> st.OwnJob:
    record, result = pool.state.jobs.get(job.current), job.result
    return st.OwnJob(
        id=job.key.partition("/")[2],
        pool=job.pool,
        state=(record.state if record is not None else JobState.DONE).value,
        outcome=result.outcome.value if result is not None else None,
        age_s=round((time.monotonic_ns() - job.received_ns) / 1e9, 3),
        place=place,
    )


def _own_pool(pool: PoolController) -> st.OwnPool:
    serving = sum(worker.state in _SERVES for worker in pool.state.workers.values())
    return st.OwnPool(
        name=pool.state.name,
        state=pool.state.state.value,
        ready=serving > 0,
        waiting=pool.state.backlog_length,
        workers=serving,
        datasets=tuple(pool.datasets.paths),
    )


# ---- doctor ----


def probes(pools: Mapping[str, PoolController]) -> st.Probes:
    """What each worker's lockdown probe saw before the worker got its first job."""
    return st.Probes(
        workers=tuple(
            st.WorkerProbes(
                id=handle.id,
                pool=pool.state.name,
                isolation=handle.start.isolation or None,
                lockdown=handle.start.lockdown,
                missing=handle.start.missing,
                probes=handle.start.rows,
            )
            for pool in pools.values()
            for handle in _probed(pool)
        )
    )


def _probed(pool: PoolController) -> list[WorkerHandle]:
    """The workers, and the one whose lockdown did not hold: it is gone, but its table is needed most."""
    failure = pool.lockdown_failure
    others = [each for each in pool.handles.values() if each is not failure]
    return others if failure is None else [*others, failure]

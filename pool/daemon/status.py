"""Fills the answers to pool-admin's `status`, `doctor` and `mine` from the daemon's parts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import psutil

from pool import status as st
from pool._version import __version__
from pool.core.poison import PoisonView
from pool.core.records import WorkerRecord
from pool.daemon import metrics
from pool.daemon.controller import PoolController
from pool.daemon.job import Job
from pool.daemon.journal import Journal
from pool.daemon.run_directories import RunDirectories
from pool.daemon.worker_handle import WorkerHandle
from pool.engines.base import EngineFacts
from pool.model import JobState, Outcome, WorkerState

_SERVES = frozenset({WorkerState.IDLE, WorkerState.LEASED, WorkerState.CLEANING})
#: The most jobs of one submitter that are shown, the newest first; he may have a hundred thousand.
_SHOWN_JOBS = 1000
#: The most poisoned codes that are shown, the latest first.
_SHOWN_CODES = 100


def daemon_status(
    directories: RunDirectories,
    engines: Sequence[EngineFacts],
    journal: st.JournalStatus,
    *,
    state: str,
    started_at: float,
    metrics: str | None,
) -> st.DaemonStatus:
    return st.DaemonStatus(
        version=__version__,
        pid=os.getpid(),
        state=state,
        uptime_s=round(time.monotonic() - started_at, 1),
        instance=directories.instance,
        run_dir=str(directories.run_dir),
        rss_bytes=psutil.Process().memory_info().rss,
        metrics=metrics,
        journal=journal,
        engine=_engine(engines[0]),
        engines=tuple(_engine(each) for each in engines),
    )


def _engine(facts: EngineFacts) -> st.EngineStatus:
    return st.EngineStatus(name=facts.name, version=facts.version, runtime=facts.runtime, cgroups=facts.cgroups)


def journal_status(durability: str, journal: Journal) -> st.JournalStatus:
    return st.JournalStatus(
        durability=durability,
        size_bytes=journal.size_bytes if journal.durable else None,
        problem=journal.trouble.error.message if journal.trouble is not None else None,
    )


def whole_status(
    daemon: st.DaemonStatus, pools: Mapping[str, PoolController], alerts: Sequence[st.Alert] = ()
) -> st.Status:
    now = time.monotonic()
    return st.Status(daemon=daemon, pools=tuple(_pool(pool, now) for pool in pools.values()), alerts=tuple(alerts))


def _pool(pool: PoolController, now: float) -> st.PoolStatus:
    core, counted = pool.state, pool.metrics
    return st.PoolStatus(
        name=core.name,
        state=core.state.value,
        ready=any(worker.state in _SERVES for worker in core.workers.values()),
        engine=pool.engine,
        image=pool.template.image,
        isolation=next((handle.start.isolation for handle in pool.handles.values() if handle.start.isolation), None),
        missing=pool.missing,
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
        overhead_ms=counted.overhead.percentiles(),
        queue_ms=counted.queue.percentiles(),
        run_ms=counted.run.percentiles(),
        misses=counted.misses,
        failed_starts=counted.failed_starts.total,
        lockdown_failures=counted.lockdown_failures.total,
        breaker=_breaker(pool, now),
        poison=tuple(_poison(each, now) for each in core.poison(now)[:_SHOWN_CODES]),
        datasets={name: _dataset(pool, name) for name in pool.datasets.paths},
        edition=_edition(pool, now),
    )


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


# ---- mine ----


def own(client: str, jobs: Iterable[Job], pools: Mapping[str, PoolController]) -> st.Mine:
    """The answer to `mine`: the facts that a submitter may see without being an operator."""
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


# ---- advise ----


def arrivals(pools: Mapping[str, PoolController]) -> st.Arrivals:
    """The latest jobs of each pool, with the start time and the memory of its workers."""
    return st.Arrivals(pools=tuple(map(_arrivals, pools.values())))


def _arrivals(pool: PoolController) -> st.PoolArrivals:
    core, workers = pool.state, pool.state.workers.values()
    starts = [worker.ready_at - worker.started_at for worker in workers if worker.ready_at is not None]
    found = (
        metrics.worker_memory(each.pid, each.container.id if each.container is not None else None)
        for each in pool.handles.values()
    )
    memory = [each for each in found if each]
    return st.PoolArrivals(
        name=core.name,
        size=st.PoolSize(min=core.policy.min_workers, max=core.policy.max_workers, target=core.target),
        max_jobs=core.policy.max_jobs,
        start_s=sum(starts) / len(starts) if starts else None,
        worker_bytes=sum(memory) // len(memory) if memory else None,
        jobs=tuple(pool.metrics.arrivals),
    )


# ---- doctor ----


def probes(pools: Mapping[str, PoolController]) -> st.Probes:
    """The results of each worker's lockdown probe, which runs before its first job."""
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
    """The workers, and the latest one whose lockdown did not hold, although it is gone: its results matter most."""
    failure = pool.lockdown_failure
    others = [each for each in pool.handles.values() if each is not failure]
    return others if failure is None else [*others, failure]

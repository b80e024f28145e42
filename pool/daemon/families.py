"""The metrics of all pools for Prometheus, in base units and with labels from closed sets only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from pool import status as st
from pool.daemon.controller import PoolController
from pool.daemon.durations import Durations
from pool.model import Outcome, StartKind, WorkerState

if TYPE_CHECKING:
    from prometheus_client import Metric

Value = Callable[[PoolController], float]
Values = Callable[[PoolController], Mapping[str, float]]

#: Name, help text and value.
_GAUGES: tuple[tuple[str, str, Value], ...] = (
    ("pool_backlog_jobs", "Jobs that wait.", lambda pool: pool.state.backlog_length),
    ("pool_running_jobs", "Jobs that run.", lambda pool: pool.state.running),
    ("pool_breaker_open", "1 while workers cannot be started.", lambda pool: pool.state.breaker.open),
)
_COUNTERS: tuple[tuple[str, str, Value], ...] = (
    ("pool_job_retries", "Further attempts of jobs.", lambda pool: pool.metrics.retries),
    ("pool_late_answers", "Answers of attempts that had ended, ignored.", lambda pool: pool.metrics.late_answers),
    ("pool_job_misses", "Jobs that waited for a container to start.", lambda pool: pool.metrics.misses),
    ("pool_worker_starts", "Workers that became ready.", lambda pool: pool.metrics.starts.total),
    ("pool_worker_start_failures", "Starts that failed.", lambda pool: pool.metrics.failed_starts.total),
    ("pool_lockdown_failures", "Workers with a hole.", lambda pool: pool.metrics.lockdown_failures.total),
)
#: Name, help text, label, and a value for each value of the label.
_LABELLED: tuple[tuple[str, str, str, Values], ...] = (
    ("pool_jobs", "Jobs that ended.", "outcome", lambda pool: {each: pool.metrics.outcomes[each] for each in Outcome}),
    (
        "pool_job_leases",
        "Jobs that were sent to a worker.",
        "found",
        lambda pool: {each: pool.metrics.leases[each] for each in StartKind},
    ),
    ("pool_worker_stops", "Workers that were stopped.", "reason", lambda pool: pool.metrics.recycles),
    ("pool_residue", "What jobs left behind.", "kind", lambda pool: pool.metrics.residue),
)
_DURATIONS: tuple[tuple[str, str, Callable[[PoolController], Durations]], ...] = (
    ("pool_run_seconds", "Execution of jobs.", lambda pool: pool.metrics.run),
    ("pool_overhead_seconds", "Sending jobs and collecting results.", lambda pool: pool.metrics.overhead),
    ("pool_queue_seconds", "Wait for a worker.", lambda pool: pool.metrics.queue),
)


def families(pools: Mapping[str, PoolController], alerts: Iterable[st.Alert]) -> list[Metric]:
    """All metrics with their present values. Call it in the loop's thread."""
    from prometheus_client.core import CounterMetricFamily as Counts
    from prometheus_client.core import GaugeMetricFamily as Gauge

    kinds = Counter(alert.id.partition(":")[0] for alert in alerts)
    on = Gauge("pool_alerts", "Alerts that are on.", labels=["alert"])
    for kind, number in kinds.items():
        on.add_metric([kind], number)
    counts = [_plain(Counts(name, text, labels=["pool"]), pools, value) for name, text, value in _COUNTERS]
    gauges = [_plain(Gauge(name, text, labels=["pool"]), pools, value) for name, text, value in _GAUGES]
    labelled = [_labelled(Counts(name, text, labels=["pool", by]), pools, of) for name, text, by, of in _LABELLED]
    workers = _labelled(Gauge("pool_workers", "Workers now.", labels=["pool", "state"]), pools, _states)
    return [*counts, *labelled, *gauges, workers, *_histograms(pools), on]


def _plain(family: Any, pools: Mapping[str, PoolController], value: Value) -> Metric:
    for name, pool in pools.items():
        family.add_metric([name], float(value(pool)))
    return cast("Metric", family)


def _labelled(family: Any, pools: Mapping[str, PoolController], values: Values) -> Metric:
    for name, pool in pools.items():
        for label, value in values(pool).items():
            family.add_metric([name, str(label)], value)
    return cast("Metric", family)


def _histograms(pools: Mapping[str, PoolController]) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    for name, text, durations in _DURATIONS:
        family = HistogramMetricFamily(name, text, labels=["pool"])
        for pool, it in pools.items():
            found = durations(it)
            family.add_metric([pool], found.buckets(), found.total_ms / 1000)
        yield family


def _states(pool: PoolController) -> Mapping[str, float]:
    states = Counter(worker.state for worker in pool.state.workers.values())
    return {state: states[state] for state in WorkerState}

"""Alerts about the figures of a pool: each compares what happened within the window with a bound of the settings."""

from __future__ import annotations

from collections.abc import Iterator

from pool import status as st
from pool.config import AlertSettings
from pool.daemon.durations import Durations, percentile
from pool.daemon.metrics import Metrics

#: Fewer failed starts than this within the window raise no alert, whatever their share.
FAILED_STARTS = 3


def threshold_alerts(pool: str, metrics: Metrics, bounds: AlertSettings) -> list[st.Alert]:
    """Without a date: the caller dates an alert when it first appears."""
    found = (
        ("run_p95", _slow("execution", metrics.run, bounds.run_p95_s, bounds)),
        ("overhead_p95", _slow("overhead", metrics.overhead, bounds.overhead_p95_s, bounds)),
        ("queue_p95", _slow("wait for a worker", metrics.queue, bounds.queue_p95_s, bounds)),
        ("misses", _misses(metrics, bounds)),
        ("starts", _failed_starts(metrics, bounds)),
        ("lockdown", _lockdown(metrics, bounds)),
    )
    return [
        st.Alert(id=f"{kind}:{pool}", text=f"pool {pool}: {text}, within the last {bounds.window_s:g} s")
        for kind, texts in found
        for text in texts
    ]


def _slow(what: str, durations: Durations, bound_s: float | None, bounds: AlertSettings) -> Iterator[str]:
    samples = durations.within(bounds.window_s) if bound_s is not None else []
    if bound_s is not None and len(samples) >= bounds.min_jobs:
        p95_s = percentile(samples, 95) / 1000
        if p95_s > bound_s:
            yield f"the p95 of the {what} is {p95_s:.3g} s, over {bound_s:g} s, of {len(samples)} jobs"


def _misses(metrics: Metrics, bounds: AlertSettings) -> Iterator[str]:
    misses, leases = metrics.misses_within(bounds.window_s)
    if bounds.miss_rate is not None and leases >= bounds.min_jobs and misses / leases > bounds.miss_rate:
        yield f"{misses} of {leases} jobs had to wait for a container to start, over {bounds.miss_rate:.3g} of them"


def _failed_starts(metrics: Metrics, bounds: AlertSettings) -> Iterator[str]:
    failed, done = metrics.failed_starts.within(bounds.window_s), metrics.starts.within(bounds.window_s)
    if bounds.failed_start_rate is None or failed < FAILED_STARTS:
        return
    if failed / (failed + done) > bounds.failed_start_rate:
        yield f"{failed} of {failed + done} starts of workers failed, the last one so: {metrics.failed_starts.last}"


def _lockdown(metrics: Metrics, bounds: AlertSettings) -> Iterator[str]:
    if failures := metrics.lockdown_failures.within(bounds.window_s):
        last = metrics.lockdown_failures.last
        yield f"{failures} workers broke out of their lockdown and got no job, see pool-admin doctor: {last}"

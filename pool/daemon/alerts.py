"""Alerts: the present problems of the daemon and its pools. Each has an id, a date, and a sentence for an operator."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pool import status as st
from pool.core.poison import PoisonView
from pool.daemon.controller import PoolController
from pool.daemon.engine_executor import Leftovers
from pool.daemon.journal import Trouble


def engine_alerts(left: Leftovers) -> tuple[st.Alert, ...]:
    """Alerts while the engine does not list its containers."""
    if left.since is None:
        return ()
    text = (
        f"containers without a worker may be left, because the engine does not list its containers: {left.reason}; "
        "workers go on, and the daemon asks again"
    )
    return (st.Alert(id="engine", since=_date(left.since, time.monotonic()), text=text),)


def journal_alerts(trouble: Trouble | None, *, set_aside: Path | None, started_at: float) -> list[st.Alert]:
    """`set_aside`: the path of a journal that could not be read at the start."""
    now, alerts = time.monotonic(), []
    if trouble is not None:
        alerts.append(st.Alert(id="journal:room", since=_date(trouble.since, now), text=trouble.error.message))
    if set_aside is not None:
        text = f"the journal could not be read; it is in {set_aside} now, and its jobs and results are not served"
        alerts.append(st.Alert(id="journal:unreadable", since=_date(started_at, now), text=text))
    return alerts


def pool_alerts(pool: PoolController, now: float) -> list[st.Alert]:
    """The alerts of a pool, except those about its figures."""
    name, breaker = pool.state.name, pool.state.breaker
    alerts = []
    if breaker.open:
        text = f"pool {name} cannot start workers: {breaker.last_reason}"
        alerts.append(st.Alert(id=f"breaker:{name}", since=_date(breaker.opened_at, now), text=text))
    if missing := pool.missing:
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

"""Monitoring: alerts and metrics for the operators of the daemon.

pools, engine, journal ──▶ alerts ──▶ pool-admin status, the log, alerts.command
pools                  ──▶ families ──▶ Prometheus
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

import structlog
from msgspec.structs import replace

from pool import status as st
from pool.config import Settings
from pool.daemon.alert_hook import AlertHook
from pool.daemon.alerts import pool_alerts
from pool.daemon.controller import PoolController
from pool.daemon.engine_executor import CallSoon
from pool.daemon.exporter import Exporter
from pool.daemon.families import families
from pool.daemon.thresholds import threshold_alerts

log = structlog.get_logger(__name__)

#: Seconds between two looks for alerts.
_LOOK_S = 5.0


class AlertBoard:
    """The present alerts. `tell` is called once when one begins and once when it ends."""

    def __init__(
        self, look: Callable[[], Iterable[st.Alert]], tell: Callable[[Literal["start", "end"], st.Alert], None]
    ) -> None:
        self._look = look
        self._tell = tell
        self._on: dict[str, st.Alert] = {}

    def refresh(self) -> tuple[st.Alert, ...]:
        before, found = self._on, {alert.id: alert for alert in self._look()}
        self._on = {key: _dated(alert, before.get(key)) for key, alert in found.items()}
        for key in found.keys() - before.keys():
            alert = self._on[key]
            log.warning("an alert has begun", action="alert", alert=key, text=alert.text)
            self._tell("start", alert)
        for key in before.keys() - found.keys():
            log.info("an alert has ended", action="alert_end", alert=key, text=before[key].text)
            self._tell("end", before[key])
        return tuple(self._on.values())


def _dated(alert: st.Alert, before: st.Alert | None) -> st.Alert:
    if alert.since:
        return alert
    return replace(alert, since=before.since if before else datetime.now(UTC).isoformat(timespec="seconds"))


class Watch:
    """All methods are called from the loop's thread."""

    def __init__(
        self,
        settings: Settings,
        pools: Mapping[str, PoolController],
        *,
        others: Callable[[], Iterable[st.Alert]],
        call_soon: CallSoon,
    ) -> None:
        """`others`: the alerts of the daemon as a whole. Raises ConfigError if there cannot be an endpoint."""
        self._bounds = settings.alerts
        self._pools = pools
        self._others = others
        self._exporter = Exporter(settings.metrics, lambda: families(pools, self.alerts()), call_soon)
        self._hook = AlertHook(settings.alerts.command, timeout_s=settings.alerts.command_timeout_s)
        self._board = AlertBoard(self._found, self._hook.tell)
        self.look_at = 0.0  #: monotonic seconds

    @property
    def endpoint(self) -> str | None:
        """The host:port at which Prometheus reads."""
        return self._exporter.endpoint

    def alerts(self) -> tuple[st.Alert, ...]:
        return self._board.refresh()

    def look(self) -> None:
        """Report alerts that have begun or ended. Call it at `look_at`."""
        self.look_at = time.monotonic() + _LOOK_S
        self._board.refresh()

    def close(self) -> None:
        self._exporter.close()
        self._hook.close()

    def _found(self) -> Iterable[st.Alert]:
        now = time.monotonic()
        yield from self._others()
        for name, pool in self._pools.items():
            yield from pool_alerts(pool, now)
            yield from threshold_alerts(name, pool.metrics, self._bounds)

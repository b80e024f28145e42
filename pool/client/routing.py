"""Where a program of SandboxExecutor runs: the decision, as a pure function, and the count of the decisions.

how the pool's part ended                                      may the local engine run it?
busy, draining, no worker can be started, queue timeout        yes
no daemon to connect to                                        yes
a daemon that may have had the job is silent, or unknown id    if the caller says that it is idempotent
lost                                                           if the caller says that it is idempotent
any other outcome; refused; cancelled; closed; other versions  no
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pool.errors import BusyError, DaemonUnreachableError, PoolError, UnknownJobError
from pool.model import JobResult, Outcome

log = logging.getLogger("pool.sandbox")

Fallback = Literal["refuse", "local"]
FALLBACKS: tuple[Fallback, ...] = ("refuse", "local")
Route = Literal["pool", "fallback", "none"]
#: The rate is that of the last so many programs, and says nothing while there were few.
WINDOW, LEAST = 100, 20


def falls_back(end: PoolError | JobResult, *, sent: bool, idempotent: bool) -> bool:
    """Whether another engine may run the program. `sent`: it may have reached a daemon that has not refused it."""
    if isinstance(end, JobResult):
        if end.outcome is Outcome.TIMEOUT:
            return end.worker is None and end.attempt == 0  # it waited, and no worker had it
        return end.outcome is Outcome.LOST and idempotent
    if isinstance(end, BusyError | DaemonUnreachableError):
        return idempotent or not sent
    return isinstance(end, UnknownJobError) and idempotent


def is_down(end: PoolError | JobResult) -> bool:
    """Whether the pool cannot serve at all, so that the next program need not wait for it; not if it is only busy."""
    return isinstance(end, DaemonUnreachableError) or (isinstance(end, PoolError) and end.code == "pool_unavailable")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxStats:
    """What became of the programs of one SandboxExecutor."""

    pool: int = 0  #: ended in the pool, well or not
    fallback: int = 0  #: ended in the local engine, well or not
    none: int = 0  #: did not run
    fallback_rate: float = 0.0  #: of the last 100 programs that ran
    causes: Mapping[str, int] = field(default_factory=dict)  #: of fallbacks, by the code of the error or the outcome

    @property
    def total(self) -> int:
        return self.pool + self.fallback + self.none


class RouteCounter:
    """Counts, and logs a warning when the fallback rate has come over the threshold. Thread-safe."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._lock = threading.Lock()
        self._routes: Counter[Route] = Counter()
        self._causes: Counter[str] = Counter()
        self._window: deque[bool] = deque(maxlen=WINDOW)
        self._over = False

    def add(self, route: Route, cause: str = "") -> None:
        """`cause`: of a fallback."""
        with self._lock:
            self._routes[route] += 1
            if route == "none":
                return
            self._window.append(route == "fallback")
            if route == "fallback":
                self._causes[cause] += 1
            over = len(self._window) >= LEAST and self._rate() > self._threshold
            begins, self._over = over and not self._over, over
            rate, count = self._rate(), len(self._window)
        if begins:
            log.warning(
                "%.0f %% of the last %d programs ran in the local engine and not in the pool (threshold %.0f %%); "
                "the last cause: %s; see pool-admin status",
                100 * rate,
                count,
                100 * self._threshold,
                cause or "none",
            )

    def stats(self) -> SandboxStats:
        with self._lock:
            routes = {route: self._routes[route] for route in ("pool", "fallback", "none")}
            return SandboxStats(fallback_rate=self._rate(), causes=dict(self._causes), **routes)

    def _rate(self) -> float:
        return sum(self._window) / len(self._window) if self._window else 0.0

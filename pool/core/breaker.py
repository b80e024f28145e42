"""The breaker: failed starts back off instead of storming the engine.

    closed ──failure──▶ closed, one try at a time after 1 s, 2 s ──third failure──▶ open ──retry_at──▶ half-open
       ▲                                                             ▲                                  │ one try
       └──────────────────────────── success ────────────────────────┴───────────── failure ────────────┘

A permanent failure (a missing image, a runner of another version) opens it at once, for the longest wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from pool.core.policy import BACKOFF_MAX_S, backoff_s

#: Failed starts in a row that open it. One or two happen to a healthy engine under load.
OPEN_AFTER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerView:
    """The breaker as the snapshot shows it."""

    open: bool
    failures: int
    last_reason: str
    retry_at: float | None  #: monotonic seconds; None while closed


@dataclass(slots=True)
class Breaker:
    failures: int = 0  #: in a row
    permanent: bool = False
    last_reason: str = ""
    retry_at: float | None = None

    @property
    def open(self) -> bool:
        """Also while half-open: only a success closes it."""
        return self.permanent or self.failures >= OPEN_AFTER

    def failed(self, reason: str, *, permanent: bool, now: float) -> None:
        self.failures += 1
        self.permanent = self.permanent or permanent
        self.last_reason = reason
        self.retry_at = now + (BACKOFF_MAX_S if self.permanent else backoff_s(self.failures))

    def close(self) -> None:
        self.failures, self.permanent, self.last_reason, self.retry_at = 0, False, "", None

    def blocked(self, now: float) -> bool:
        """No start may be tried before `retry_at`; and then, until one succeeds, one at a time."""
        return self.retry_at is not None and now < self.retry_at

    def view(self) -> BreakerView:
        return BreakerView(open=self.open, failures=self.failures, last_reason=self.last_reason, retry_at=self.retry_at)

"""The breaker: after failed starts it makes pauses between tries, so that the engine is not overloaded.

    closed ──failure──▶ closed, one try at a time after 1 s, 2 s ──third failure──▶ open ──retry_at──▶ half-open
       ▲                                                             ▲                                  │ one try
       └──────────────────────────── success ────────────────────────┴───────────── failure ────────────┘

A permanent failure (a missing image, a runner of another version) opens it at once, for the longest wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from pool.core.policy import BACKOFF_MAX_S, backoff_s, jittered

#: Failed starts in a row that open it. A healthy engine under load may have one or two.
OPEN_AFTER = 3


@dataclass(slots=True)
class Breaker:
    rng: Random = field(repr=False)  #: spreads the tries
    open: bool = False  #: also while half-open: only a success closes it
    failures: int = 0  #: in a row
    permanent: bool = False
    last_reason: str = ""
    retry_at: float | None = None  #: monotonic seconds; None without a failure
    opened_at: float | None = None  #: monotonic seconds; None while it is closed

    def failed(self, reason: str, *, permanent: bool, now: float) -> None:
        self.failures += 1
        self.permanent = self.permanent or permanent
        self.open = self.permanent or self.failures >= OPEN_AFTER
        if self.open and self.opened_at is None:
            self.opened_at = now
        self.last_reason = reason
        wait_s = BACKOFF_MAX_S if self.permanent else backoff_s(self.failures)
        self.retry_at = now + jittered(wait_s, self.rng)

    def close(self) -> None:
        self.open, self.failures, self.permanent, self.last_reason = False, 0, False, ""
        self.retry_at = self.opened_at = None

    def blocked(self, now: float) -> bool:
        """Whether no start may be tried now. After `retry_at`, and until one succeeds, starts go one at a time."""
        return self.retry_at is not None and now < self.retry_at

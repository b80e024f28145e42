"""Bytes that peers make the daemon hold, by user and in all."""

from __future__ import annotations

from collections import Counter


class Budget:
    """Kept by whoever holds the bytes: every change is told."""

    def __init__(self, *, each: int, total: int) -> None:
        self._each = each
        self._total = total
        self._held: Counter[int] = Counter()

    def change(self, user: int, by: int) -> None:
        if not by:
            return
        self._held[user] += by
        if self._held[user] <= 0:
            del self._held[user]

    def of(self, user: int) -> int:
        return self._held[user]

    def excess(self) -> int | None:
        """The user who holds too much: over the cap for each, or the most of all when all together are over theirs."""
        if not self._held:
            return None
        user, held = max(self._held.items(), key=lambda item: item[1])
        return user if held > self._each or self._held.total() > self._total else None

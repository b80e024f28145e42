"""How many workers may start at the same time, from how long starts took: `start_concurrency: auto`.

Starts share the cores and the locks of the engine, so they get slower together. With n of them under way and a mean
duration of d(n), n / d(n) workers become ready in a second (Little's law). The limit is doubled where that gives
`_RAISE` times as many ready workers, and halved where the half has nearly as many.

A power of two is measured when enough starts have had about so many under way, themselves included, on average over
their time. Old figures are measured again at the next occasion, because an engine gets slower and faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log2

#: Twice as many starts must give so many times as many ready workers a second before they are allowed, and so many to
#: stay allowed. Between the two values nothing changes, so that noise changes nothing.
_RAISE, _KEEP = 1.25, 1.1
#: Starts that a mean duration needs.
_ENOUGH = 4
#: The weight of the latest start in its mean.
_WEIGHT = 0.2
#: A mean is of no use when its latest start is older.
_FRESH_S = 1800.0


@dataclass(slots=True)
class _Measured:
    """The starts that had about the same number under way."""

    mean_s: float = 0.0
    starts: int = 0
    latest: float = 0.0

    def add(self, start_s: float, now: float) -> None:
        self.starts += 1
        self.mean_s += (start_s - self.mean_s) * max(_WEIGHT, 1 / self.starts)
        self.latest = now

    def known(self, now: float) -> bool:
        return self.starts >= _ENOUGH and now - self.latest < _FRESH_S


class StartLimit:
    """Times are monotonic seconds. `limit` is how many workers may start at the same time."""

    def __init__(self, most: int, *, first: int | None = None) -> None:
        """`first`: where measuring begins; None: nothing is measured, the limit is always `most`."""
        self.limit = most if first is None else first
        powers = {2**power for power in range(most.bit_length())}
        self._measured = {} if first is None else {count: _Measured() for count in sorted(powers | {most, first})}
        self._began: dict[str, tuple[float, float]] = {}  #: when the start began, and `_worker_s` then
        self._worker_s, self._at = 0.0, 0.0  #: the sum of the durations of all starts until this time

    def began(self, worker_id: str, now: float) -> None:
        """This worker starts now."""
        self._advance(now)
        self._began[worker_id] = now, self._worker_s

    def failed(self, worker_id: str, now: float) -> None:
        """This worker is stopped. One that was ready already is ignored."""
        self._advance(now)
        self._began.pop(worker_id, None)

    def ready(self, worker_id: str, now: float) -> bool:
        """This start has succeeded. Returns whether that has changed the limit."""
        self._advance(now)
        at, worker_s = self._began.pop(worker_id, (now, 0.0))
        if not self._measured or now <= at:
            return False
        under_way = log2((self._worker_s - worker_s) / (now - at))
        nearest = min(self._measured, key=lambda count: abs(log2(count) - under_way))
        self._measured[nearest].add(now - at, now)
        before, self.limit = self.limit, self._best(now)
        return self.limit != before

    def _advance(self, now: float) -> None:
        self._worker_s += len(self._began) * (now - self._at)
        self._at = now

    def _best(self, now: float) -> int:
        """The neighbour of the limit that is better or that is not measured yet, or else the limit itself."""
        counts, limit = list(self._measured), self.limit
        if not self._measured[limit].known(now):
            return limit
        place = counts.index(limit)
        more, fewer = counts[place + 1 :][:1], counts[:place][-1:]
        if any(self._gain(count, over=limit, now=now) >= _RAISE for count in more):
            return more[0]
        if any(self._gain(limit, over=count, now=now) < _KEEP for count in fewer):
            return fewer[0]
        return limit

    def _gain(self, more: int, *, over: int, now: float) -> float:
        """How many times as many ready workers twice as many starts give. A number that is not measured yet is tried:
        the gain is infinite if that is the larger one, and 0 if it is the smaller one.
        """
        if not self._measured[more].known(now):
            return inf
        if not self._measured[over].known(now):
            return 0.0
        gain = (more / self._measured[more].mean_s) / (over / self._measured[over].mean_s)
        return float(gain ** (1 / log2(more / over)))

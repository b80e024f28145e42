"""Durations and events of one pool: totals since the daemon's start, and the latest ones."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, repeat

from pool.status import Percentiles

Clock = Callable[[], float]  #: monotonic seconds

#: The latest ones that are remembered: enough for a p99, few enough to follow the load.
WINDOW = 2048
#: Upper bounds of the buckets that Prometheus reads, in seconds.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BOUNDS_MS = tuple(1000 * each for each in BOUNDS_S)


def percentile(samples: Iterable[float], share: int) -> float:
    """By nearest rank, of at least one sample. `share`: per cent."""
    ordered = sorted(samples)
    return ordered[round((len(ordered) - 1) * share / 100)]


class Durations:
    """Of one phase of the jobs, in milliseconds."""

    def __init__(self, clock: Clock) -> None:
        self.total_ms = 0.0
        self.latest: deque[tuple[float, float]] = deque(maxlen=WINDOW)  #: when each came, and how long it took
        self._counts: Counter[int] = Counter()  # by bucket
        self._clock = clock

    def add(self, times: Sequence[float], durations_ms: Sequence[float]) -> None:
        """`times`: when each came."""
        self.total_ms += sum(durations_ms)
        self._counts.update(map(bisect_left, repeat(_BOUNDS_MS), durations_ms))
        self.latest.extend(zip(times, durations_ms, strict=True))

    def within(self, window_s: float) -> list[float]:
        """Those that came within the last seconds, the latest `WINDOW` at most."""
        since = self._clock() - window_s
        return [ms for at, ms in self.latest if at >= since]

    def percentiles(self) -> Percentiles | None:
        """Of the latest `WINDOW`; None without one."""
        if not self.latest:
            return None
        samples = [ms for _, ms in self.latest]
        p50, p95, p99 = (round(percentile(samples, share), 3) for share in (50, 95, 99))
        return Percentiles(p50=p50, p95=p95, p99=p99)

    def buckets(self) -> list[tuple[str, int]]:
        """Upper bound in seconds, and how many were not above it; the last bound is `+Inf`."""
        names = [*map(str, BOUNDS_S), "+Inf"]
        counts = [self._counts[bucket] for bucket in range(len(names))]
        return list(zip(names, accumulate(counts), strict=True))


class Tally:
    """Events of one kind."""

    def __init__(self, clock: Clock) -> None:
        self.total = 0
        self.last = ""  #: the text of the latest one
        self._clock = clock
        self._latest: deque[float] = deque(maxlen=WINDOW)

    def add(self, words: str = "") -> None:
        self.total += 1
        self.last = words
        self._latest.append(self._clock())

    def within(self, window_s: float) -> int:
        """How many came within the last seconds, `WINDOW` at most."""
        since = self._clock() - window_s
        return sum(at >= since for at in self._latest)

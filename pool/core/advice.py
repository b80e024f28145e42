"""How large a pool should be: the jobs that came, replayed on pools of other sizes. Pure functions.

base_stock   spare workers for a rate of arrivals and the time that a start takes
replay       hit rate and wait of one size
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp
from typing import NamedTuple

#: Beyond this mean the first term of the distribution is 0 in a float, and no pool has so many workers (256).
_MOST = 700.0


class Arrival(NamedTuple):
    """A job that a worker has run."""

    at_s: float  #: when it came, on any clock
    busy_s: float  #: from its lease until its worker had answered


@dataclass(frozen=True, slots=True)
class Forecast:
    """The hits and waits of the jobs on a pool of another size. A hit is a job that found a free worker."""

    size: int
    hit_rate: float  #: 0 to 1
    mean_wait_s: float  #: of all jobs, hits included
    p95_wait_s: float


def base_stock(rate: float, start_s: float, *, miss: float) -> int:
    """The smallest number of spare workers with which at most the share `miss` of jobs finds none.

    So many arrivals or more within one start use the spare up. Arrivals are taken as independent (Poisson).

    `rate`: jobs a second. `start_s`: from the start of a container to a worker that can be used. `miss`: above 0.
    """
    mean = min(rate * start_s, _MOST)
    spare, term = 0, exp(-mean)
    tail = 1.0  # the probability of `spare` arrivals or more
    while tail > miss and spare < 2 * _MOST:
        tail -= term
        spare += 1
        term *= mean / spare
    return spare


def rate_of(arrivals: Sequence[Arrival]) -> float:
    """Jobs a second, from the first to the last; 0.0 for fewer than two, or all in one moment."""
    times = [each.at_s for each in arrivals]
    passed_s = max(times) - min(times) if len(times) > 1 else 0.0
    return (len(times) - 1) / passed_s if passed_s > 0 else 0.0


def replay(arrivals: Iterable[Arrival], size: int, *, start_s: float = 0.0, max_jobs: int = 1_000_000) -> Forecast:
    """These jobs, in the order of arrival, on `size` workers that are all there at the beginning.

    A worker is replaced after `max_jobs`, and its place is empty for `start_s`.
    """
    free = [(float("-inf"), 0)] * size  # when each is free, and its jobs so far
    waits = []
    for job in sorted(arrivals):
        free_at, jobs = heapq.heappop(free)
        begun = max(job.at_s, free_at)
        waits.append(begun - job.at_s)
        worn = jobs + 1 >= max_jobs
        ended = begun + job.busy_s
        heapq.heappush(free, (ended + start_s, 0) if worn else (ended, jobs + 1))
    if not waits:
        return Forecast(size, 1.0, 0.0, 0.0)
    ordered = sorted(waits)
    hits = sum(wait == 0 for wait in waits) / len(waits)
    return Forecast(size, hits, sum(waits) / len(waits), ordered[round((len(ordered) - 1) * 0.95)])


def enough(forecasts: Iterable[Forecast], *, miss: float) -> int | None:
    """The smallest size of these with at most this share of misses."""
    return min((each.size for each in forecasts if 1 - each.hit_rate <= miss), default=None)

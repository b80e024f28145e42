"""How many spare workers the jobs of a pool need, from what was measured: `size: {spare: measured}`.

A job that comes takes a worker. The worker is missing until it is free again or, after its last job, until the next
one has started. So of the jobs that come while one worker starts, on average

    rate * min(start, busy + start / max_jobs)

workers are missing at its end (Palm's theorem: arrivals in one start that still hold their worker). With `max_jobs: 1`
that is rate * start. The spare is the base stock for this mean: the smallest number that at most the share `miss` of
jobs finds used up, where arrivals are independent.
"""

from __future__ import annotations

from math import exp

from pool.core.advice import base_stock

#: Time constants of the two rates of arrival, of which the larger one counts. The short one sees a burst at once; the
#: long one keeps the spare through the pauses of a loop.
_CONSTANTS_S = (5.0, 60.0)
#: The weight of the latest job in the mean.
_JOB_WEIGHT = 0.05
#: Below this rate, one job in 100 s, no spare is kept, so that a pool may become empty.
_LEAST_RATE = 0.01
#: The spare is computed this often, at most; a start takes longer.
_RENEW_S = 0.25
#: How often a pool without events looks whether its rate has fallen.
REVIEW_S = 5.0


class Demand:
    """Times are monotonic seconds. Every method takes constant time, but for `spare` four times a second."""

    def __init__(self, *, max_jobs: int, miss: float) -> None:
        """`miss`: share of jobs that may find no idle worker."""
        self._max_jobs, self._miss = max_jobs, miss
        self._rates = [0.0] * len(_CONSTANTS_S)
        self._rates_at = 0.0
        self._busy_s = 0.0
        self._spare, self._renew_at = 0, 0.0

    def arrived(self, now: float) -> None:
        """A job was accepted."""
        self._rates = [
            rate * self._faded(now, constant) + 1 / constant
            for rate, constant in zip(self._rates, _CONSTANTS_S, strict=True)
        ]
        self._rates_at = now

    def freed(self, busy_s: float) -> None:
        """A worker is free again, after so long."""
        self._busy_s += (busy_s - self._busy_s) * (_JOB_WEIGHT if self._busy_s else 1.0)

    def rate(self, now: float) -> float:
        """Jobs a second."""
        rates = zip(self._rates, _CONSTANTS_S, strict=True)
        return max(rate * self._faded(now, constant) for rate, constant in rates)

    def spare(self, now: float, *, start_s: float) -> int:
        """Idle workers to hold beyond those that run a job. `start_s`: what a start takes."""
        if now >= self._renew_at:
            self._renew_at = now + _RENEW_S
            missing_s = min(start_s, self._busy_s + start_s / self._max_jobs)
            rate = self.rate(now)
            self._spare = base_stock(rate, missing_s, miss=self._miss) if rate >= _LEAST_RATE else 0
        return self._spare

    def _faded(self, now: float, constant: float) -> float:
        return exp((self._rates_at - now) / constant) if now > self._rates_at else 1.0

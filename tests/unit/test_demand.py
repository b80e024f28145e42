"""A measured spare: `size: {spare: measured}` keeps as many idle workers as the arriving jobs need."""

import heapq
from random import Random

import pytest

from pool.core.demand import Demand
from pool.core.events import Dispatch, StartWorker
from pool.core.policy import IDLE_HOLD_S
from pool.model import StartKind, WorkerState
from tests.support.core import Core, every

START_S = 2.0


class Simulation:
    """Jobs at random times on a pool whose starts take START_S. Counts the jobs that found no idle worker."""

    def __init__(self, **policy: object) -> None:
        self.core = Core(spare=None, max_workers=64, **{"reuse_scope": "any", "start_concurrency": 64, **policy})
        self.jobs = self.misses = 0
        self._due: list[tuple[float, str, str]] = []
        self._seen = 0
        self._note(self.core.tick())

    def run(self, seconds: float, *, rate: float, busy_s: float, rng: Random) -> float:
        """Submit jobs at this rate, each of which has its worker for `busy_s`. Returns the share of misses."""
        jobs, misses, until = self.jobs, self.misses, self.core.now + seconds
        at = self.core.now + rng.expovariate(rate)
        while at < until:
            self._pass(at)
            self.jobs += 1
            found = every(self._note(self.core.submit(f"j{self.jobs}")), Dispatch)
            self.misses += not (found and found[0].start is StartKind.PARKED)
            self._busy_s = busy_s
            at += rng.expovariate(rate)
        self._pass(until)
        return (self.misses - misses) / max(1, self.jobs - jobs)

    def pause(self, seconds: float) -> None:
        self._pass(self.core.now + seconds)
        self._note(self.core.remove_stopped())

    def _pass(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            at, what, name = heapq.heappop(self._due)
            self._note(self.core.pass_time(max(0.0, at - self.core.now)))
            if what == "start" and name in self.core.ids(WorkerState.STARTING):
                self._note(self.core.ready(name))
            elif what == "end":
                self._note(self.core.end(name))
                self._note(self.core.remove_stopped())
        self._note(self.core.pass_time(until - self.core.now))

    def _note(self, commands):
        for each in every(commands, StartWorker):
            heapq.heappush(self._due, (self.core.now + START_S, "start", each.worker_id))
        for each in every(commands, Dispatch):
            heapq.heappush(self._due, (self.core.now + self._busy_s, "end", each.job_id))
        return commands

    _busy_s = 0.05


@pytest.mark.parametrize(("rate", "busy_s", "max_jobs"), [(2.0, 0.05, 1), (5.0, 1.0, 50), (0.5, 3.0, 100)])
def test_with_a_measured_spare_hardly_a_job_finds_no_idle_worker(rate, busy_s, max_jobs):
    shares = {}
    for miss_rate in (None, 0.01):
        simulation = Simulation(min_workers=1, max_jobs=max_jobs, miss_rate=miss_rate)
        simulation.run(60, rate=rate, busy_s=busy_s, rng=Random(1))
        shares[miss_rate] = simulation.run(600, rate=rate, busy_s=busy_s, rng=Random(2))
    assert shares[0.01] <= 0.02
    assert shares[None] > 3 * shares[0.01]


def test_the_pool_shrinks_again_when_the_jobs_stop():
    simulation = Simulation(min_workers=1, max_jobs=1, miss_rate=0.01)
    simulation.run(60, rate=4.0, busy_s=0.05, rng=Random(1))
    assert len(simulation.core.ids()) > 10
    simulation.pause(10 * IDLE_HOLD_S)
    assert len(simulation.core.ids()) == 1


def test_a_pool_that_may_be_empty_becomes_empty():
    simulation = Simulation(min_workers=0, max_jobs=100, miss_rate=0.01)
    simulation.run(30, rate=1.0, busy_s=0.05, rng=Random(1))
    simulation.pause(10 * IDLE_HOLD_S)
    assert simulation.core.ids() == []


def test_the_rate_follows_a_burst_at_once_and_a_pause_slowly():
    demand = Demand(max_jobs=1, miss=0.01)
    for number in range(50):
        demand.arrived(100 + number / 50)
    assert demand.rate(101) > 5
    burst = demand.spare(101, start_s=1.0)
    assert burst > 10
    assert 0 < demand.spare(111, start_s=1.0) < burst
    assert demand.spare(600, start_s=1.0) == 0


@pytest.mark.parametrize(("busy_s", "max_jobs", "missing_s"), [(0.1, 1, 2.0), (0.1, 20, 0.2), (30.0, 1000, 2.0)])
def test_a_worker_is_missing_until_it_or_the_next_one_can_be_used(busy_s, max_jobs, missing_s):
    """The spare is the same as for one job a worker whose start takes as long as the worker is missing."""
    measured, plain = Demand(max_jobs=max_jobs, miss=0.01), Demand(max_jobs=1, miss=0.01)
    for _ in range(50):
        measured.freed(busy_s)
    for number in range(3000):
        for each in (measured, plain):
            each.arrived(100 + number / 10)
    assert measured.spare(400, start_s=2.0) == plain.spare(400, start_s=missing_s)

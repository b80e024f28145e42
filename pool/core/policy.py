"""The formulas of a pool, as pure functions of plain values: no State, no clock, no commands.

target_size       how many workers there should be             busy + waiting + spare, within min and max
workers_to_start  how many to start now                       room, starts under way and the breaker allow it
jobs_limit, age_limit_s   when a worker is replaced           spread out, so that a pool never replaces all at once
served_in_s       how long a worker can serve                   so that its replacement is ready by then
may_retire        whether a worn worker may go now            its replacement first, where max_workers allows it
claimable_at      when a client's worker may be taken         so that other clients get their turn
backoff_s, jittered   how long to wait after failed starts, shortened by chance
answer_deadline   when a busy worker must have answered
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from random import Random
from typing import Literal, Protocol

from pool.errors import ConfigError

ReuseScope = Literal["client", "any"]

#: An idle worker above the target is kept this long: loops pause for seconds between generations, and a container start
#: costs more than a minute of an idle worker.
IDLE_HOLD_S = 60.0
#: Heartbeats that an idle worker may miss before it is asked for one. A busy host loses one, but not three.
MISSED_HEARTBEATS = 3
#: Intervals that a suspect has to answer the probe. They count from the probe on, so that a daemon that was itself
#: suspended kills no worker when it wakes up.
SUSPECT_HEARTBEATS = 2
#: Longest wait between two tries to start a worker: a repaired engine is noticed within a minute.
BACKOFF_MAX_S = 60.0
#: The largest share by which a wait is shortened at random, so that the pools of a host do not try at the same time.
JITTER = 0.25
#: The start of a replacement competes with the worker's last job for the cores, so it waits this long. A shorter job is
#: not disturbed at all.
REPLACE_AFTER_S = 0.05
#: The time of a worker to clean up after a job and to park the next child. It takes milliseconds; a worker that needs
#: so long has processes or files that it cannot remove.
CLEANING_S = 15.0
#: The time of a runner of an earlier daemon to connect and to prove itself. It tries twice a second. The time is long,
#: because a runner may be late on a busy machine, and the job of a worker that is given up is lost.
ADOPTION_S = 15.0
#: With scope "client" and a full pool: an idle worker is kept for its client this long, about the cost of a start...
CLIENT_PAUSE_S = 0.5
#: ... and a worker in steady use for this turn, several starts long, before a client without one may claim its place.
CLIENT_TURN_S = 5.0
#: The first workers start at the same moment, so their limits are spread widely. The later ones are out of step, and a
#: little is enough to keep them so.
FIRST_SPREAD = 0.75
LATER_SPREAD = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """The numbers that an operator sets for one pool. Raises ConfigError for what makes no sense."""

    min_workers: int = 2
    max_workers: int = 8
    spare: int | None = None  #: idle workers to hold beyond those leased; None: half of min_workers, at least one
    miss_rate: float | None = None  #: the spare is measured, for this share of jobs without an idle worker
    max_jobs: int = 100  #: jobs after which a worker is replaced; never exceeded
    max_age_s: float = 3600.0  #: age at which a worker is replaced
    reuse_scope: ReuseScope = "client"  #: client: a worker serves one client only
    backlog_max: int = 1000  #: waiting jobs of all clients together
    backlog_per_client: int = 1000
    running_per_client: int | None = None  #: jobs of one client at the same time; None: no limit
    bytes_per_client: int = 1 << 30  #: bytes of its unfinished jobs; one job of any size is always accepted
    weights: Mapping[str, float] = field(default_factory=dict)  #: shares of clients, if not 1
    boot_timeout_s: float = 30.0
    heartbeat_s: float = 2.0  #: interval of an idle runner's heartbeats
    kill_grace_s: float = 2.0  #: after a wall limit or a KillJob: time for the worker's answer before it is killed
    start_concurrency: int = 2  #: starts under way at the same time, at most
    first_starts: int | None = None  #: the number to begin with, if it is measured; None: always start_concurrency
    poison_kills: int = 3  #: workers that code may cost within the window before it is refused; 0: no limit
    poison_window_s: float = 3600.0
    poison_refuse_s: float = 3600.0

    def __post_init__(self) -> None:
        least = dict.fromkeys(("min_workers", "backlog_max", "backlog_per_client", "poison_kills"), 0)
        least |= {"max_workers": 1, "max_jobs": 1, "start_concurrency": 1}
        problems = [f"{name} must be at least {low}" for name, low in least.items() if getattr(self, name) < low]
        if self.min_workers > self.max_workers:
            problems.append(f"min_workers ({self.min_workers}) must not be above max_workers ({self.max_workers})")
        if self.first_starts is not None and not 1 <= self.first_starts <= self.start_concurrency:
            problems.append(f"first_starts ({self.first_starts}) must be from 1 to start_concurrency")
        if self.spare is not None and self.spare < 0:
            problems.append("spare must be at least 0, or left out")
        problems += [
            f"{each.name} must be more than 0 seconds"
            for each in fields(self)
            if each.name.endswith("_s") and getattr(self, each.name) <= 0
        ]
        if problems:
            raise ConfigError("The pool's settings make no sense: " + "; ".join(problems), problems=tuple(problems))


def claimable_at(*, bound_at: float, idle_since: float | None) -> float:
    """When a worker of one client may be taken, so that another one gets a fresh one. `idle_since` None: it is busy."""
    turn_ends = bound_at + CLIENT_TURN_S
    return turn_ends if idle_since is None else min(turn_ends, idle_since + CLIENT_PAUSE_S)


# ---- how many ----


def target_size(policy: PoolPolicy, *, busy: int, waiting: int, measured: int = 0) -> int:
    """The target for the jobs to come: a client whose job runs now will submit the next one.

    The default of `spare` is 0 for a pool with a minimum of 0: it is meant to become empty.
    `measured`: the spare by the measured demand.
    """
    least, spare = policy.min_workers, policy.spare
    if spare is None:
        spare = max(1, least // 2) if least else 0
    return min(policy.max_workers, max(least, busy + waiting + max(spare, measured)))


def room_for_starts(*, live: int, stopping: int, max_workers: int) -> int:
    """Containers that may be added. Up to max_workers containers that are being removed do not count: an engine that is
    slow to remove them does not shrink the pool, and one that hangs cannot make it fill the host.
    """
    return max(0, max_workers - live - max(0, stopping - max_workers))


def workers_to_start(*, target: int, supply: int, room: int, starting: int, start_concurrency: int) -> int:
    return max(0, min(target - supply, room, start_concurrency - starting))


def may_retire(*, ready: int, target: int, starting: int, full: bool) -> bool:
    """Whether a worn worker may go: its replacement is ready, or the pool is full and cannot have both."""
    return ready >= target or (full and starting == 0)


# ---- wear ----


def _spread(limit: float, rng: Random, *, young: bool) -> float:
    return limit * (1.0 - rng.random() * (FIRST_SPREAD if young else LATER_SPREAD))


def jobs_limit(max_jobs: int, rng: Random, *, young: bool) -> int:
    """Jobs that this worker may serve: from 1 to max_jobs."""
    return max(1, min(max_jobs, round(_spread(max_jobs, rng, young=young))))


def served_in_s(*, jobs: int, limit: int, age_s: float) -> float:
    """How long a worker that goes on like this serves jobs; infinite while it has more than half of them left."""
    return (limit - jobs) * age_s / jobs if 2 * jobs >= limit else inf


def age_limit_s(max_age_s: float, rng: Random, *, young: bool) -> float:
    return _spread(max_age_s, rng, young=young)


# ---- time ----


def backoff_s(failures: int) -> float:
    """Seconds until the next try after so many failed starts in a row: 1, 2, 4 and so on, at most a minute."""
    return min(BACKOFF_MAX_S, 2.0 ** min(max(failures, 1) - 1, 16))


def jittered(wait_s: float, rng: Random) -> float:
    """This wait, up to a quarter shorter."""
    return wait_s * (1.0 - rng.random() * JITTER)


class Leased(Protocol):
    """The facts of a job that its deadline depends on. Times are monotonic seconds."""

    wall_s: float
    started_at: float | None
    cancelled_at: float | None


def answer_deadline(job: Leased, *, leased_at: float, kill_grace_s: float, shutdown_at: float | None) -> float:
    """When the worker must have reported the end of its job; then it is killed, and the job with it."""
    deadline = (leased_at if job.started_at is None else job.started_at) + job.wall_s + kill_grace_s
    if job.cancelled_at is not None:
        deadline = min(deadline, job.cancelled_at + kill_grace_s)
    return deadline if shutdown_at is None else min(deadline, shutdown_at)

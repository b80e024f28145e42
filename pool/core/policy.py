"""What a pool should do, as pure functions of plain values. Nothing here knows a record, a clock or a command.

choose_worker     which idle worker gets the job              client scope: never one that served somebody else
target_size       how many workers to want                    busy + waiting + spare, within min and max
workers_to_start  how many to start now                       room, starts under way and the breaker allow it
jobs_limit, age_limit_s   when a worker is worn               staggered, so that a pool never recycles all at once
may_retire        whether a worn worker may go now            make before break where max allows
claimable_at      when a client's worker may be taken         so that other clients get their turn
backoff_s         how long to wait after failed starts
answer_deadline   when a busy worker must have answered
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from random import Random
from typing import Literal, Protocol, TypeVar

from pool.errors import ConfigError

ReuseScope = Literal["client", "any"]

#: An idle worker above the target is kept this long: loops pause for seconds between generations, and a container start
#: costs more than a minute of an idle one.
IDLE_HOLD_S = 60.0
#: Beats that may be missed before an idle worker is asked; one lost beat is a busy host, three are not.
MISSED_BEATS = 3
#: Intervals a suspect has to answer the probe. Counted from the probe, so that a daemon that was itself asleep
#: kills nobody when it wakes up.
SUSPECT_BEATS = 2
#: Longest wait between two tries to start a worker; an engine that was repaired is noticed within a minute.
BACKOFF_MAX_S = 60.0
#: The last job of a worker has this long to itself before the start of a replacement competes with it for the cores; a
#: job that is over by then does not notice the start at all.
REPLACE_AFTER_S = 0.05
#: What a worker has, after its answer, to clear up and to park the next child. It takes milliseconds; a worker that
#: takes this long has processes or files that will not go.
CLEARING_S = 15.0
#: With scope "client" and a full pool: an idle worker is left to its client for this pause, about what a start costs...
CLIENT_PAUSE_S = 0.5
#: ... and a worker in steady use for this turn, several starts long, before a client that has none may claim its place.
CLIENT_TURN_S = 5.0
#: The first workers are started at one moment, so their limits are spread widely; those after them are out of step
#: already, and a little is enough to keep them so.
FIRST_SPREAD = 0.75
LATER_SPREAD = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """The numbers an operator sets for one pool."""

    min_workers: int = 2
    max_workers: int = 8
    spare: int | None = None  #: idle workers to hold beyond those leased; None: half of min_workers, at least one
    max_jobs: int = 100  #: jobs after which a worker is recycled; never exceeded
    max_age_s: float = 3600.0  #: age at which a worker is recycled, when it is idle
    reuse_scope: ReuseScope = "client"  #: client: a worker serves one client only
    backlog_max: int = 1000  #: jobs that wait, all clients together
    backlog_per_client: int = 1000
    boot_timeout_s: float = 30.0
    heartbeat_s: float = 2.0  #: interval at which an idle runner beats
    kill_grace_s: float = 2.0  #: what a worker has to answer in, after a wall limit or a KillJob, before it is killed
    start_concurrency: int = 2  #: starts under way at the same time
    poison_kills: int = 3  #: workers that code may cost within the window before it is refused; 0: it never is
    poison_window_s: float = 3600.0
    poison_refuse_s: float = 3600.0

    def __post_init__(self) -> None:
        least = dict.fromkeys(("min_workers", "backlog_max", "backlog_per_client", "poison_kills"), 0)
        least |= {"max_workers": 1, "max_jobs": 1}
        problems = [f"{name} must be at least {low}" for name, low in least.items() if getattr(self, name) < low]
        if self.min_workers > self.max_workers:
            problems.append(f"min_workers ({self.min_workers}) must not be above max_workers ({self.max_workers})")
        if self.spare is not None and self.spare < 0:
            problems.append("spare must be at least 0, or left out")
        if self.start_concurrency < 1:
            problems.append("start_concurrency must be at least 1")
        problems += [
            f"{each.name} must be more than 0 seconds"
            for each in fields(self)
            if each.name.endswith("_s") and getattr(self, each.name) <= 0
        ]
        if problems:
            raise ConfigError("The size of the pool makes no sense: " + "; ".join(problems), problems=tuple(problems))


# ---- which worker ----


class Candidate(Protocol):
    """What choosing looks at."""

    client: str | None  #: the last client it served
    last_used: float


C = TypeVar("C", bound=Candidate)


def choose_worker(idle: Iterable[C], client: str, *, reuse_scope: ReuseScope) -> C | None:
    """The idle worker for a job of this client: one it used already, else an unused one; the most recently used first,
    because its memory is warm and the others can age in peace.
    """
    if reuse_scope == "any":
        return max(idle, key=attrgetter("last_used"), default=None)
    fit = [each for each in idle if each.client is None or each.client == client]
    return max(fit, key=lambda each: (each.client == client, each.last_used), default=None)


def claimable_at(*, bound_at: float, idle_since: float | None) -> float:
    """When a worker of one client may be taken, so that another gets a fresh one. `idle_since` None: it is busy."""
    turn_ends = bound_at + CLIENT_TURN_S
    return turn_ends if idle_since is None else min(turn_ends, idle_since + CLIENT_PAUSE_S)


# ---- how many ----


def spare_size(spare: int | None, min_workers: int) -> int:
    """Idle workers to hold. Auto is none for a pool that may go down to zero, for that is what its operator asked."""
    if spare is not None:
        return spare
    return max(1, min_workers // 2) if min_workers else 0


def target_size(*, busy: int, waiting: int, spare: int, min_workers: int, max_workers: int) -> int:
    """Workers to want for the jobs to come: whoever has a job running now will bring the next one."""
    return min(max_workers, max(min_workers, busy + waiting + spare))


def room_for_starts(*, live: int, stopping: int, max_workers: int) -> int:
    """Containers that may be added. Those being removed do not count, up to max_workers of them: an engine that is slow
    to remove halves nothing, and one that hangs cannot make us fill the host.
    """
    return max(0, max_workers - live - max(0, stopping - max_workers))


def workers_to_start(*, target: int, supply: int, room: int, starting: int, start_concurrency: int) -> int:
    return max(0, min(target - supply, room, start_concurrency - starting))


def may_retire(*, ready: int, target: int, starting: int, full: bool) -> bool:
    """Whether a worn worker may go: its successor is ready, or the pool is full and cannot have both."""
    return ready >= target or (full and starting == 0)


# ---- wear ----


def _spread(limit: float, rng: Random, *, young: bool) -> float:
    return limit * (1.0 - rng.random() * (FIRST_SPREAD if young else LATER_SPREAD))


def jobs_limit(max_jobs: int, rng: Random, *, young: bool) -> int:
    """Jobs this worker may serve: from 1 to max_jobs, never more."""
    return max(1, min(max_jobs, round(_spread(max_jobs, rng, young=young))))


def age_limit_s(max_age_s: float, rng: Random, *, young: bool) -> float:
    return _spread(max_age_s, rng, young=young)


# ---- time ----


def backoff_s(failures: int) -> float:
    """Seconds until the next try after so many failed starts in a row: 1, 2, 4 and so on, at most a minute."""
    return min(BACKOFF_MAX_S, 2.0 ** min(max(failures, 1) - 1, 16))


def answer_deadline(
    *, began: float, wall_s: float, kill_grace_s: float, cancelled_at: float | None, shutdown_at: float | None
) -> float:
    """When the worker must have answered for its job; then it is killed and the job with it."""
    deadline = began + wall_s + kill_grace_s
    if cancelled_at is not None:
        deadline = min(deadline, cancelled_at + kill_grace_s)
    return deadline if shutdown_at is None else min(deadline, shutdown_at)

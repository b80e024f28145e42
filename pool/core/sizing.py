"""After an event: give waiting jobs their workers, and bring the pool to the size that it should have.

    dispatch ─▶ make_room ─▶ try_edition ─▶ choose_worn ─▶ retire_worn ─▶ shed_surplus ─▶ start_missing

Each step asks `policy.py` and carries the decision out on the state. When only time can change a decision, the step
notes with `pool.review` when: the next Tick then comes at that time, and the pool never polls.
"""

from __future__ import annotations

from itertools import islice
from math import inf
from operator import attrgetter

from pool.core import policy as rules
from pool.core.demand import REVIEW_S
from pool.core.job_transitions import choose_worker, lease, reject
from pool.core.records import JobRecord, PoolPhase, StopReason, WorkerRecord
from pool.core.state import State
from pool.core.worker_transitions import retire
from pool.model import StartKind, WorkerState


def settle(pool: State) -> None:
    """Bring supply and demand together."""
    pool.review_at = inf
    if pool.shutdown_at is not None:
        _stop_when_empty(pool)
        return
    if pool.backlog.waiting:
        dispatch(pool)
    census = _count(pool)
    if census.waiting and _make_room(pool, census):
        census = _count(pool)
    if pool.editions.trial is not None and _try_edition(pool, census):
        census = _count(pool)
    if (pool.outgoing is not None or census.retire_at <= pool.now) and _replace_worn(pool, census):
        census = _count(pool)
    if census.surplus > 0 and _stop_surplus(pool, census):
        census = _count(pool)
    if census.supply < pool.target:
        _start_missing(pool, census)


def _stop_when_empty(pool: State) -> None:
    pool.target = 0
    if not pool.workers and pool.state is not PoolPhase.STOPPED:
        pool.state = PoolPhase.STOPPED
        pool.note(pool, "stopped")


# ---- who gets a worker ----


def dispatch(pool: State) -> None:
    """Give waiting jobs the idle workers that may serve them."""
    while pool.backlog.waiting and (pair := _next_pair(pool)) is not None:
        worker, client = pair
        job = pool.jobs[pool.backlog.pop(client)]
        if pool.poison.refused_s(job.code, pool.now) is None:
            pool.commands.append(lease(pool, worker, job, _start_kind(worker, job)))
        else:
            reject(pool, job, pool.poison.explain(job.code, pool.now))


def _next_pair(pool: State) -> tuple[WorkerRecord, str] | None:
    """A worker and the client that it goes to: the client whose turn it is or, if no worker may serve that one, a
    client that has an idle worker of its own. The first one keeps its turn and gets the next fresh worker.
    """
    client, seen = next(pool.backlog.clients(), None), pool.editions.seen
    if client is None:
        return None
    worker = choose_worker(pool, client)
    if worker is not None:
        return worker, client
    bound = [
        (each, each.client)
        for each in pool.workers.values()
        if each.state is WorkerState.IDLE
        and each.client is not None
        and pool.backlog.waits(each.client)
        and pool.backlog.may_run(each.client)
        and each.edition >= seen.get(each.client, 0)
    ]
    return max(bound, key=lambda pair: pair[0].last_used, default=None)


def _start_kind(worker: WorkerRecord, job: JobRecord) -> StartKind:
    """A job is cold if it waited for this very container to start, and warm if it waited for other jobs."""
    fresh = worker.jobs == 0 and (worker.ready_at or 0.0) >= job.submitted_at
    return StartKind.COLD if fresh else StartKind.WARM


# ---- how many there are ----


class Census:
    """One count of the workers. The one that is being replaced counts as live, but not for the jobs to come."""

    def __init__(self, pool: State) -> None:
        quota = pool.policy.running_per_client
        self.waiting = len(pool.backlog.waiting) if quota is None else pool.backlog.eligible()
        self.idle: list[WorkerRecord] = []
        self.leased: list[WorkerRecord] = []  #: at work, and able to take the next job
        self.found = self.starting = self.suspect = self.stopping = self.busy = 0
        self.ending = 0  #: with their last job, which has just begun
        self.retire_at = inf  #: when the first of those that serve is due for replacement
        self.review_at = inf  #: when another count may lead to another decision, without any event
        self._count(pool)
        self.live = len(pool.workers) - self.stopping
        self.ready = len(self.idle) + len(self.leased)
        # While jobs wait, every idle worker belongs to another client and cannot serve them: dispatch would have
        # used it. A suspect stays a supply: a daemon that was suspended for a moment must not start a second pool.
        self.supply = self.found + self.starting + self.ending + len(self.leased)
        self.supply += 0 if self.waiting else len(self.idle) + self.suspect
        spare = 0 if pool.demand is None else pool.demand.spare(pool.now, start_s=pool.start_s)
        if spare:
            self._review(pool.now + REVIEW_S)  # without events, the rate falls
        self.target = rules.target_size(pool.policy, busy=self.busy, waiting=self.waiting, measured=spare)
        self.surplus = 0 if self.waiting else self.starting + self.ready - self.target
        if pool.now < self.retire_at:
            self._review(self.retire_at)

    def _count(self, pool: State) -> None:
        for worker in pool.workers.values():
            state = worker.state
            if state is WorkerState.FOUND:
                self.found += worker.leaving is None
                self.busy += worker.job is not None
            elif state is WorkerState.STARTING:
                self.starting += 1
            elif state is WorkerState.STOPPING:
                self.stopping += 1
            elif state is WorkerState.DRAINING:
                self.busy += 1
            else:
                self.busy += state is WorkerState.LEASED
                if worker is pool.outgoing:
                    continue
                if state is WorkerState.SUSPECT:
                    self.suspect += 1
                elif worker.jobs >= worker.jobs_limit:
                    self._count_ending(pool, worker)
                else:
                    (self.idle if state is WorkerState.IDLE else self.leased).append(worker)
                    self.retire_at = min(self.retire_at, worker.retire_at)

    def _count_ending(self, pool: State, worker: WorkerRecord) -> None:
        at = worker.leased_at + rules.REPLACE_AFTER_S
        if at > pool.now:
            self.ending += 1
            self._review(at)

    def _review(self, at: float) -> None:
        self.review_at = min(self.review_at, at)

    def room(self, pool: State) -> int:
        """Containers that may be added."""
        return rules.room_for_starts(live=self.live, stopping=self.stopping, max_workers=pool.policy.max_workers)


def _count(pool: State) -> Census:
    census = Census(pool)
    pool.target = census.target
    pool.review(census.review_at)
    return census


# ---- clients that have no worker ----


def _make_room(pool: State, census: Census) -> bool:
    """In a full pool whose workers serve one client each: take workers from the clients that have some, so that fresh
    ones can take their place. Idle workers go first; a busy one only for a client that has none at all.
    """
    policy = pool.policy
    if policy.reuse_scope == "any" or census.live < policy.max_workers:
        return False
    coming = census.live - census.ready  # starting, or about to leave its place to a fresh one
    wanted = min(census.waiting - coming, pool.start_concurrency - census.starting)
    if wanted <= 0 or _blocked(pool):
        return False
    taken = _claim(pool, sorted(census.idle, key=attrgetter("last_used")), wanted)
    served = {worker.client for worker in pool.workers.values() if worker.leaving is None}
    unserved = islice((client for client in pool.backlog.clients() if client not in served), wanted)
    still_wanted = sum(1 for _ in unserved) - taken - coming
    return bool(taken + _claim(pool, sorted(census.leased, key=attrgetter("bound_at")), still_wanted))


def _claim(pool: State, workers: list[WorkerRecord], wanted: int) -> int:
    """Retire so many of these workers, as far as their time is up. Returns how many."""
    taken = 0
    for worker in workers:
        if taken >= wanted:
            break
        idle_since = worker.last_used if worker.state is WorkerState.IDLE else None
        at = rules.claimable_at(bound_at=worker.bound_at, idle_since=idle_since)
        if at <= pool.now:
            retire(pool, worker, StopReason.FOREIGN)
            taken += 1
        else:
            pool.review(at)
    return taken


def _blocked(pool: State) -> bool:
    """Whether the breaker lets no start be tried now."""
    blocked = pool.breaker.blocked(pool.now)
    if blocked:
        pool.review(pool.breaker.retry_at or pool.now)
    return blocked


# ---- data sets that have changed ----


def _try_edition(pool: State, census: Census) -> bool:
    """Start one worker on the data sets that are offered; in a full pool, in the place of another worker."""
    trial, breaker, policy = pool.editions.trial, pool.breaker, pool.policy
    if trial is None or trial.worker_id is not None or trial.retry_at is None:
        return False
    again_at = max(trial.retry_at, breaker.retry_at or 0.0)
    if again_at > pool.now:
        pool.review(again_at)
        return False
    if census.starting >= pool.start_concurrency:
        return False
    if census.room(pool) > 0:
        pool.start_worker()
        return True
    if census.live >= policy.max_workers and pool.outgoing is None:
        _give_way(pool, census)
    return False


def _give_way(pool: State, census: Census) -> None:
    """The worker that was idle the longest goes, or else the one whose job has run the longest."""
    idle = min(census.idle, key=attrgetter("last_used"), default=None)
    worker = idle or min(census.leased, key=attrgetter("leased_at"), default=None)
    if worker is not None:
        worker.worn, worker.retire_at = StopReason.DATASET, pool.now
        census.retire_at = pool.now


# ---- too old, too many, too few ----


def _replace_worn(pool: State, census: Census) -> bool:
    """Replace worn workers one at a time, the one that is due the longest first."""
    if pool.outgoing is None:
        worker = min([*census.idle, *census.leased], key=attrgetter("retire_at"))
        worker.worn = worker.worn or StopReason.MAX_AGE
        pool.outgoing = worker
        pool.note(worker, f"is to be replaced: {worker.worn}")
        census = _count(pool)
        _retire_outgoing(pool, census)
        return True
    return _retire_outgoing(pool, census)


def _retire_outgoing(pool: State, census: Census) -> bool:
    """Retire the worker that is being replaced, once its replacement is ready or the pool is full."""
    worker = pool.outgoing
    if worker is None or worker.worn is None or worker.leaving is not None:
        return False
    free_to_go = rules.may_retire(
        ready=census.ready, target=pool.target, starting=census.starting, full=census.live >= pool.policy.max_workers
    )
    # While no start can be tried, an old worker is better than none.
    if not free_to_go or (census.ready < pool.target and pool.breaker.blocked(pool.now)):
        return False
    retire(pool, worker, worker.worn)
    return True


def _stop_surplus(pool: State, census: Census) -> bool:
    """Stop idle workers that the pool has not wanted for a while, the longest idle first."""
    stopped, surplus = 0, max(0, census.surplus - pool.editions.trying)
    for worker in sorted(census.idle, key=attrgetter("last_used"))[:surplus]:
        held_until = worker.last_used + rules.IDLE_HOLD_S
        if held_until > pool.now:
            pool.review(held_until)
            break
        retire(pool, worker, StopReason.SURPLUS)
        stopped += 1
    return stopped > 0


def _start_missing(pool: State, census: Census) -> None:
    if not pool.editions.current or _blocked(pool):
        return
    missing = rules.workers_to_start(
        target=pool.target,
        supply=census.supply,
        room=census.room(pool),
        starting=census.starting,
        start_concurrency=pool.start_concurrency,
    )
    for _ in range(missing):
        pool.start_worker()

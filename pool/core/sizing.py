"""After every event: give waiting jobs their workers, and bring the pool to the size it should have.

    dispatch ─▶ make_room ─▶ try_edition ─▶ choose_worn ─▶ retire_worn ─▶ shed_surplus ─▶ start_missing

Each step asks `policy.py` and feeds what it decides to the tables. What only time can change is noted with
`books.review`, so that the next Tick comes then and the pool never spins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter

from pool.core import policy as rules
from pool.core import worker_transitions
from pool.core.events import Lease, Retire
from pool.core.records import PoolPhase, StopReason, WorkerRecord
from pool.core.state import State
from pool.model import StartKind, WorkerState


def settle(books: State) -> None:
    """Bring supply and demand together."""
    books.review_at = None
    if books.pool.state is PoolPhase.STOPPED:
        return
    if books.pool.state is PoolPhase.STOPPING:
        books.target = 0
        if not books.workers:
            books.pool.state = PoolPhase.STOPPED
            books.tell(books.pool, "stopped")
        return
    dispatch(books)
    census = Census.of(books)
    for step in (_make_room, _try_edition, _choose_worn, _retire_worn, _shed_surplus):
        if step(books, census):
            census = Census.of(books)
    _start_missing(books, census)


# ---- who gets a worker ----


def dispatch(books: State) -> None:
    backlog = books.backlog
    if not backlog:
        return
    idle = [worker for worker in books.workers.values() if worker.state is WorkerState.IDLE]
    while idle and backlog:
        pair = _next_pair(books, idle)
        if pair is None:
            return
        worker, client = pair
        idle.remove(worker)
        job_id = backlog.pop(client)
        start = _start_kind(books, worker, job_id)
        books.epoch += 1
        lease = Lease(worker_id=worker.id, job_id=job_id, epoch=books.epoch, start=start)
        worker_transitions.apply(books, worker.id, lease)


def _start_kind(books: State, worker: WorkerRecord, job_id: str) -> StartKind:
    """Cold is a job that waited for this very container to start; one that waited for other jobs is not."""
    if job_id == books.arrival:
        return StartKind.PARKED
    fresh = worker.jobs == 0 and (worker.ready_at or 0.0) >= books.jobs[job_id].submitted_at
    return StartKind.COLD if fresh else StartKind.WARM


def _next_pair(books: State, idle: list[WorkerRecord]) -> tuple[WorkerRecord, str] | None:
    """A worker and the client it goes to: the client whose turn it is, or, where no worker fits that one, a client that
    has a worker of its own idle. The first keeps its turn and gets the next fresh worker.
    """
    client = next(books.backlog.clients())
    fit = books.editions.fit
    worker = rules.choose_worker(fit(idle, client), client, reuse_scope=books.policy.reuse_scope)
    if worker is not None:
        return worker, client
    own = [each for each in idle if each.client is not None and books.backlog.waits(each.client)]
    own = [each for each in own if fit([each], each.client or "")]
    if not own:
        return None
    worker = max(own, key=attrgetter("last_used"))
    assert worker.client is not None
    return worker, worker.client


# ---- how many there are ----


@dataclass(slots=True)
class Census:
    """One count of the workers. The one that is being replaced counts as live, but not for the jobs to come."""

    live: int = 0  #: all but STOPPING
    starting: int = 0
    suspect: int = 0
    stopping: int = 0
    busy: int = 0  #: with a job
    ending: int = 0  #: just begun with their last job
    ready: int = 0  #: idle or leased, and able to take the next job
    supply: int = 0  #: ready or about to be, and of use to the jobs that wait
    room: int = 0  #: containers that may be added
    idle: list[WorkerRecord] = field(default_factory=list)
    leased: list[WorkerRecord] = field(default_factory=list)

    @classmethod
    def of(cls, books: State) -> Census:
        census, policy, waiting = cls(), books.policy, len(books.backlog)
        census._count(books)
        census.live = len(books.workers) - census.stopping
        census.room = rules.room_for_starts(live=census.live, stopping=census.stopping, max_workers=policy.max_workers)
        census.ready = len(census.idle) + len(census.leased)
        # While jobs wait, every idle worker is another client's and no supply for them: else it would have been leased.
        # A suspect is only asked, not given up: a daemon that slept for a moment must not start a second pool.
        census.supply = census.starting + census.ending
        census.supply += len(census.leased) if waiting else census.ready + census.suspect
        books.target = rules.target_size(
            busy=census.busy,
            waiting=waiting,
            spare=rules.spare_size(policy.spare, policy.min_workers),
            min_workers=policy.min_workers,
            max_workers=policy.max_workers,
        )
        return census

    def _count(self, books: State) -> None:
        outgoing, idle, leased = books.outgoing, WorkerState.IDLE, WorkerState.LEASED
        for worker in books.workers.values():
            state = worker.state
            if state is idle:
                if worker is not outgoing:
                    self.idle.append(worker)
            elif state is leased:
                self.busy += not worker.clearing
                if worker is not outgoing:
                    self._count_leased(books, worker)
            elif state is WorkerState.DRAINING:
                self.busy += 1
            elif state is WorkerState.STARTING:
                self.starting += 1
            elif state is WorkerState.STOPPING:
                self.stopping += 1
            elif worker is not outgoing:
                self.suspect += 1

    def _count_leased(self, books: State, worker: WorkerRecord) -> None:
        if worker.jobs < worker.jobs_limit:
            self.leased.append(worker)
        elif (at := worker.leased_at + rules.REPLACE_AFTER_S) > books.now:
            self.ending += 1
            books.review(at)


# ---- clients that have no worker ----


def _make_room(books: State, census: Census) -> bool:
    """In a full pool where a worker serves one client only: take workers from those who have some, so that fresh ones
    can take their place. Idle ones go first; a busy one only for a client that has none at all.
    """
    policy, waiting = books.policy, len(books.backlog)
    if policy.reuse_scope == "any" or not waiting or census.live < policy.max_workers:
        return False
    coming = census.live - census.ready  # starting, or about to leave its place to a fresh one
    wanted = min(waiting - coming, policy.start_concurrency - census.starting)
    if wanted <= 0:
        return False
    if books.breaker.blocked(books.now):
        books.review(books.breaker.retry_at or books.now)
        return False
    taken = _claim(books, sorted(census.idle, key=attrgetter("last_used")), wanted)
    homes = {worker.client for worker in books.workers.values() if worker.leaving is None}
    homeless = islice((client for client in books.backlog.clients() if client not in homes), wanted)
    still_wanted = sum(1 for _ in homeless) - taken - coming
    return bool(taken + _claim(books, sorted(census.leased, key=attrgetter("bound_at")), still_wanted))


def _claim(books: State, workers: list[WorkerRecord], wanted: int) -> int:
    taken = 0
    for worker in workers:
        if taken >= wanted:
            break
        idle_since = worker.last_used if worker.state is WorkerState.IDLE else None
        at = rules.claimable_at(bound_at=worker.bound_at, idle_since=idle_since)
        if at <= books.now:
            worker_transitions.apply(books, worker.id, Retire(reason=StopReason.FOREIGN))
            taken += 1
        else:
            books.review(at)
    return taken


# ---- data sets that have changed ----


def _try_edition(books: State, census: Census) -> bool:
    """Have one worker started on the data that are offered; in a full pool, in the place of another."""
    trial, breaker, policy = books.editions.trial, books.breaker, books.policy
    if trial is None or trial.worker_id is not None or trial.retry_at is None:
        return False
    again_at = max(trial.retry_at, breaker.retry_at or 0.0)
    if again_at > books.now:
        books.review(again_at)
        return False
    if census.starting >= (1 if breaker.failures else policy.start_concurrency):
        return False
    if census.room > 0:
        books.start_worker()
        return True
    if census.live >= policy.max_workers and books.outgoing is None:
        _give_way(books, census)
    return False


def _give_way(books: State, census: Census) -> None:
    """The idle one that is least missed, else the one whose job has run the longest."""
    idle = min(census.idle, key=attrgetter("last_used"), default=None)
    worker = idle or min(census.leased, key=attrgetter("leased_at"), default=None)
    if worker is not None:
        worker.worn, worker.retire_at = StopReason.DATASET, books.now


# ---- too old, too many, too few ----


def _choose_worn(books: State, census: Census) -> bool:
    """One at a time, the one that is overdue the longest first."""
    if books.outgoing is not None:
        return False
    worker = min([*census.idle, *census.leased], key=attrgetter("retire_at"), default=None)
    if worker is None:
        return False
    if worker.retire_at > books.now:
        books.review(worker.retire_at)
        return False
    worker.worn = worker.worn or StopReason.MAX_AGE
    books.outgoing = worker
    books.tell(worker, f"is to be replaced: {worker.worn}")
    return True


def _retire_worn(books: State, census: Census) -> bool:
    worker = books.outgoing
    if worker is None or worker.worn is None or worker.leaving is not None:
        return False
    free_to_go = rules.may_retire(
        ready=census.ready,
        target=books.target,
        starting=census.starting,
        full=census.live >= books.policy.max_workers,
    )
    # While no start can be tried, an old worker is better than none.
    if not free_to_go or (census.ready < books.target and books.breaker.blocked(books.now)):
        return False
    worker_transitions.apply(books, worker.id, Retire(reason=worker.worn))
    return True


def _shed_surplus(books: State, census: Census) -> bool:
    wanted = books.target + books.editions.trying
    surplus = 0 if books.backlog else census.supply - census.suspect - census.ending - wanted
    shed = 0
    for worker in sorted(census.idle, key=attrgetter("last_used"))[: max(0, surplus)]:
        held_until = worker.last_used + rules.IDLE_HOLD_S
        if held_until > books.now:
            books.review(held_until)
            break
        worker_transitions.apply(books, worker.id, Retire(reason=StopReason.SURPLUS))
        shed += 1
    return shed > 0


def _start_missing(books: State, census: Census) -> None:
    breaker, concurrency = books.breaker, books.policy.start_concurrency
    if census.supply >= books.target or not books.editions.current:
        return
    if breaker.blocked(books.now):
        books.review(breaker.retry_at or books.now)
        return
    missing = rules.workers_to_start(
        target=books.target,
        supply=census.supply,
        room=census.room,
        starting=census.starting,
        start_concurrency=1 if breaker.failures else concurrency,
    )
    for _ in range(missing):
        books.start_worker()

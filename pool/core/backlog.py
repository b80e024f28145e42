"""The bounded, fair queue in front of a pool.

    users:   ann used 40 s │ bob used 12 s │ ...     the user that has used the least of its share is next
      ann:   loop 1 used 31 s │ loop 2 used 9 s      and of a user's loops (clients) the one that has used the least
        loop 1:  priority 5: job, job │ priority 0: job, job, job      higher first, first come within one priority

A share is counted in worker time, divided by the weight of the user: start-time fair queueing. The length of a job is
not known at its lease, so its loop is charged the recent mean of its jobs, and the difference at the end. After a pause
a share begins where the others are: unused time is not saved up.

Every operation costs O(log n). A job that leaves from the middle (cancelled, timed out) is only marked. A heap
drops a marked entry when it reaches the top, or all of them when they are more than half of the heap.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from msgspec import Struct

#: A heap with fewer entries is not worth compacting.
SMALL_HEAP = 64
#: The charge of a loop's first job, whose length is not known, and the least charge of any job.
FIRST_COST_S, LEAST_COST_S = 0.0625, 0.001
#: The weight of the latest job in the charge of the next one.
LEARNING = 0.2
#: A share that has used more than the others lately waits for at most so much of their worker time.
MOST_AHEAD_S = 600.0
#: The most shares without jobs that are kept because they have used more than the others.
MAX_RESTING = 4096
#: Bounds of the hint when to try again: shorter would be a storm, longer would leave workers idle.
RETRY_LEAST_S, RETRY_MOST_S = 0.05, 30.0

Key = tuple[float, int]


class StrikeHeap:
    """Ids by ascending key; any of them can be struck off cheaply."""

    def __init__(self) -> None:
        self._heap: list[tuple[Key, str]] = []
        self._keys: dict[str, Key] = {}  # of those that were not struck off

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def in_order(self) -> list[str]:
        return sorted(self._keys, key=self._keys.__getitem__)

    def push(self, entry_id: str, key: Key) -> None:
        """Add an entry, or move an existing one."""
        self._keys[entry_id] = key
        heapq.heappush(self._heap, (key, entry_id))
        self._compact()

    def strike(self, entry_id: str) -> None:
        """Take the entry out, if there is one."""
        self._keys.pop(entry_id, None)
        self._compact()

    def _compact(self) -> None:
        if len(self._heap) > max(SMALL_HEAP, 2 * len(self._keys)):
            self._heap = [(key, each) for each, key in self._keys.items()]
            heapq.heapify(self._heap)

    def first(self) -> tuple[Key, str] | None:
        heap = self._heap
        while heap:
            key, entry_id = heap[0]
            if self._keys.get(entry_id) == key:
                return heap[0]
            heapq.heappop(heap)
        return None


class Share(Struct, eq=False):
    """The use of one user, or of one loop of a user."""

    weight: float = 1.0
    used: float = 0.0  #: worker seconds, divided by the weight
    cost_s: float = FIRST_COST_S  #: recent mean of its jobs
    running: int = 0
    waits: bool = False

    def after(self, jobs: int) -> float:
        """Its use after so many more jobs."""
        return self.used + jobs * self.cost_s / self.weight


class Turns:
    """Shares by name, and whose turn it is: of the clients, and of the loops of each of them. Each lease passes here
    twice, so it calls little.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.loops = Loops()
        self.running = 0  #: jobs of all shares
        self.cost_s = FIRST_COST_S  #: recent mean over all of them
        self._weights = weights
        self._shares: dict[str, Share] = {}
        self._order = StrikeHeap()  # of those that wait
        self._waiting = 0
        self._reached = 0.0  # the use of the share that was served last, at which new shares begin
        self._arrivals = 0

    def __getitem__(self, name: str) -> Share:
        """The share of this name; a new one on first use."""
        share = self._shares.get(name)
        if share is None:
            if len(self._shares) > 2 * MAX_RESTING:
                self._shares = {each: found for each, found in self._shares.items() if found.waits or found.running}
            share = self._shares[name] = Share(self._weights.get(name, 1.0), self._reached)
        return share

    def first(self) -> str | None:
        found = self._order.first()
        return None if found is None else found[1]

    def waiting(self) -> list[str]:
        """The names of shares with waiting jobs, the next one first."""
        return self._order.in_order()

    def wait(self, name: str) -> None:
        share = self[name]
        if not share.waits:
            share.waits, share.used = True, max(share.used, self._reached)
            self._waiting += 1
            self._place(name, share)

    def leave(self, name: str) -> None:
        share = self[name]
        self._waiting -= share.waits
        share.waits = False
        self._order.strike(name)

    def begin(self, name: str, loop: str | None = None) -> float:
        """A job of this share, and of this loop of it, has got a worker. Returns its charge, for `end`: the recent mean
        of the jobs of its loop.
        """
        share = self._shares.get(name) or self[name]
        cost_s = share.cost_s if loop is None else self.loops[name].begin(loop)
        begins = reached = max(share.used, self._reached)
        if self._waiting and (first := self._order.first()) is not None:
            reached = max(self._reached, min(begins, first[0][0]))
        self._reached = reached
        self.running += 1
        share.running += 1
        share.used = min(begins + cost_s / share.weight, reached + MOST_AHEAD_S)
        if share.waits:
            self._place(name, share)
        return cost_s

    def end(self, name: str, loop: str | None = None, *, charged_s: float, took_s: float) -> None:
        """A job has given its worker back. `charged_s`: what `begin` returned."""
        if loop is not None:
            self.loops[name].end(loop, charged_s=charged_s, took_s=took_s)
        share, took_s = self._shares[name], max(took_s, LEAST_COST_S)
        self.running -= 1
        share.running -= 1
        self.cost_s += LEARNING * (took_s - self.cost_s)
        share.cost_s += LEARNING * (took_s - share.cost_s)
        share.used = min(share.used + (took_s - charged_s) / share.weight, self._reached + MOST_AHEAD_S)
        if share.waits:
            self._place(name, share)

    def _place(self, name: str, share: Share) -> None:
        self._arrivals += 1
        self._order.push(name, (share.used, self._arrivals))


class Loops(dict[str, Turns]):
    """The loops of each client, made on first use."""

    def __missing__(self, client: str) -> Turns:
        self[client] = turns = Turns({})
        return turns


class Backlog:
    """The waiting jobs, by id: whose turn it is, and how long each may wait."""

    def __init__(
        self,
        *,
        max_jobs: int,
        max_per_client: int,
        max_running: int | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """`max_running`: jobs of one client that may run at the same time. `weights`: of clients; else 1."""
        self.waiting: dict[str, tuple[str, str]] = {}  #: client and loop of each waiting job; to be read, not changed
        self._max_jobs = max_jobs
        self._max_per_client = max_per_client
        self._max_running = max_running
        self.turns = Turns(weights or {})  #: of the clients. It is told of each job that gets a worker or gives it back
        self._loops = self.turns.loops
        self._queues: dict[tuple[str, str], StrikeHeap] = {}
        self._lengths: dict[str, int] = {}  # of each client that waits
        self._deadlines = StrikeHeap()
        self._arrivals = 0

    # ---- room ----

    def why_full(self, client: str) -> str | None:
        """A sentence for the submitter why there is no place for a job of this client; None if there is one."""
        if len(self.waiting) >= self._max_jobs:
            return f"The backlog is full: {len(self.waiting)} jobs wait, and at most {self._max_jobs} may. Try later."
        own = self._lengths.get(client, 0)
        if own >= self._max_per_client:
            return f"{own} of your jobs wait, and at most {self._max_per_client} may. Wait for some of them to end."
        return None

    def retry_after_s(self) -> float:
        """When there may be a place again: about when the next job ends."""
        return min(max(self.turns.cost_s / max(1, self.turns.running), RETRY_LEAST_S), RETRY_MOST_S)

    def may_run(self, client: str) -> bool:
        """Whether the client may have one more job running."""
        return self._max_running is None or self.turns[client].running < self._max_running

    def eligible(self) -> int:
        """The number of jobs that wait for a worker, and not for the end of another job of their client."""
        most = len(self.waiting) if self._max_running is None else self._max_running
        room = {client: max(0, most - self.turns[client].running) for client in self._lengths}
        return sum(min(waiting, room[client]) for client, waiting in self._lengths.items())

    # ---- jobs ----

    def push(
        self, job_id: str, client: str, *, loop: str = "", priority: int = 0, deadline: float | None = None
    ) -> None:
        """Append a job. The caller has asked `why_full` before."""
        self._arrivals += 1
        place = self.waiting[job_id] = client, loop
        self._lengths[client] = self._lengths.get(client, 0) + 1
        self._queues.setdefault(place, StrikeHeap()).push(job_id, (-priority, self._arrivals))
        self.turns.wait(client)
        self._loops[client].wait(loop)
        if deadline is not None:
            self._deadlines.push(job_id, (deadline, self._arrivals))

    def clients(self) -> Iterator[str]:
        """Clients with waiting jobs that may run, the next one first."""
        return filter(self.may_run, self.turns.waiting())

    def waits(self, client: str) -> bool:
        return client in self._lengths

    def places(self, client: str) -> dict[str, int]:
        """The place of each job of a client among all that wait, from 1, if jobs take as long as those before."""
        if client not in self._lengths:
            return {}
        mine, order = self.turns[client], self.turns.waiting()
        turn = order.index(client)
        others = [(self.turns[name], self._lengths[name], at < turn) for at, name in enumerate(order) if at != turn]
        return {
            job_id: number + 1 + sum(_ahead(mine, number, *each) for each in others)
            for number, job_id in enumerate(self._own(client))
        }

    def _own(self, client: str) -> list[str]:
        """The waiting jobs of a client in the order in which they will be served."""
        turns = self._loops[client]
        found = [
            (turns[loop].after(number), turn, job_id)
            for turn, loop in enumerate(turns.waiting())
            for number, job_id in enumerate(self._queues[client, loop].in_order())
        ]
        return [job_id for _, _, job_id in sorted(found)]

    def pop(self, client: str) -> str:
        """Take out the client's next job, which gets a worker now. KeyError if it has none."""
        loop = self._loops[client].first()
        first = None if loop is None else self._queues[client, loop].first()
        if first is None:
            raise KeyError(client)
        self.remove(first[1])
        return first[1]

    def remove(self, job_id: str) -> None:
        """Take a job out, wherever it stands. KeyError if it does not wait."""
        client, loop = place = self.waiting.pop(job_id)
        self._deadlines.strike(job_id)
        queue = self._queues[place]
        queue.strike(job_id)
        self._lengths[client] -= 1
        if not queue:
            del self._queues[place]
            self._loops[client].leave(loop)
        if not self._lengths[client]:
            del self._lengths[client]
            self.turns.leave(client)

    # ---- deadlines ----

    def next_deadline(self) -> float | None:
        first = self._deadlines.first()
        return None if first is None else first[0][0]

    def overdue(self, now: float) -> Iterator[str]:
        """Jobs that have waited too long. The caller removes each before it asks for the next."""
        while (first := self._deadlines.first()) is not None and first[0][0] <= now:
            yield first[1]

    def validate(self) -> None:
        queued = {job_id: place for place, queue in self._queues.items() for job_id in queue}
        assert queued == self.waiting, "each waiting job stands in exactly one queue"
        assert all(self._queues.values()), "a loop without waiting jobs has no queue"
        assert set(self.turns.waiting()) == self._lengths.keys(), "a client without waiting jobs has no turn"
        for client in self._lengths:
            loops = {loop for user, loop in self._queues if user == client}
            assert set(self._loops[client].waiting()) == loops, f"a loop of {client} without waiting jobs has a turn"
        assert sum(self._lengths.values()) == len(self.waiting), "the lengths are right"
        assert set(self._deadlines) <= set(self.waiting), "only waiting jobs have a queue deadline"
        assert self.turns.running >= 0, "no more jobs end than began"


def _ahead(mine: Share, number: int, other: Share, waiting: int, turn_is_first: bool) -> int:  # noqa: FBT001
    """How many of the waiting jobs of another share are served before the job `number` of mine, counted from 0.

    `turn_is_first`: whose turn is first if both have used the same now.
    """
    jobs = (mine.after(number) - other.used) * other.weight / other.cost_s
    if jobs < 0:
        return 0
    whole = int(jobs)
    wins_tie = whole < number or (whole == number and turn_is_first)
    return min(waiting, whole + (jobs > whole or wins_tie))

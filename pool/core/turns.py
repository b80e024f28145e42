"""Whose turn it is: start-time fair queueing of worker time, among users and among the loops of each user.

A share is counted in worker time, divided by the weight of the user. The length of a job is not known at its lease, so
its loop is charged the recent mean of its jobs, and the difference at the end. After a pause a share begins where the
others are: unused time is not saved up.

Every operation costs O(log n). An entry that leaves a heap from the middle is only marked. The heap drops a marked
entry when it reaches the top, or all of them when they are more than half of the heap.
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


class Use(Struct, eq=False):
    """The use of one worker by one job, from its lease on."""

    client: str
    loop: str
    charged_s: float | None = None  #: what `begin` has returned; None: its lease is not counted yet
    took_s: float = 0.0  #: set at its end


class Turns:
    """Shares by name, and whose turn it is: of the clients, and of the loops of each of them."""

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

"""The bounded, fair queue in front of a pool.

    turns:    client A ─▶ client B ─▶ client C ─▶ (A again)      one job each, round robin
    client A: priority 5: job, job │ priority 0: job, job, job    higher first, first come within one priority

Every operation costs O(log n). A job that leaves from the middle (cancelled, timed out) is only struck off. A heap
drops what is struck off when it reaches the top, or all of it when that is more than half of the heap.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator

#: A heap with fewer entries is not worth compacting.
SMALL_HEAP = 64

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
        self._keys[entry_id] = key
        heapq.heappush(self._heap, (key, entry_id))

    def strike(self, entry_id: str) -> None:
        """Take the entry out, if there is one."""
        self._keys.pop(entry_id, None)
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


class Backlog:
    """Ids of waiting jobs: whose turn it is, and how long each may wait."""

    def __init__(self, *, max_jobs: int, max_per_client: int) -> None:
        self.waiting: dict[str, str] = {}  #: the client of each waiting job, by job id; to be read, not changed
        self._max_jobs = max_jobs
        self._max_per_client = max_per_client
        self._turns: OrderedDict[str, StrikeHeap] = OrderedDict()  # the client at the front is next
        self._deadlines = StrikeHeap()
        self._arrivals = 0

    def why_full(self, client: str) -> str | None:
        """Why there is no place for a job of this client, for its submitter; None if there is one."""
        if len(self.waiting) >= self._max_jobs:
            return f"The backlog is full: {len(self.waiting)} jobs wait, and at most {self._max_jobs} may. Try later."
        own = len(self._turns.get(client, ()))
        if own >= self._max_per_client:
            return f"{own} of your jobs wait, and at most {self._max_per_client} may. Wait for some of them to end."
        return None

    def push(self, job_id: str, client: str, *, priority: int = 0, deadline: float | None = None) -> None:
        """Append a job. The caller has asked `why_full` before."""
        self._arrivals += 1
        self.waiting[job_id] = client
        self._turns.setdefault(client, StrikeHeap()).push(job_id, (-priority, self._arrivals))
        if deadline is not None:
            self._deadlines.push(job_id, (deadline, self._arrivals))

    def clients(self) -> Iterator[str]:
        """Clients with waiting jobs, the next one first. Weights of clients would belong here and in `pop`."""
        return iter(self._turns)

    def waits(self, client: str) -> bool:
        return client in self._turns

    def places(self, client: str) -> dict[str, int]:
        """The place of each job of a client among all that wait, from 1, if each client gets its turn."""
        before = True
        ahead: list[tuple[int, bool]] = []  # of each other client: how many wait, and whether its turn comes first
        for other, queue in self._turns.items():
            if other == client:
                before = False
            else:
                ahead.append((len(queue), before))
        own = self._turns[client].in_order() if client in self._turns else ()
        return {
            job_id: number + 1 + sum(min(waiting, number + first) for waiting, first in ahead)
            for number, job_id in enumerate(own)
        }

    def pop(self, client: str) -> str:
        """Take out the client's next job; its turn is then over. KeyError if it has none."""
        first = self._turns[client].first()
        if first is None:  # a client without jobs has no turn
            raise KeyError(client)
        self._turns.move_to_end(client)
        self.remove(first[1])
        return first[1]

    def remove(self, job_id: str) -> None:
        """Take a job out, wherever it stands. KeyError if it does not wait."""
        client = self.waiting.pop(job_id)
        self._deadlines.strike(job_id)
        queue = self._turns[client]
        queue.strike(job_id)
        if not queue:
            del self._turns[client]

    def next_deadline(self) -> float | None:
        first = self._deadlines.first()
        return None if first is None else first[0][0]

    def overdue(self, now: float) -> Iterator[str]:
        """Jobs that have waited too long. The caller removes each before it asks for the next."""
        while (first := self._deadlines.first()) is not None and first[0][0] <= now:
            yield first[1]

    def validate(self) -> None:
        queued = [job_id for queue in self._turns.values() for job_id in queue]
        assert sorted(queued) == sorted(self.waiting), "each waiting job stands in exactly one queue"
        assert all(self._turns.values()), "a client without waiting jobs has no turn"
        assert set(self._deadlines) <= set(self.waiting), "only waiting jobs have a queue deadline"

"""The bounded, fair queue in front of a pool.

    users:   ann used 40 s │ bob used 12 s │ ...     the user that has used the least of its share is next
      ann:   loop 1 used 31 s │ loop 2 used 9 s      and of a user's loops (clients) the one that has used the least
        loop 1:  priority 5: job, job │ priority 0: job, job, job      higher first, first come within one priority

How use is counted is in `turns.py`. Every operation costs O(log n).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pool.core.turns import Share, StrikeHeap, Turns, Use

#: So many uses are counted at the latest, which takes about half a millisecond.
MOST_UNCOUNTED = 256
#: Bounds of the hint when to try again: shorter would be a storm, longer would leave workers idle.
RETRY_LEAST_S, RETRY_MOST_S = 0.05, 30.0


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
        #: Each job that gets a worker adds its use here, and once more when it gives the worker back. They are counted
        #: when somebody waits, or a share is asked for: a job that finds an idle worker has no need of that.
        self.uses: list[Use] = []
        self._turns = Turns(weights or {})
        self._queues: dict[tuple[str, str], StrikeHeap] = {}
        self._lengths: dict[str, int] = {}  # of each client that waits
        self._deadlines = StrikeHeap()
        self._arrivals = 0

    @property
    def turns(self) -> Turns:
        """Of the clients, with all uses counted."""
        if self.uses:
            self.count()
        return self._turns

    def count(self) -> None:
        """To be called when there are `MOST_UNCOUNTED` uses."""
        for use in self.uses:
            if use.charged_s is None:
                use.charged_s = self._turns.begin(use.client, use.loop)
            else:
                self._turns.end(use.client, use.loop, charged_s=use.charged_s, took_s=use.took_s)
        self.uses.clear()

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
        self.turns.loops[client].wait(loop)
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
        turns = self.turns.loops[client]
        found = [
            (turns[loop].after(number), turn, job_id)
            for turn, loop in enumerate(turns.waiting())
            for number, job_id in enumerate(self._queues[client, loop].in_order())
        ]
        return [job_id for _, _, job_id in sorted(found)]

    def pop(self, client: str) -> str:
        """Take out the client's next job, which gets a worker now. KeyError if it has none."""
        loop = self.turns.loops[client].first()
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
            self.turns.loops[client].leave(loop)
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
            having = set(self.turns.loops[client].waiting())
            assert having == loops, f"a loop of {client} without waiting jobs has a turn"
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

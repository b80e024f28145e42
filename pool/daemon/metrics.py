"""The figures of a pool for the status and Prometheus: counters, durations, and the memory of each worker."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from itertools import compress
from operator import add, attrgetter
from pathlib import Path

import psutil

from pool import wire
from pool.core.events import Dispatch
from pool.daemon.durations import WINDOW, Clock, Durations, Tally
from pool.model import Outcome, StartKind

#: Kinds of residue that a worker reports.
RESIDUE = frozenset(
    {"processes", "files", "parked", "limits", "scheduling", "threads", "descriptors", "mounts", "ipc", "code"}
)

_start_of, _outcome_of = attrgetter("start"), attrgetter("outcome")
_queue_of, _run_of, _total_of = attrgetter("queue_ms"), attrgetter("run_ms"), attrgetter("total_ms")
_dispatch_of, _collect_of = attrgetter("dispatch_ms"), attrgetter("collect_ms")


class Metrics:
    """The counters of one pool since the daemon's start. A job only adds to `new_leases` and `new_ends`: `count` counts
    many of them at a time, and has to be called in time and before a figure is read.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.new_leases: list[Dispatch] = []
        #: When (monotonic seconds), how, and whether its worker has reported it, so that the overhead is known.
        self.new_ends: list[tuple[float, wire.Result, bool]] = []
        self._clock = clock
        self.outcomes: Counter[Outcome] = Counter()
        self.recycles: Counter[str] = Counter()
        self.residue: Counter[str] = Counter()  #: what jobs left, by kind
        self.retries = 0  #: dispatches of a job after its first one
        self.late_answers = 0  #: ignored: of an attempt that had ended or was given up
        self.leases: Counter[StartKind] = Counter()  #: by what the job found
        self.run, self.overhead, self.queue = Durations(clock), Durations(clock), Durations(clock)
        self._answered: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)  # when, total and queue in ms
        self._leases: deque[Dispatch] = deque(maxlen=WINDOW)
        self.starts, self.failed_starts = Tally(clock), Tally(clock)  #: of workers; with the reason of the failure
        self.lockdown_failures = Tally(clock)  #: workers that broke out of their own lockdown, and got no job

    def count_residue(self, words: str) -> None:
        """Count a job's residue, from "kind: ...; kind: ...". A worker sends the text, so only known kinds count."""
        for each in words.split("; "):
            kind = each.partition(":")[0]
            self.residue[kind if kind in RESIDUE else "other"] += 1

    def count(self) -> None:
        """Count what is new. Nearly all of it is done in C."""
        self.leases.update(map(_start_of, self.new_leases))
        self._leases += self.new_leases
        self.new_leases.clear()
        if not self.new_ends:
            return
        times, results, ran = zip(*self.new_ends, strict=True)
        self.new_ends.clear()
        self.outcomes.update(map(_outcome_of, results))
        self.queue.add(times, [*map(_queue_of, results)])
        answers, answered = [*compress(results, ran)], [*compress(times, ran)]
        self.run.add(answered, [*map(_run_of, answers)])
        self.overhead.add(answered, [*map(add, map(_dispatch_of, answers), map(_collect_of, answers))])
        self._answered += zip(answered, map(_total_of, answers), map(_queue_of, answers), strict=True)

    @property
    def arrivals(self) -> list[tuple[float, float]]:
        """The latest jobs that have run: the time of arrival of each, and the seconds that it had its worker."""
        return [(at - total_ms / 1000, (total_ms - queue_ms) / 1000) for at, total_ms, queue_ms in self._answered]

    @property
    def misses(self) -> int:
        """Jobs that waited for a container to start. The others have found a worker, idle or busy."""
        return self.leases[StartKind.COLD]

    def misses_within(self, window_s: float) -> tuple[int, int]:
        """The misses and the jobs of the last seconds, among the latest `WINDOW` jobs."""
        since = self._clock() - window_s
        found = [each.start is StartKind.COLD for each in self._leases if each.at >= since]
        return sum(found), len(found)

    @property
    def hit_rate(self) -> float | None:
        leases = self.leases.total()
        return round(1 - self.misses / leases, 4) if leases else None


# ---- a worker's memory ----

_CGROUPS = Path("/sys/fs/cgroup")


def worker_memory(pid: int | None, container: str | None) -> int | None:
    """Anonymous memory of its cgroup in bytes, else the sum over its processes, else None. `pid`: its first process."""
    if pid is None:
        return None
    return _of_cgroup(pid, container or "") or _of_processes(pid)


def _of_cgroup(pid: int, container: str) -> int | None:
    """From memory.stat of cgroup v2 (`anon`) or v1 (`total_rss`), if the cgroup is the container's own."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
        for _, controllers, path in (line.split(":", 2) for line in lines):
            if container and container in path and controllers in {"", "memory"}:
                name = "anon" if not controllers else "total_rss"
                stat = (_CGROUPS / controllers / path.lstrip("/") / "memory.stat").read_text(encoding="ascii")
                return next(int(line.split()[1]) for line in stat.splitlines() if line.startswith(f"{name} "))
    return None


def _of_processes(pid: int) -> int | None:
    """The sum over its processes. Shared pages count several times."""
    total = 0
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total or None

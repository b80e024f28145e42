"""The figures of a pool for the status and Prometheus: counters, durations, and the memory of each worker."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from pathlib import Path
from typing import NamedTuple

import psutil

from pool import wire
from pool.core.events import Dispatch
from pool.daemon.durations import WINDOW, Clock, Durations, Tally
from pool.model import Outcome, StartKind

#: Kinds of residue that a worker reports.
RESIDUE = frozenset(
    {"processes", "files", "parked", "limits", "scheduling", "threads", "descriptors", "mounts", "ipc", "code"}
)


class Ended(NamedTuple):
    at: float  #: monotonic seconds
    result: wire.Result
    ran: bool  #: its worker has reported the end, so that the overhead is known


class Metrics:
    """The counters of one pool since the daemon's start. A job only adds to `new_leases` and `new_ends`: `count` counts
    many of them at a time, and has to be called in time and before a figure is read.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.new_leases: list[Dispatch] = []
        self.new_ends: list[Ended] = []
        self._clock = clock
        self.outcomes: Counter[Outcome] = Counter()
        self.recycles: Counter[str] = Counter()
        self.residue: Counter[str] = Counter()  #: what jobs left, by kind
        self.retries = 0  #: dispatches of a job after its first one
        self.late_answers = 0  #: ignored: of an attempt that had ended or was given up
        self.leases: Counter[StartKind] = Counter()  #: by what the job found
        self.run, self.overhead, self.queue = Durations(clock), Durations(clock), Durations(clock)
        #: The latest jobs that have run: the time of arrival of each, and the seconds that it had its worker.
        self.arrivals: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._leases: deque[tuple[float, bool]] = deque(maxlen=WINDOW)  # when, and whether it was a miss
        self.starts, self.failed_starts = Tally(clock), Tally(clock)  #: of workers; with the reason of the failure
        self.lockdown_failures = Tally(clock)  #: workers that broke out of their own lockdown, and got no job

    def count_residue(self, words: str) -> None:
        """Count a job's residue, from "kind: ...; kind: ...". A worker sends the text, so only known kinds count."""
        for each in words.split("; "):
            kind = each.partition(":")[0]
            self.residue[kind if kind in RESIDUE else "other"] += 1

    def count(self) -> None:
        """Count what is new. A hit is a job that found a worker, idle or busy; a miss one that waited for a container
        to start.
        """
        leases, self.new_leases = self.new_leases, []
        self.retries += sum(each.attempt > 1 for each in leases)
        self.leases.update(each.start for each in leases)
        self._leases += [(each.at, each.start is StartKind.COLD) for each in leases]
        ends, self.new_ends = self.new_ends, []
        self.outcomes.update(each.result.outcome for each in ends)
        self.queue.add([(each.at, each.result.queue_ms) for each in ends])
        ran = [(each.at, each.result) for each in ends if each.ran]
        self.run.add([(at, result.run_ms) for at, result in ran])
        self.overhead.add([(at, result.dispatch_ms + result.collect_ms) for at, result in ran])
        self.arrivals += [
            (at - result.total_ms / 1000, (result.total_ms - result.queue_ms) / 1000) for at, result in ran
        ]

    @property
    def misses(self) -> int:
        return self.leases[StartKind.COLD]

    def misses_within(self, window_s: float) -> tuple[int, int]:
        """The misses and the jobs of the last seconds, among the latest `WINDOW` jobs."""
        since = self._clock() - window_s
        found = [miss for at, miss in self._leases if at >= since]
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

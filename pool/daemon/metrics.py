"""What the status shows of a pool in figures: counters, percentiles, and the memory of each worker."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from pathlib import Path

import psutil

from pool import wire
from pool.model import Outcome, StartKind
from pool.status import Percentiles

#: Jobs that percentiles are taken of, the last ones: enough for a p99, few enough to follow the load.
_WINDOW = 2048
#: Kinds of residue that a worker reports.
RESIDUE = frozenset(
    {"processes", "files", "parked", "limits", "scheduling", "threads", "descriptors", "mounts", "ipc", "code"}
)


def percentiles(samples: deque[float]) -> Percentiles | None:
    """p50, p95 and p99 by nearest rank; None without a sample."""
    if not samples:
        return None
    ordered = sorted(samples)
    last = len(ordered) - 1
    p50, p95, p99 = (round(ordered[round(last * share / 100)], 3) for share in (50, 95, 99))
    return Percentiles(p50=p50, p95=p95, p99=p99)


class Metrics:
    """What one pool has done since the daemon's start."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.recycles: Counter[str] = Counter()
        self.residue: Counter[str] = Counter()  #: what jobs left, by kind
        self.retries = 0  #: dispatches of a job after its first one
        self.late_answers = 0  #: ignored: of an attempt that had ended or was given up
        self._hits = 0
        self._leases = 0
        self._overhead_ms: deque[float] = deque(maxlen=_WINDOW)
        self._queue_ms: deque[float] = deque(maxlen=_WINDOW)

    def count_residue(self, words: str) -> None:
        """Count "kind: ...; kind: ...", what a job left; a worker says it, so the kinds are a closed set."""
        for each in words.split("; "):
            kind = each.partition(":")[0]
            self.residue[kind if kind in RESIDUE else "other"] += 1

    def leased(self, start: StartKind, *, again: bool = False) -> None:
        """A hit is a job that found an idle worker when it came."""
        self._leases += 1
        self.retries += again
        self._hits += start is not StartKind.COLD

    def ended(self, result: wire.Result, *, ran: bool) -> None:
        """`ran`: whether its worker has reported the end, so that the overhead is known."""
        self.outcomes[result.outcome] += 1
        self._queue_ms.append(result.queue_ms)
        if ran:
            self._overhead_ms.append(result.dispatch_ms + result.collect_ms)

    @property
    def hit_rate(self) -> float | None:
        return round(self._hits / self._leases, 4) if self._leases else None

    @property
    def overhead_ms(self) -> Percentiles | None:
        return percentiles(self._overhead_ms)

    @property
    def queue_ms(self) -> Percentiles | None:
        return percentiles(self._queue_ms)


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
    """Pages that processes share count several times."""
    total = 0
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total or None

"""What a job and all that it has started use together, from the counters of the worker's own cgroup.

The kernel's limits are for each process: a job of several could use so much several times over. One job runs in a
worker at a time, so what the cgroup counts beyond what it did before is the job's, but for the next child, which is
forked while it runs: hence the slack. Versions 1 and 2; where neither can be read each process still has its limit.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from pool import wire
from pool.model import Outcome
from runner.usage import Usage

#: How often to look while a job runs.
INTERVAL_S = 0.05
#: The next child: its fork and rehearsal, and the pages it makes its own.
_SLACK_CPU_S = 0.1
_SLACK_BYTES = 32 << 20

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Reading:
    """Of the whole worker."""

    cpu_s: float
    anonymous: int  #: bytes
    shared: int  #: bytes of shared memory, which is also what files in the scratch space are


def read(root: Path = _ROOT) -> Reading | None:
    """The counters now; None where they cannot be read."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        if (root / "cgroup.controllers").exists():
            stat = _table(root / "memory.stat")
            return Reading(_table(root / "cpu.stat")["usage_usec"] / 1e6, stat["anon"], stat["shmem"])
        stat = _table(root / "memory" / "memory.stat")
        used_ns = int((root / "cpuacct" / "cpuacct.usage").read_bytes())
        return Reading(used_ns / 1e9, stat["total_rss"], stat["total_shmem"])
    return None


def _table(path: Path) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in (line.split() for line in path.read_bytes().splitlines())}


class Meter:
    """Of one worker. `before` is taken while it is idle, off the path of any job."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        self.renew()

    def renew(self) -> None:
        """The worker is idle."""
        self._before = read(self._root)
        self._most_held = 0

    def excess(self, job: wire.Run) -> tuple[Outcome, str] | None:
        """Why the job has to end, if it has: the outcome, and the figures in words."""
        now = read(self._root) if self._before is not None else None
        if now is None or self._before is None:
            return None
        cpu_s = now.cpu_s - self._before.cpu_s
        shared = max(0, now.shared - self._before.shared - job.tmp)  # what fits into the scratch space is not memory
        held = now.anonymous - self._before.anonymous + shared
        self._most_held = max(self._most_held, held)
        if cpu_s > job.cpu_s + _SLACK_CPU_S:
            return Outcome.TIMEOUT, f"it and what it started used {cpu_s:.1f} s of CPU, its limit is {job.cpu_s:g} s"
        if held > job.memory + _SLACK_BYTES:
            return Outcome.MEMORY, f"it and what it started held {held} bytes of memory, its limit is {job.memory}"
        return None

    def used(self) -> Usage:
        """What the job and all that it started have used at the least: the next child may have had the slack of CPU
        time; what that holds is less than the preloaded pages, which count as the job's and are not in here.
        """
        now = read(self._root) if self._before is not None else None
        if now is None or self._before is None:
            return Usage()
        cpu_s = now.cpu_s - self._before.cpu_s - _SLACK_CPU_S
        return Usage(cpu_s=max(0.0, cpu_s), max_rss_bytes=self._most_held)

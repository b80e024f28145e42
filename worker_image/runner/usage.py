"""What a job has used, as the kernel counts it for a process that is still there."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
#: Fields of /proc/PID/stat after the command's name: utime, stime, and those of children that were waited for. proc(5).
_CPU_FIELDS = slice(11, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    cpu_s: float = 0.0
    max_rss_bytes: int = 0

    def __or__(self, other: Usage) -> Usage:
        """Two counts of the same job, neither of which is too high."""
        return Usage(cpu_s=max(self.cpu_s, other.cpu_s), max_rss_bytes=max(self.max_rss_bytes, other.max_rss_bytes))


def of(pid: int) -> Usage:
    """CPU time of the process, its threads and its reaped children, and its peak memory; zeros once it is gone.

    `stat` counts all of them in ticks of 10 ms, `schedstat` the first thread in nanoseconds: the larger one is true.
    """
    process = Path(f"/proc/{pid}")
    ticks, first_s, peak = 0, 0.0, 0
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        ticks = sum(map(int, (process / "stat").read_bytes().rpartition(b")")[2].split()[_CPU_FIELDS]))
        first_s = int((process / "schedstat").read_bytes().split()[0]) / 1e9
        lines = (process / "status").read_bytes().splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"VmHWM"))
    return Usage(cpu_s=max(ticks * _TICK_S, first_s), max_rss_bytes=peak)

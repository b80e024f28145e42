"""What a job has used: by one process, as /proc counts it, and by the whole worker, as its cgroup counts it.

The kernel's limits hold for each process, so a job of several processes could use its limit several times. One job runs
in a worker at a time; therefore what the cgroup counts beyond what it counted before is the job's, except for the next
child, which is forked while the job runs. The slack below covers that child. cgroup versions 1 and 2 are supported;
where neither can be read, only the limits of each process hold.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import time
from functools import partial
from pathlib import Path

from msgspec import Struct

from pool import wire
from pool.outcome import Outcome

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
#: Fields of /proc/PID/stat after the command's name: utime, stime, and those of children that were waited for. proc(5).
_CPU_FIELDS = slice(11, 15)
#: Of clock_getcpuclockid(3): the lowest bits of the number of the clock of a process.
_PROCESS_CLOCK = 2

#: How often the runner measures while a job runs.
INTERVAL_S = 0.05
#: What the fork of the next child may use.
_SLACK_CPU_S = 0.1
_SLACK_BYTES = 32 << 20
#: Kernel memory that is no job's fault: 24 forks of an interpreter with pandas take 9 MiB.
_FREE_KERNEL_BYTES = 64 << 20

_ROOT = Path("/sys/fs/cgroup")
_SOME_BYTES = 65536


def read_file(path: str) -> bytes:
    """The whole of a small file of /proc or of the cgroup file system. Raises OSError.

    Each job pays for it; pathlib would take twice as long.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(partial(os.read, fd, _SOME_BYTES), b""))
    finally:
        os.close(fd)


def _number(text: bytes, name: bytes) -> int:
    """The number that follows a name at the beginning of a line. Raises ValueError where there is none."""
    _, found, rest = (b"\n" + text).partition(b"\n" + name + b" ")
    if not found:
        raise ValueError(f"no line begins with {name.decode()}")
    return int(rest.partition(b"\n")[0])


class Usage(Struct, frozen=True, kw_only=True):
    cpu_s: float = 0.0
    max_rss_bytes: int = 0

    def __or__(self, other: Usage) -> Usage:
        """The larger of two counts of the same job; neither of them is too high."""
        return Usage(cpu_s=max(self.cpu_s, other.cpu_s), max_rss_bytes=max(self.max_rss_bytes, other.max_rss_bytes))


def of_process(pid: int) -> Usage:
    """CPU time of the process, its threads and the children it waited for, and its peak memory. Zeros once it is gone.

    `stat` counts all of them in ticks of 10 ms, the clock the process and its threads in ns. The larger one is used.
    """
    ticks, clock_s, peak = 0, 0.0, 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb", 0) as stat, open(f"/proc/{pid}/status", "rb", 0) as status:  # noqa: PTH123
            ticks = sum(map(int, stat.read(_SOME_BYTES).rpartition(b")")[2].split()[_CPU_FIELDS]))
            # From the beginning of a line: the first one has the name of the process, which may be any word.
            peak = int(status.read(_SOME_BYTES).partition(b"\nVmHWM:")[2].split(None, 1)[0]) * 1024
        clock_s = time.clock_gettime(~pid << 3 | _PROCESS_CLOCK)
    return Usage(cpu_s=max(ticks * _TICK_S, clock_s), max_rss_bytes=peak)


def data_bytes(pid: int) -> int:
    """Private and writable bytes of the process, which RLIMIT_DATA limits; 0 once it is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(read_file(f"/proc/{pid}/statm").split()[5]) * mmap.PAGESIZE
    return 0


class Reading(Struct, frozen=True):
    """The counters of the whole worker."""

    cpu_s: float
    anonymous: int  #: bytes
    shared: int  #: bytes of shared memory; files in the scratch space count as shared memory
    #: Bytes of page tables, maps, pipes and the like. 0 with cgroup version 1, whose count includes names of files that
    #: the kernel keeps as long as it has room.
    kernel: int = 0


class Counters:
    """The files in which the cgroup counts. They stay open, because each job reads them several times."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._unified = os.access(f"{root}/cgroup.controllers", os.F_OK)
        paths = ("memory.stat", "cpu.stat") if self._unified else ("memory/memory.stat", "cpuacct/cpuacct.usage")
        self._files = [_opened(f"{root}/{path}") for path in paths]

    def read(self) -> Reading | None:
        """The counters now, or None where they cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            memory, cpu = [os.pread(file, _SOME_BYTES, 0) for file in self._files]
            if self._unified:
                used_s = _number(cpu, b"usage_usec") / 1e6
                return Reading(used_s, _number(memory, b"anon"), _number(memory, b"shmem"), _of_kernel(memory))
            return Reading(int(cpu) / 1e9, _number(memory, b"total_rss"), _number(memory, b"total_shmem"))
        return None


def _of_kernel(memory: bytes) -> int:
    return _number(memory, b"kernel") - _number(memory, b"slab_reclaimable") if b"\nkernel " in memory else 0


def _opened(path: str) -> int:
    """-1 for a file that cannot be opened."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


@functools.cache
def _of_oom_kills() -> int:
    found = map(_opened, ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"))
    return next((file for file in found if file >= 0), -1)


def oom_kills() -> int:
    """How many processes the kernel has killed in this worker's memory cgroup; 0 where that cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return _number(os.pread(_of_oom_kills(), _SOME_BYTES, 0), b"oom_kill")
    return 0


class Meter:
    """Measures the jobs of one worker. `renew` is called while the worker is idle, so that it delays no job."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._counters = Counters(root)
        self.renew()

    def renew(self) -> None:
        """Start counting anew, for the next job."""
        self._before = self._counters.read()
        self._most_held = 0
        self._call, self._call_cpu_s = 0, self._before.cpu_s if self._before is not None else 0.0

    def excess(self, job: wire.Run, call: int = 0) -> tuple[Outcome, str] | None:
        """The outcome and the reason, if the job has to be ended for what it uses.

        CPU time is that of the present `call` of a chunk, from the first time that this is asked during the call.
        """
        now = self._counters.read() if self._before is not None else None
        if now is None or self._before is None:
            return None
        if call != self._call:
            self._call, self._call_cpu_s = call, now.cpu_s
        cpu_s = now.cpu_s - self._call_cpu_s
        shared = max(0, now.shared - self._before.shared - job.tmp)  # what fits into the scratch space is not memory
        kernel = max(0, now.kernel - self._before.kernel - _FREE_KERNEL_BYTES)
        held = now.anonymous - self._before.anonymous + shared + kernel
        self._most_held = max(self._most_held, held)
        if cpu_s > job.cpu_s + _SLACK_CPU_S:
            return Outcome.TIMEOUT, f"it and what it started used {cpu_s:.1f} s of CPU, its limit is {job.cpu_s:g} s"
        if held > job.memory + _SLACK_BYTES:
            return Outcome.MEMORY, f"it and what it started held {held} bytes of memory, its limit is {job.memory}"
        return None

    def used(self, call: int = 0) -> Usage:
        """A lower bound for what the job, or this call of a chunk, and all that it started used.

        The CPU slack is subtracted, for the next child may have used it. The preloaded pages count as the job's but
        are not included, and they are more than what the next child holds.
        """
        now = self._counters.read() if self._before is not None else None
        if now is None or self._before is None:
            return Usage()
        cpu_s = now.cpu_s - self._call_cpu_s - _SLACK_CPU_S if call == self._call else 0.0
        return Usage(cpu_s=max(0.0, cpu_s), max_rss_bytes=self._most_held)

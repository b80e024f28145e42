"""Frozen value types that all packages share. Imports only outcome, units and errors.

A *job* is what a loop asks for, an *outcome* is how it ended, a *worker* is one container. Times are seconds (`_s`) or
milliseconds (`_ms`) as float or, where they cross a process, CLOCK_MONOTONIC nanoseconds (`_ns`); sizes are bytes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from enum import StrEnum

from pool.errors import InvalidJobError
from pool.outcome import Finding, Outcome, StartKind
from pool.units import parse_size, plain_int, real

__all__ = [
    "Finding", "JobError", "JobResult", "JobState", "Limits", "Outcome", "OutputEvent", "StartKind", "Timings",
    "TraceStep", "Usage", "WorkerState",
]  # fmt: skip


class JobState(StrEnum):
    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    DONE = "done"


class WorkerState(StrEnum):
    FOUND = "found"  #: an earlier daemon has left it, and its runner has not proved itself yet
    STARTING = "starting"
    IDLE = "idle"
    LEASED = "leased"
    CLEANING = "cleaning"  #: cleans up after its job; the status counts it as leased
    SUSPECT = "suspect"
    DRAINING = "draining"
    STOPPING = "stopping"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a job. None is the template's default. No limit may be above the template's maximum.

    Sizes are bytes or text such as "512m", and are kept as bytes. Raises InvalidJobError for an impossible value.
    """

    wall_s: float | None = None  #: seconds from the start of the code to its end
    cpu_s: float | None = None  #: CPU seconds of the job and all that it starts
    memory: int | str | None = None  #: bytes, at least 1m, of the job and all that it starts, beyond what is preloaded
    tmp: int | str | None = None  #: bytes, at least 4k, of scratch space, /tmp and /dev/shm together
    output: int | str | None = None  #: bytes kept of stdout, and of stderr; the rest is counted and cut
    result: int | str | None = None  #: bytes of the encoded value and of the files together
    processes: int | None = None  #: processes and threads at the same time

    def __post_init__(self) -> None:
        for name in ("wall_s", "cpu_s"):
            object.__setattr__(self, name, _seconds_of(name, getattr(self, name)))
        for name in ("memory", "tmp", "output", "result"):
            object.__setattr__(self, name, _bytes_of(name, getattr(self, name)))
        object.__setattr__(self, "processes", _count_of("processes", self.processes))

    def items(self) -> list[tuple[str, float | int | None]]:
        """Name and value of each limit, in the order of the fields."""
        return [(each.name, getattr(self, each.name)) for each in fields(self)]


#: The least memory with which a job can run. A smaller number was probably meant in another unit.
_LEAST_BYTES = {"memory": 1 << 20, "tmp": 4096}


def _seconds_of(name: str, value: object) -> float | None:
    if value is None:
        return None
    if not 0 < real(value) < math.inf:
        raise InvalidJobError(f"limits.{name} must be a positive, finite number of seconds, got {value!r:.40}")
    return real(value)


def _count_of(name: str, value: object) -> int | None:
    if value is None:
        return None
    count = plain_int(value)
    if type(count) is not int or not 1 <= count <= 1_000_000:
        raise InvalidJobError(f"limits.{name} must be a whole number from 1 on, got {value!r:.40}")
    return count


def _bytes_of(name: str, value: int | str | None) -> int | None:
    if value is None:
        return None
    try:
        size = parse_size(value)
    except ValueError as error:
        raise InvalidJobError(f"limits.{name}: {error}") from None
    least = _LEAST_BYTES.get(name, 1)
    if size < least:
        meant = f'; for mebibytes write "{plain_int(value)}m"' if not isinstance(value, str) and size else ""
        raise InvalidJobError(f"limits.{name}: {value!r:.40} is {size} bytes, and the least is {least}{meant}")
    return size


_LINE = re.compile(r'File "<job>", line (\d+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """An exception that a job raised, as text: the child has formatted it, and it is never rebuilt as an object."""

    type: str
    message: str
    traceback: str = ""
    limit: str = ""  #: the limit that an OSError or a thread has met: tmp, tmp_inodes, nofile, processes or memory

    @property
    def in_words(self) -> str:
        """Type and message, and the innermost line of the code that the message does not name itself."""
        lines = _LINE.findall(self.traceback)
        named = not lines or self.message.endswith(f"(<job>, line {lines[-1]})")
        told = f"{self.type}: {self.message}" if self.message else self.type
        return told if named else f"{told} (line {lines[-1]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long each part of a job took, in milliseconds of one monotonic clock; the four parts add up to `total_ms`.

    queue: from its arrival at the daemon to its lease. dispatch: to the start of the code. run: to the end of the code.
    collect: until the daemon had the whole answer. grade: from then on until it had the grade; not part of the total.
    """

    queue_ms: float = 0.0
    dispatch_ms: float = 0.0
    run_ms: float = 0.0
    collect_ms: float = 0.0
    total_ms: float = 0.0
    grade_ms: float = 0.0

    @property
    def overhead_ms(self) -> float:
        """The total without the code itself and the wait for a worker."""
        return self.dispatch_ms + self.collect_ms


@dataclass(frozen=True, slots=True)
class TraceStep:
    """A step of a traced job, such as "daemon: accepted"."""

    step: str
    us: float  #: microseconds since the client sent the job


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the job and all processes that it started used, as the kernel counted it.

    The worker's cgroup counts the processes that the job did not wait for: their CPU time except for 0.1 s, and their
    memory at samples every 50 ms.
    """

    cpu_s: float = 0.0
    max_rss_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputEvent:
    """A piece of a running job's output. It has whole characters, but a line may come in several pieces."""

    stream: str  #: "stdout" or "stderr"
    text: str
    offset: int  #: bytes of that stream before this piece


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """How a job ended and what it returned. If the pool fails instead, it raises an exception from `pool.errors`."""

    job_id: str
    outcome: Outcome
    reason: str = ""  #: one sentence; for ok empty, or a hint why there may be no value
    value: object = None  #: what `entry` returned, or the script's variable `result`
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = 0  #: bytes the job wrote, kept or not
    stderr_bytes: int = 0
    error: JobError | None = None  #: for outcome error
    findings: tuple[Finding, ...] = ()  #: for outcome rejected: what the screen refuses in the code
    files: dict[str, bytes] = field(default_factory=dict)  #: the files in $OUTPUT_DIR, by relative path with "/"
    exit_code: int | None = None
    signal: int | None = None
    truncated: tuple[str, ...] = ()  #: which of stdout and stderr were cut at the limit
    timings: Timings = field(default_factory=Timings)
    usage: Usage = field(default_factory=Usage)
    worker: str | None = None  #: the worker that ran it; None if none did
    container: str | None = None  #: that worker's container id
    attempt: int = 0  #: how many attempts it had, this one included; more than 1 only with `retries`
    start: StartKind | None = None
    fallback: bool = False
    grade: object = None  #: what the grader returned, if one was given and the outcome is ok
    grade_error: JobError | None = None  #: why there is no grade although a grader was given
    trace: tuple[TraceStep, ...] = ()  #: with the option `trace`: each step, from the client to the child and back

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def explanation(self) -> str:
        """What is wrong, for the author of the code: its exception and line, what the screen found, or the reason."""
        if self.ok:
            return ""
        if self.findings:
            return "; ".join(map(str, self.findings))
        if self.outcome in {Outcome.ERROR, Outcome.REJECTED} and self.error is not None:
            return self.error.in_words
        return self.reason or f"it ended {self.outcome}"

"""Frozen value types that every room shares. A leaf: it imports nothing but units and errors.

A *job* is what a loop asks for, an *outcome* is how it ended, a *worker* is one container. Times are seconds (`_s`) or
milliseconds (`_ms`) as float or, where they cross a process, CLOCK_MONOTONIC nanoseconds (`_ns`); sizes are bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from enum import StrEnum

from pool.errors import InvalidJobError
from pool.units import parse_size, plain_int, real


class Outcome(StrEnum):
    """How a job ended. Closed: every job ends in exactly one of these."""

    OK = "ok"  #: it ran to its end
    ERROR = "error"  #: the code raised, did not compile, has no such entry, or returned what cannot be carried
    TIMEOUT = "timeout"  #: over its wall, CPU or queue time; everything it started is gone
    MEMORY = "memory"  #: over its memory
    OUTPUT = "output"  #: its result is over the cap
    CRASH = "crash"  #: the process died without an answer: signal, os._exit, closed channel
    REJECTED = "rejected"  #: the screen refused the code, or it had cost too many workers; it did not run
    CANCELLED = "cancelled"  #: its submitter cancelled it
    LOST = "lost"  #: the worker vanished after dispatch and the effect is unknown; never retried silently


class JobState(StrEnum):
    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    DONE = "done"


class WorkerState(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    LEASED = "leased"
    CLEANING = "cleaning"  #: cleans up after its job; the status counts it as leased
    SUSPECT = "suspect"
    DRAINING = "draining"
    STOPPING = "stopping"
    GONE = "gone"


class StartKind(StrEnum):
    """What a job found when it came: the vocabulary of the hit rate."""

    PARKED = "parked"  #: an idle worker with a child forked ahead
    WARM = "warm"  #: a worker that was at work: the job waited for another one, or for what comes after it
    COLD = "cold"  #: the job waited for a container to start


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a job may use. None means the template's default; a job may ask for less, never for more than the maximum.

    Sizes take bytes or text such as "512m" and are kept as bytes. Raises InvalidJobError for what makes no sense.
    """

    wall_s: float | None = None  #: seconds from the start of the code to its end
    cpu_s: float | None = None  #: CPU seconds of the job and all that it starts
    memory: int | str | None = None  #: bytes of memory of the job and all that it starts, beyond what is preloaded
    tmp: int | str | None = None  #: bytes of scratch space, /tmp and /dev/shm together
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
    if size == 0:
        raise InvalidJobError(f"limits.{name} must be more than 0 bytes")
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """An exception of a job, as data: it was formatted inside the child and never becomes an object here."""

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing the screen has against a program: where it is, why, and what to do instead."""

    rule: str  #: such as "S101"; stable, so that a policy and a statistic can name it
    line: int  #: from 1
    column: int  #: from 1, in characters
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column} {self.rule} {self.reason}; {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of a job went, in milliseconds on one monotonic clock; the four parts add up to `total_ms`.

    queue: received by the daemon until a worker was leased. dispatch: until the code started. run: the code itself.
    collect: its end until the daemon had the whole answer.
    """

    queue_ms: float = 0.0
    dispatch_ms: float = 0.0
    run_ms: float = 0.0
    collect_ms: float = 0.0
    total_ms: float = 0.0

    @property
    def overhead_ms(self) -> float:
        """All but the code and the wait for a free worker."""
        return self.dispatch_ms + self.collect_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the job and all that it started used, as the kernel counted it.

    Processes that it did not wait for count by the worker's cgroup: but for a tenth of a second of CPU, and what they
    held when it was looked at, every 50 ms.
    """

    cpu_s: float = 0.0
    max_rss_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputEvent:
    """A piece of what a job prints, as it came. Whole characters; a line may come in several pieces."""

    stream: str  #: "stdout" or "stderr"
    text: str
    offset: int  #: bytes of that stream before it


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """The one answer to a job. A job that fails is a result; a pool that fails is an exception from `pool.errors`."""

    job_id: str
    outcome: Outcome
    reason: str = ""  #: one sentence, empty for ok
    value: object = None  #: what `entry` returned, or the script's variable `result`
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = 0  #: bytes the job wrote, kept or not
    stderr_bytes: int = 0
    error: JobError | None = None  #: for outcome error
    findings: tuple[Finding, ...] = ()  #: for outcome rejected: what the screen has against the code
    files: dict[str, bytes] = field(default_factory=dict)  #: what it left in $OUTPUT_DIR, by relative path with "/"
    exit_code: int | None = None
    signal: int | None = None
    truncated: tuple[str, ...] = ()  #: which of stdout and stderr were cut at their cap
    timings: Timings = field(default_factory=Timings)
    usage: Usage = field(default_factory=Usage)
    worker: str | None = None  #: the worker that ran it; None if none did
    container: str | None = None  #: that worker's container id
    attempt: int = 0
    start: StartKind | None = None
    fallback: bool = False

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

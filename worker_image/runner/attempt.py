"""One attempt as the runner sees it: a child, its streams, its deadline, and its answer once it is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pool import wire
from pool.model import Outcome
from runner import channel, report, usage
from runner.channel import ChannelError, Collector
from runner.meter import INTERVAL_S, Meter
from runner.verdict import Evidence, Verdict, decide

#: How long the hand-over of a job may take; the parked child only has to read.
_HAND_OVER_S = 30.0
#: The error frame and the report, on top of the job's own result limit.
_ANSWER_MARGIN_BYTES = 1024 * 1024
_READ_BYTES = 65536
#: Reads from one stream before the others get their turn; a job that floods stdout must not hold up its own deadline.
_READS_PER_TURN = 16
#: What a pipe can hold at the most, 1 MiB, and as much again: what a job has started may go on to fill it meanwhile.
_LAST_READS = 32


@dataclass(slots=True)
class Child:
    """A forked child, parked once `ready`. Descriptors are owned here."""

    id: int  #: by which the zygote knows it
    sock: socket.socket
    out: int
    err: int
    pidfd: int | None = None  #: None where the kernel has none; then `id` is its pid here too
    init: int | None = None  #: pidfd of process 1 of its pid namespace
    ready: bool = field(default=False, init=False)
    pids: tuple[int, ...] = field(init=False)  #: as this process sees them: its own and its init's

    def __post_init__(self) -> None:
        self.pids = tuple(_pid_of(fd) for fd in (self.pidfd, self.init) if fd is not None) or (self.id,)

    @property
    def pid(self) -> int:
        return self.pids[0]

    def kill(self) -> None:
        """With its init goes everything that the job has started."""
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd is None:
                os.kill(self.id, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(self.init or self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        self.sock.close()
        for fd in (self.out, self.err, self.pidfd, self.init):
            if fd is not None:
                os.close(fd)


def _pid_of(pidfd: int) -> int:
    """The pid here of a process that was forked in another pid namespace; -1 once it is gone."""
    with Path(f"/proc/self/fdinfo/{pidfd}").open("rb") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(b"Pid:"))


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended, as the zygote's wait4 had it."""

    id: int
    status: int
    cpu_s: float
    max_rss_bytes: int


class Stream:
    """A captured output stream: the first `cap` bytes are kept, the rest is counted and dropped."""

    def __init__(self, fd: int, cap: int) -> None:
        self.fd = fd
        self.kept = bytearray()
        self.total = 0
        self.open = True
        self._cap = cap
        os.set_blocking(fd, False)

    def drain(self) -> bool:
        """Take what is there; False when nothing more is to be had now."""
        try:
            chunk = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return False
        self.open = bool(chunk)
        self.total += len(chunk)
        self.kept += chunk[: self._cap - len(self.kept)]
        return self.open

    @property
    def cut(self) -> bool:
        return self.total > len(self.kept)


class Attempt:
    """From the hand-over to the answer."""

    def __init__(
        self, job: wire.Run, child: Child, payload: Sequence[channel.Frame], *, meter: Meter | None = None
    ) -> None:
        self.job = job
        self.child = child
        self._meter = meter
        self.killed_for: Outcome | None = None
        self.killed_because = ""
        self.answered = False
        self._garbage = ""
        self._oom_before = oom_kills()
        self._collector = Collector(child.sock, max_bytes=job.result + _ANSWER_MARGIN_BYTES, max_frames=wire.MAX_FRAMES)
        self.out = Stream(child.out, job.output)
        self.err = Stream(child.err, job.output)
        self._handed_ns = time.monotonic_ns()
        self.deadline = time.monotonic() + job.wall_s
        self._hand_over(payload)

    def _hand_over(self, payload: Sequence[channel.Frame]) -> None:
        self.child.sock.settimeout(_HAND_OVER_S)
        with contextlib.suppress(OSError):  # a child that died meanwhile is seen by its exit
            channel.send(self.child.sock, [wire.encode(self.job)[1], *payload])
        self.child.sock.setblocking(False)

    def descriptors(self) -> list[int]:
        """Those that still have something to say."""
        if self.answered:
            return []
        open_ones = [stream.fd for stream in (self.out, self.err) if stream.open]
        if not self._collector.closed and self._collector.frames is None and not self._garbage:
            open_ones.append(self.child.sock.fileno())
        return open_ones

    def readable(self, fd: int) -> None:
        """Take what one descriptor has."""
        if fd == self.child.sock.fileno():
            self._collect()
            return
        stream = self.out if fd == self.out.fd else self.err
        for _ in range(_READS_PER_TURN):
            if not stream.drain():
                break

    def _collect(self) -> None:
        try:
            self._collector.feed()
        except ChannelError as error:
            self._reject(str(error))
        else:
            if self._collector.frames is not None and self._claim() is None:
                self._reject("it does not begin with a report")

    def _reject(self, why: str) -> None:
        self._garbage = f"after an answer that is not one ({why})"
        self.kill(Outcome.OUTPUT if self._collector.over_cap else None)

    def kill(self, why: Outcome | None, because: str = "") -> None:
        """End the child; the first reason stands."""
        if self.killed_for is None:
            self.killed_for, self.killed_because = why, because
        self.child.kill()

    def starved(self) -> tuple[Outcome, str] | None:
        """The kernel has killed a process of the job for want of memory: also if it was none that the job waits for."""
        if oom_kills() == self._oom_before:
            return None
        return Outcome.MEMORY, "the worker ran out of memory and the kernel killed a process of the job"

    @property
    def running(self) -> bool:
        """Whether its deadline still counts."""
        return not self.answered and self.killed_for is None

    @property
    def complete(self) -> bool:
        """Whether the child has said all it had to say, and may be answered for and ended."""
        return self.running and self._claim() is not None

    def answer(self) -> tuple[wire.Done, list[channel.Frame]]:
        """The answer of a child that waits for its end; what it has used is read while it is there to be asked."""
        self.answered = True
        self._drain_all()
        return self._done(usage.of(self.child.pid), Verdict.of(self.job, self._claim()))

    def conclude(self, end: Exit) -> tuple[wire.Done, list[channel.Frame]]:
        """The answer for a child that is gone, and all it had started with it."""
        self._drain_all()
        used = usage.Usage(cpu_s=end.cpu_s, max_rss_bytes=end.max_rss_bytes)
        return self._done(used, decide(self.job, self._evidence(end)))

    def _claim(self) -> report.Report | None:
        """What the child says of itself, if it says it in the proper form."""
        frames = self._collector.frames
        return report.read(frames) if frames is not None else None

    def _done(self, used: usage.Usage, verdict: Verdict) -> tuple[wire.Done, list[channel.Frame]]:
        claim = None if self.killed_for else self._claim()
        started_ns, ended_ns = self._stamps(claim)
        used |= self._used_together()
        error, names, contents, value = self._parts(claim)
        done = wire.Done(
            job_id=self.job.job_id,
            epoch=self.job.epoch,
            outcome=verdict.outcome,
            reason=verdict.reason,
            files=names,
            exit_code=verdict.exit_code,
            signal=verdict.signal,
            truncated=tuple(name for name, each in (("stdout", self.out), ("stderr", self.err)) if each.cut),
            stdout_bytes=self.out.total,
            stderr_bytes=self.err.total,
            started_ns=started_ns,
            ended_ns=ended_ns,
            cpu_s=used.cpu_s,
            max_rss_bytes=used.max_rss_bytes,
        )
        return done, [self.out.kept, self.err.kept, error, *contents, *value]

    def _used_together(self) -> usage.Usage:
        """By all that the job has started, also what nobody has waited for. What is over at once cannot be much."""
        long = time.monotonic_ns() - self._handed_ns > INTERVAL_S * 1e9
        return self._meter.used() if self._meter is not None and long else usage.Usage()

    def _parts(
        self, claim: report.Report | None
    ) -> tuple[channel.Frame, tuple[str, ...], Sequence[channel.Frame], Sequence[channel.Frame]]:
        """Error, names and contents of files, and value, of the frames of the answer."""
        if claim is None:
            return b"", (), (), ()
        error, *rest = (self._collector.frames or [])[1:]
        end = 2 * claim.files
        return error, report.names(rest[0:end:2]), rest[1:end:2], rest[end:]

    def _evidence(self, end: Exit) -> Evidence:
        return Evidence(
            killed_for=self.killed_for,
            killed_because=self.killed_because,
            status=end.status,
            cpu_s=end.cpu_s,
            oom_kills=oom_kills() - self._oom_before,
            report=self._claim(),
            garbage=self._garbage,
        )

    def _drain_all(self) -> None:
        for stream in (self.out, self.err):
            for _ in range(_LAST_READS):
                if not (stream.open and stream.drain()):
                    break
        if not self._garbage:
            self._collect()

    def _stamps(self, claim: report.Report | None) -> tuple[int, int]:
        """The child's stamps as far as they can be true: between the hand-over and now, in order."""
        now = time.monotonic_ns()
        if claim is None:
            return self._handed_ns, now
        started = min(max(claim.started_ns, self._handed_ns), now)
        return started, min(max(claim.ended_ns, started), now)


def oom_kills() -> int:
    """Processes the kernel has killed in this worker's memory cgroup, of either version; 0 where it cannot be read."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError), Path(path).open(encoding="ascii") as lines:
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0

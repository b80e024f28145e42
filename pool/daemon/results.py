"""The end of a job: its Result is built, written, kept, and sent to the clients that wait for it.

Done ──check──▶ from_worker ──┐
no answer ──▶ without_answer ─┴─▶ Endings.end ──▶ journal ──▶ JobStore.finish ──▶ Result to each waiting client
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pool import wire
from pool.config import TemplateLimits
from pool.core.events import Finish
from pool.daemon.job_store import Job, JobStore
from pool.daemon.journal import Journal
from pool.daemon.journal_entries import Collect, Drop, End
from pool.daemon.zmtp import ClientListener
from pool.errors import PoolError, RemoteProtocolError
from pool.model import Outcome

_encoder = msgspec.msgpack.Encoder()
#: stdout, stderr and error come before the files.
FIXED_FRAMES = 3
_NS_PER_MS = 1e6
_NS_PER_S = 1e9
#: CPU seconds that a child may have used before it got its job: it runs warm-up jobs before it parks.
_CPU_BEFORE_S = 1.0
#: Asking for it opens a file of /sys.
_CORES = os.cpu_count() or 1
#: The steps of `wire.Done.steps_ns`, and those of its other stamps.
_STEPS = ("runner: received", "runner: passed to the child", "runner: answer complete")
_STREAMS = frozenset({"stdout", "stderr"})
#: How often results are dropped whose time is over, and it is noted which results were sent: a daemon that ends before
#: that keeps them for longer.
_TIDY_S = 1.0


def largest_answer(limits: TemplateLimits) -> int:
    """Bytes that an honest Done can have: two streams, an error, and the value."""
    return 2 * limits.output + limits.result + 2 * wire.MAX_CODE_BYTES


def check(done: wire.Done, payload: Sequence[wire.Frame], *, largest: int) -> None:
    """Raise RemoteProtocolError for an answer that an honest worker does not give. That of a chunk may be larger; the
    link bounds what comes from a worker that has none.
    """
    if done.outcome is Outcome.LOST:
        raise RemoteProtocolError("a worker cannot report the outcome lost")
    if not all(map(wire.is_relative_name, done.files)) or len(set(done.files)) < len(done.files):
        raise RemoteProtocolError("the file names of an answer must be different, plain, relative names")
    codes_exist = 0 <= (done.exit_code or 0) <= 255 and 0 <= (done.signal or 0) <= signal.NSIG
    if not codes_exist or not _STREAMS.issuperset(done.truncated):
        raise RemoteProtocolError("an answer has an exit code, a signal or a stream that does not exist")
    if len(payload) < FIXED_FRAMES + len(done.files):
        raise RemoteProtocolError("an answer must have stdout, stderr, error and the files that it names")
    size = sum(memoryview(frame).nbytes for frame in payload)
    if size > largest * (wire.CHUNK_ANSWERS if done.calls else 1):
        raise RemoteProtocolError(f"an answer has {size} bytes, the pool's limits allow {largest}")


def from_worker(
    job: Job,
    command: Finish,
    done: wire.Done,
    payload: Sequence[wire.Frame],
    *,
    container: str | None,
    memory_bytes: int,
) -> tuple[wire.Result, Sequence[wire.Frame]]:
    """The result as the worker reported it, with its figures limited to what is possible: times are in order and not
    in the future, and no job uses more CPU time than the host has or more memory than its container.
    """
    since_lease_s = (time.monotonic_ns() - job.leased_ns) / _NS_PER_S
    if job.trace is not None:
        job.trace += _steps(job, done)
        job.mark("daemon: answer received")
    reported = {name: getattr(done, name) for name in wire.EndFields.__struct_fields__}
    reported["cpu_s"] = min(done.cpu_s, _CPU_BEFORE_S + since_lease_s * _CORES)
    reported["max_rss_bytes"] = min(done.max_rss_bytes, memory_bytes)
    result = wire.Result(
        worker=command.worker_id,
        container=container,
        attempt=command.attempt,
        start=job.start,
        calls=done.calls,
        **reported,
        **_timings(job, done.started_ns, done.ended_ns),
    )
    return result, payload


def _steps(job: Job, done: wire.Done) -> list[tuple[str, int]]:
    """Of the worker, in the order of time; none of them before its lease or in the future."""
    stamps = [*zip(_STEPS, done.steps_ns, strict=False)]
    stamps += [("child: code begins", done.started_ns), ("child: code ended", done.ended_ns)]
    now = time.monotonic_ns()
    limited = [(step, min(max(at_ns, job.leased_ns), now)) for step, at_ns in stamps]
    return sorted(limited, key=lambda stamp: stamp[1])


def without_answer(job: Job, command: Finish, *, container: str | None) -> tuple[wire.Result, Sequence[wire.Frame]]:
    """The result of a job that no worker has answered: it waited, or its worker is gone. Its output is what the worker
    had sent of it, if a client was reading.
    """
    now = time.monotonic_ns()
    stdout, stderr = job.output.frames if job.output is not None else (b"", b"")
    dispatched = command.worker_id is not None
    result = wire.Result(
        job_id=job.key.partition("/")[2],
        outcome=command.outcome,
        reason=command.reason[:4096],
        stdout_bytes=len(stdout),
        stderr_bytes=len(stderr),
        worker=command.worker_id,
        container=container if dispatched else None,
        attempt=command.attempt,
        start=job.start,
        **_timings(job, now if command.started_at is None else int(command.started_at * _NS_PER_S), now),
    )
    return result, (stdout, stderr, b"")


def _timings(job: Job, started_ns: int, ended_ns: int) -> dict[str, Any]:
    now = time.monotonic_ns()
    leased = job.leased_ns or now
    started = min(max(started_ns, leased), now)
    ended = min(max(ended_ns, started), now)
    return {
        "queue_ms": (leased - job.received_ns) / _NS_PER_MS,
        "dispatch_ms": (started - leased) / _NS_PER_MS,
        "run_ms": (ended - started) / _NS_PER_MS,
        "collect_ms": (now - ended) / _NS_PER_MS,
        "total_ms": (now - job.received_ns) / _NS_PER_MS,
    }


class Endings:
    """Called from the loop's thread. Each job has one end."""

    def __init__(self, journal: Journal, jobs: JobStore, listener: ClientListener) -> None:
        self._journal = journal
        self._jobs = jobs
        self._listener = listener
        self._collected: list[int] = []  # numbers of results that were sent since the last Collect
        self.tidy_at = 0.0  #: monotonic seconds

    def end(
        self,
        job: Job,
        result: wire.Result,
        answer: Sequence[wire.Frame],
        acknowledge: Callable[[], object] | None = None,
    ) -> None:
        """The job has ended like this. `acknowledge` is called when that is written."""

        def written(_: PoolError | None) -> None:
            if acknowledge is not None:
                acknowledge()
            if job.trace is not None:
                job.mark("journal: result written")
            if job.refused is None:
                for address in self._jobs.finish(job, result, answer, now=time.monotonic()):
                    self.send(address, job)

        self._journal.write(End(job.number, _encoder.encode(result), answer, time.monotonic()), written)

    def send(self, address: bytes, job: Job) -> None:
        """Send a client the result of a job that has ended."""
        assert job.result is not None, "the job has ended"
        result = job.result if job.trace is None else self._traced(job, job.result)
        if self._listener.send(address, result, job.answer) and not job.collected:
            job.collected = True
            self._collected.append(job.number)

    def _traced(self, job: Job, result: wire.Result) -> wire.Result:
        """With the steps so far. The first time it is sent is one of them."""
        if not job.collected:
            job.mark("daemon: result sent")
        return msgspec.structs.replace(result, trace=tuple(job.trace or ()))

    def tidy(self, now: float) -> None:
        """Drop the results that need not be kept any longer, and note which ones were sent to a client.

        To be called at `tidy_at`, and while the store is over its bound.
        """
        if now >= self.tidy_at:
            self.tidy_at = now + _TIDY_S
            if self._collected:
                self._journal.write(Collect(self._collected), lambda _: None)
                self._collected = []
        for job in self._jobs.expire(now):
            self.drop(job.number)

    def drop(self, number: int) -> None:
        """Nothing of this job is kept in the journal."""
        self._journal.write(Drop(number), lambda _: None)

"""The Result of a job, from what its worker said or from the core's word alone. Pure."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from pool import wire
from pool.core.events import Finish
from pool.daemon.ledger import Entry
from pool.errors import RemoteProtocolError
from pool.model import Outcome

_NS_PER_MS = 1e6
_NS_PER_S = 1e9
#: What a child may have used before its job came: it rehearses while it is parked.
_CPU_BEFORE_S = 1.0
_STREAMS = frozenset({"stdout", "stderr"})


def check(done: wire.Done, payload: Sequence[wire.Frame], *, largest: int) -> None:
    """Raise RemoteProtocolError for what no honest worker says."""
    if done.outcome is Outcome.LOST:
        raise RemoteProtocolError("a worker cannot say that it is lost")
    if not all(map(wire.is_relative_name, done.files)) or len(set(done.files)) < len(done.files):
        raise RemoteProtocolError("an answer names a file that is no plain file name")
    if not (_fits(done.exit_code, 255) and _fits(done.signal, signal.NSIG) and _STREAMS.issuperset(done.truncated)):
        raise RemoteProtocolError("an answer has an exit code, a signal or a stream that there is not")
    if len(payload) < 3 + len(done.files):
        raise RemoteProtocolError("an answer has stdout, stderr, error and the files it names")
    size = sum(memoryview(frame).nbytes for frame in payload)
    if size > largest:
        raise RemoteProtocolError(f"an answer of {size} bytes is more than any job here may give")


def _fits(number: int | None, largest: int) -> bool:
    return number is None or 0 <= number <= largest


def from_worker(
    entry: Entry, done: wire.Done, payload: Sequence[wire.Frame], *, container: str | None, memory_bytes: int
) -> tuple[wire.Result, Sequence[wire.Frame]]:
    """What the worker said, as far as it can be: times are on our clock and in order, and nobody uses more processors
    than the host has or more memory than the container.
    """
    since_lease_s = (time.monotonic_ns() - entry.leased_ns) / _NS_PER_S
    result = wire.Result(
        job_id=done.job_id,
        outcome=done.outcome,
        reason=done.reason,
        files=done.files,
        exit_code=done.exit_code,
        signal=done.signal,
        truncated=done.truncated,
        stdout_bytes=done.stdout_bytes,
        stderr_bytes=done.stderr_bytes,
        cpu_s=min(done.cpu_s, _CPU_BEFORE_S + since_lease_s * (os.cpu_count() or 1)),
        max_rss_bytes=min(done.max_rss_bytes, memory_bytes),
        worker=entry.worker,
        container=container,
        attempt=entry.attempt,
        start=entry.start,
        **_timings(entry, done.started_ns, done.ended_ns),
    )
    return result, payload


def without_run(entry: Entry, command: Finish, *, container: str | None) -> tuple[wire.Result, Sequence[wire.Frame]]:
    """For a job that no worker has answered: it waited, was cancelled, or its worker is gone. What it had printed is
    known if somebody was reading it.
    """
    now = time.monotonic_ns()
    stdout, stderr = entry.tape.frames if entry.tape is not None else (b"", b"")
    dispatched = command.worker_id is not None
    result = wire.Result(
        job_id=entry.key.partition("/")[2],
        outcome=command.outcome,
        reason=command.reason[:4096],
        stdout_bytes=len(stdout),
        stderr_bytes=len(stderr),
        worker=command.worker_id,
        container=container if dispatched else None,
        attempt=command.attempt,
        start=entry.start,
        **_timings(entry, now if command.started_at is None else int(command.started_at * _NS_PER_S), now),
    )
    return result, (stdout, stderr, b"")


def _timings(entry: Entry, started_ns: int, ended_ns: int) -> dict[str, Any]:
    now = time.monotonic_ns()
    leased = entry.leased_ns or now
    started = min(max(started_ns, leased), now)
    ended = min(max(ended_ns, started), now)
    return {
        "queue_ms": (leased - entry.received_ns) / _NS_PER_MS,
        "dispatch_ms": (started - leased) / _NS_PER_MS,
        "run_ms": (ended - started) / _NS_PER_MS,
        "collect_ms": (now - ended) / _NS_PER_MS,
        "total_ms": (now - entry.received_ns) / _NS_PER_MS,
    }

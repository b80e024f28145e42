"""Accepted jobs, their state in the journal, and the results while they are kept. It decides nothing.

    accept ──▶ journal ──▶ the calls that wait for it              end ──▶ journal ──▶ Result to each client that waits

The key of a job is its submitter and its id, so that no client can see, or collide with, another client's jobs. Results
are kept for `ttl_s`, and up to `max_bytes` in all: beyond that, those that were sent to a client are dropped, oldest
first. While those that were not sent to any are too many, the store is full and takes no new jobs.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Protocol

import msgspec

from pool import wire
from pool.daemon.job import JOB_BYTES, Job
from pool.daemon.journal import Journal, Then
from pool.daemon.journal_entries import KNOWN_SINCE, Accept, Collect, Drop, End, LeaseRow, SetFact
from pool.daemon.journal_file import INLINE_BYTES
from pool.daemon.zmtp import ClientListener
from pool.errors import PoolError, StorageFullError
from pool.units import format_size

_NS_PER_S = 1e9
#: By how much `known_since_ns` is set forward at a time.
_KNOWN_STEP_NS = 10_000_000_000
#: When a client that was refused because of the results that are kept may try again.
_RETRY_S = 5.0
#: How often results are dropped whose time is over, and it is noted which results were sent: a daemon that ends before
#: that keeps them for longer.
_TIDY_S = 1.0
#: How long Accepted of a job that runs waits for its Result. Most jobs end sooner: then both are one write, which wakes
#: the client once.
HOLD_S = 0.05
#: The payload of a job that has ended is taken out of its row if it is larger.
_SMALL_PAYLOAD_BYTES = 1024


_encoder = msgspec.msgpack.Encoder()


class _End(Protocol):
    """Called when a job has ended like this. Each job has one end. `acknowledge` is called when that is written."""

    def __call__(
        self,
        job: Job,
        result: wire.Result,
        answer: Sequence[wire.Frame],
        acknowledge: Callable[[], object] | None = None,
    ) -> None: ...


class JobStore:
    """Jobs by key; the finished ones also in the order in which they ended. Called from the loop's thread."""

    def __init__(
        self,
        journal: Journal,
        listener: ClientListener,
        *,
        ttl_s: float,
        max_bytes: int,
        known_since_ns: int | None = None,
    ) -> None:
        """`listener`: sends the results. `known_since_ns`: that of the last daemon; None if it is not known."""
        self._journal = journal
        self._listener = listener
        self._collected: list[int] = []  # numbers of results that were sent since the last Collect
        self.tidy_at = 0.0  #: monotonic seconds
        #: Each job that was received later than this (CLOCK_MONOTONIC) and accepted is in the store.
        self.known_since_ns = time.monotonic_ns() if known_since_ns is None else known_since_ns
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._jobs: dict[str, Job] = {}
        self.by_key: Mapping[str, Job] = MappingProxyType(self._jobs)
        self._finished: OrderedDict[str, Job] = OrderedDict()
        self._result_bytes = 0
        self._bytes_of: defaultdict[str, int] = defaultdict(int)  # the same by client
        self.over = False  #: whether the results take more than they may
        self.to_answer: list[Callable[[], None]] = []  #: what `answer` has to do
        self.release_at = math.inf  #: monotonic seconds
        self._held: dict[str, Job] = {}  # those that may end soon, the oldest first
        self.end: _End = self._write_end if journal.durable else self._ended
        self._number = 0  # of the job that was accepted last
        self.unfinished_bytes: Counter[str] = Counter()  #: held by the jobs that are not done, by client

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def require_room(self, client: str) -> None:
        """While the store is `over`. Raises StorageFullError for a client whose results take over an equal share."""
        mine = self._bytes_of.get(client, 0)
        if mine > self._max_bytes / len(self._bytes_of):
            raise StorageFullError(
                f"the results that nobody has collected take {format_size(self._result_bytes)}, of which yours take "
                f"{format_size(mine)}, and all together may take {format_size(self._max_bytes)}; collect them with "
                "result(job_id), or raise daemon.result_bytes",
                retry_after_s=_RETRY_S,
            )

    def accept(self, job: Job, lease: LeaseRow | None, then: Then) -> None:
        """Keep a new job, give it its number and write it, with the lease that it has already. `then` is called when it
        is written, or with the reason why it cannot be; there is no such job then.
        """
        self._number = job.number = self._number + 1
        self.unfinished_bytes[job.client] += job.held_bytes
        self._jobs[job.key] = job
        if job.leased_ns and job.whole is None:
            job.held_until, self._held[job.key] = time.monotonic() + HOLD_S, job
            self.release_at = min(self.release_at, job.held_until)
        if job.whole is not None or not self._journal.durable:  # the whole is in the journal, or there is none
            job.written = True
            if job.trace is not None:
                job.mark("journal: job written")
            then(None)
            return
        frames = job.payload if job.grader is None else job.frames()
        accepted_at = job.received_ns / _NS_PER_S
        acceptance = Accept(job.number, job.key, job.pool, job.digest, job.header(), frames, accepted_at, lease)
        self._journal.write(acceptance, partial(self._accepted, job, then))

    def _accepted(self, job: Job, then: Then, error: PoolError | None) -> None:
        """The acceptance is written, or cannot be: answer its submitter."""
        job.written, job.refused = True, error
        if job.trace is not None:
            job.mark("journal: job written")
        if error is None and job.held_bytes > INLINE_BYTES:
            job.set_frames(self._journal.payload(job.number, job.frames()))
        then(error)
        if error is not None:
            self.forget(job)
        self.to_answer += job.when_written
        job.when_written = []

    def answer(self) -> None:
        """Answer the submitters of jobs that are written now. To be called after each turn of the loop, while there are
        `to_answer`: the jobs were sent to their workers first, which the submitters wait for.
        """
        calls, self.to_answer = self.to_answer, []
        for call in calls:
            call()

    def release(self, now: float) -> None:
        """Send each Accepted that has waited long enough for a Result. To be called at `release_at`."""
        while self._held:
            job = next(iter(self._held.values()))
            if job.held_until > now:
                self.release_at = job.held_until
                return
            del self._held[job.key]
            job.held_until, unsent, job.unsent = 0.0, job.unsent, {}
            for address, accepted in unsent.items():
                self._listener.send(address, accepted)
        self.release_at = math.inf

    def restore(self, job: Job, *, ended_at: float) -> None:
        """Keep a job of an earlier daemon. They come in the order of their numbers."""
        self._number = job.number
        self._jobs[job.key] = job
        self.unfinished_bytes[job.client] += job.held_bytes
        if job.result is not None:
            self._ended(job, job.result, job.answer)
            job.expires_at = ended_at + self._ttl_s

    def forget(self, job: Job) -> None:
        """Its acceptance could not be written, so there is no such job; or it has graded another job, and has ended."""
        if self._jobs.get(job.key) is job:
            self._held.pop(job.key, None)
            self.unfinished_bytes.subtract({job.client: job.held_bytes})
            del self._jobs[job.key]

    def _write_end(
        self,
        job: Job,
        result: wire.Result,
        answer: Sequence[wire.Frame],
        acknowledge: Callable[[], object] | None = None,
    ) -> None:
        large = job.held_bytes > JOB_BYTES + _SMALL_PAYLOAD_BYTES
        end = End(job.number, _encoder.encode(result), answer, time.monotonic(), empty=large)
        self._journal.write(end, partial(self._ended, job, result, answer, acknowledge))

    def _ended(
        self,
        job: Job,
        result: wire.Result,
        answer: Sequence[wire.Frame],
        acknowledge: Callable[[], object] | None = None,
        _: PoolError | None = None,
    ) -> None:
        """The end is written: send the result to the clients that wait for it, and keep it."""
        if job.trace is not None:
            job.mark("journal: result written")
        if job.refused is None:
            self.unfinished_bytes[job.client] -= job.held_bytes
            job.result, job.answer = result, answer
            job.run, job.payload = None, ()
            job.grader, job.grader_payload, job.ended = None, (), None
            if job.output is not None:
                job.output.close()
                job.output = None
            job.held_bytes = JOB_BYTES + sum(map(len, answer))
            job.expires_at = time.monotonic() + self._ttl_s
            self._finished[job.key] = job
            self._result_bytes += job.held_bytes
            self._bytes_of[job.client] += job.held_bytes
            self.over = self._result_bytes > self._max_bytes
            if job.held_until:
                job.held_until = 0.0
                del self._held[job.key]
                if not self._held:
                    self.release_at = math.inf
            waiting, unsent, job.watchers, job.unsent = job.watchers, job.unsent, set(), {}
            for address in waiting:
                self.send(address, job, first=unsent.get(address))
            if job.held_bytes > INLINE_BYTES:  # what is kept for others takes no memory
                job.answer = self._journal.answer(job.number, answer)
        if acknowledge is not None:  # last, because the clients wait, and the worker does not
            acknowledge()

    def send(self, address: bytes, job: Job, *, first: wire.Message | None = None) -> None:
        """Send a client the result of a job that has ended; before it another message, if one is given."""
        assert job.result is not None, "the job has ended"
        result = job.result if job.trace is None else _traced(job, job.result)
        if self._listener.send(address, result, job.answer, first=first) and not job.collected:
            job.collected = True
            self._collected.append(job.number)

    def tidy(self, now: float) -> None:
        """Drop results that have been kept for their time and, beyond the bound of bytes, those that were collected.
        Note which ones were sent to a client.

        To be called at `tidy_at`, and while the store is `over` its bound.
        """
        if now >= self.tidy_at:
            self.tidy_at = now + _TIDY_S
            if self._collected:
                self._journal.write(Collect(self._collected), lambda _: None)
                self._collected = []
        while self._finished and (first := next(iter(self._finished.values()))).expires_at <= now:
            self._drop(first)
        if self.over:
            for job in [each for each in self._finished.values() if each.collected]:
                self._drop(job)
                if not self.over:
                    break

    def _drop(self, job: Job) -> None:
        del self._finished[job.key], self._jobs[job.key]
        self._result_bytes -= job.held_bytes
        self._bytes_of[job.client] -= job.held_bytes
        if not self._bytes_of[job.client]:
            del self._bytes_of[job.client]
        self.over = self._result_bytes > self._max_bytes
        self.drop(job.number, received_ns=job.received_ns)

    def drop(self, number: int, *, received_ns: int) -> None:
        """The journal keeps nothing of this job."""
        if received_ns > self.known_since_ns:  # a little more, so that this happens now and then and not for each job
            self.known_since_ns = min(received_ns + _KNOWN_STEP_NS, time.monotonic_ns())
            self._journal.write(SetFact(KNOWN_SINCE, self.known_since_ns), lambda _: None)
        self._journal.write(Drop(number), lambda _: None)


def _traced(job: Job, result: wire.Result) -> wire.Result:
    """With the steps so far. The first time it is sent is one of them."""
    if not job.collected:
        job.mark("daemon: result sent")
    return msgspec.structs.replace(result, trace=tuple(job.trace or ()))

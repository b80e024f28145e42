"""Accepted jobs, their state in the journal, and the results while they are kept. It decides nothing.

    accept ──▶ journal ──▶ the calls that wait for it              end ──▶ journal ──▶ Result to each client that waits

The key of a job is its submitter and its id, so that no client can see, or collide with, another client's jobs. Results
are kept for `ttl_s`, and up to `max_bytes` in all: beyond that, those that were sent to a client are dropped, oldest
first. While those that were not sent to any are too many, the store is full and takes no new jobs.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import msgspec
from msgspec import Struct

from pool import wire
from pool.core.records import HistoryEntry
from pool.daemon.journal import Journal, Then
from pool.daemon.journal_entries import (
    KNOWN_SINCE,
    Accept,
    Collect,
    Drop,
    End,
    JobRow,
    LeaseRow,
    SetFact,
    packed_bytes,
)
from pool.daemon.journal_file import INLINE_BYTES
from pool.daemon.output import OutputStream
from pool.daemon.zmtp import ClientListener
from pool.errors import PoolError, StorageFullError
from pool.model import Outcome, StartKind
from pool.units import format_size

#: What a job costs besides its frames (header, record, table entry), about.
JOB_BYTES = 2048
_NS_PER_S = 1e9
#: By how much `known_since_ns` is set forward at a time.
_KNOWN_STEP_NS = 10_000_000_000
#: The answer of a job of which nothing is known: stdout, stderr and error.
_NOTHING = (b"", b"", b"")

#: When a client that was refused because of the results that are kept may try again.
_RETRY_S = 5.0
#: How often results are dropped whose time is over, and it is noted which results were sent: a daemon that ends before
#: that keeps them for longer.
_TIDY_S = 1.0
#: The payload of a job that has ended is taken out of its row if it is larger.
_SMALL_PAYLOAD_BYTES = 1024


class Terms(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of a job for its pool, and not for its worker. It is in the journal, so a field needs a default."""

    priority: int = 0
    queue_timeout_s: float | None = None
    code: str = ""  #: digest of its code
    loop: str = ""  #: which of its client's loops it belongs to
    retries: int = 0
    session: str = ""  #: as in Job


_NO_TERMS = Terms()


class Grader(Struct, frozen=True, kw_only=True):
    """What grades the value of a job. It is in the journal, so a new field needs a default."""

    run: wire.Run
    code: str  #: its digest
    frames: int  #: of its payload


class Header(Struct, frozen=True):
    """The column `job.header`: what a later daemon needs to run the job."""

    run: wire.Run
    terms: Terms
    grader: Grader | None = None  #: its frames are the last ones of the payload


_encoder = msgspec.msgpack.Encoder()
_header = msgspec.msgpack.Decoder(Header)
_result = msgspec.msgpack.Decoder(wire.Result)


class Job(Struct, kw_only=True, eq=False):
    """One accepted job. It has `run` and `payload` until it is done, and `result` and `answer` from then on.

    It is accepted when it is `written`. Until then no client has an answer, and the job may still be refused.
    """

    key: str  #: "client/job id"
    client: str
    pool: str
    received_ns: int
    run: wire.Run | None
    payload: Sequence[wire.Frame]
    held_bytes: int  #: by the payload, and by the answer once it is done; with JOB_BYTES
    digest: bytes = b""  #: of the whole submission
    session: str = ""  #: the client whose end cancels it, as `Sessions` names it; empty: it goes on
    terms: Terms = _NO_TERMS
    number: int = 0  #: in the journal
    written: bool = False  #: its acceptance is
    refused: PoolError | None = None  #: why its acceptance could not be written
    when_written: list[Callable[[], None]] = []
    sent_epoch: int = 0  #: of the last lease whose Run was sent; 0: none was
    leased_ns: int = 0
    start: StartKind | None = None
    watchers: set[bytes] = set()  #: addresses of the clients that wait for the result
    output: OutputStream | None = None  #: set once a client has asked for the output
    result: wire.Result | None = None
    answer: Sequence[wire.Frame] = ()
    expires_at: float = 0.0
    collected: bool = False  #: the result was sent to a client
    grader: Grader | None = None
    grader_payload: Sequence[wire.Frame] = ()
    ended: tuple[wire.Result, Sequence[wire.Frame]] | None = None  #: how its code ended, while it is graded
    part: Job | None = None  #: the job that grades it
    whole: Job | None = None  #: of a job that grades: the one whose part it is
    history: Sequence[HistoryEntry] = ()  #: set when it is done; until then the core has it
    trace: list[tuple[str, int]] | None = None  #: its steps so far, and when (ns); None: it is not traced

    @property
    def current(self) -> str:
        """The key by which the core has it now: its own, or that of the job that grades it."""
        return self.key if self.part is None else self.part.key

    def mark(self, step: str) -> None:
        """Note a step of a traced job that is done now."""
        assert self.trace is not None, "it is traced"
        self.trace.append((step, time.monotonic_ns()))

    # ---- in the journal ----

    def header(self) -> bytes:
        assert self.run is not None, "it has not ended"
        return _encoder.encode(Header(self.run, self.terms, self.grader))

    def frames(self) -> Sequence[wire.Frame]:
        """The payload of a job that has not ended, then that of its grader."""
        return (*self.payload, *self.grader_payload)

    def set_frames(self, frames: Sequence[wire.Frame]) -> None:
        """What `frames` returns, which may be in another place now."""
        own = len(frames) - (self.grader.frames if self.grader is not None else 0)
        self.payload, self.grader_payload = frames[:own], frames[own:]


def job_of(row: JobRow) -> Job:
    """The job as it was accepted; with its result, if it has ended. Raises msgspec.MsgspecError for a row of others."""
    stored = _header.decode(row.header)
    frames = row.payload or ()
    job = Job(
        key=row.key,
        client=row.key.partition("/")[0],
        pool=row.pool,
        received_ns=int(row.accepted_at * _NS_PER_S),
        run=stored.run,
        payload=frames,
        held_bytes=JOB_BYTES + packed_bytes(frames),
        digest=row.digest,
        session=stored.terms.session,
        terms=stored.terms,
        number=row.number,
        written=True,
        grader=stored.grader,
        collected=row.collected,
    )
    if row.result is not None:
        job.result, job.answer = _result.decode(row.result), frames
        if row.payload is None:
            reason = "its result in the journal is damaged"
            job.result, job.answer = (
                wire.Result(job_id=stored.run.job_id, outcome=Outcome.LOST, reason=reason),
                _NOTHING,
            )
        job.run, job.payload, job.grader = None, (), None
    elif row.payload is not None:
        job.set_frames(frames)
    return job


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
        self.over = False  #: whether the results take more than they may
        self.to_answer: list[Callable[[], None]] = []  #: what `answer` has to do
        self._number = 0  # of the job that was accepted last
        self.unfinished_bytes: Counter[str] = Counter()  #: held by the jobs that are not done, by client

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def no_room(self) -> StorageFullError:
        """Why no job can be accepted while the store is `over`."""
        return StorageFullError(
            f"the results that nobody has collected take {format_size(self._result_bytes)}, and all together may "
            f"take {format_size(self._max_bytes)}; collect them with result(job_id), or raise daemon.result_bytes",
            retry_after_s=_RETRY_S,
        )

    def accept(self, job: Job, lease: LeaseRow | None, then: Then) -> None:
        """Keep a new job, give it its number and write it, with the lease that it has already. `then` is called when it
        is written, or with the reason why it cannot be; there is no such job then.
        """
        self._number = job.number = self._number + 1
        self.unfinished_bytes[job.client] += job.held_bytes
        self._jobs[job.key] = job
        if job.whole is not None:
            then(None)  # the whole is in the journal
            return
        if not self._journal.durable:  # nothing has to be encoded
            self._accepted(job, then, None)
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

    def restore(self, job: Job, *, ended_at: float) -> None:
        """Keep a job of an earlier daemon. They come in the order of their numbers."""
        self._number = job.number
        self._jobs[job.key] = job
        self.unfinished_bytes[job.client] += job.held_bytes
        if job.result is not None:
            self._ended(job, job.result, job.answer, None, None)
            job.expires_at = ended_at + self._ttl_s

    def forget(self, job: Job) -> None:
        """Its acceptance could not be written, so there is no such job; or it has graded another job, and has ended."""
        if self._jobs.get(job.key) is job:
            self.unfinished_bytes.subtract({job.client: job.held_bytes})
            del self._jobs[job.key]

    def end(
        self,
        job: Job,
        result: wire.Result,
        answer: Sequence[wire.Frame],
        acknowledge: Callable[[], object] | None = None,
    ) -> None:
        """The job has ended like this. Each job has one end. `acknowledge` is called when that is written."""
        if not self._journal.durable:
            self._ended(job, result, answer, acknowledge, None)
            return
        large = job.held_bytes > JOB_BYTES + _SMALL_PAYLOAD_BYTES
        end = End(job.number, _encoder.encode(result), answer, time.monotonic(), empty=large)
        self._journal.write(end, partial(self._ended, job, result, answer, acknowledge))

    def _ended(
        self,
        job: Job,
        result: wire.Result,
        answer: Sequence[wire.Frame],
        acknowledge: Callable[[], object] | None,
        _: PoolError | None,
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
            self.over = self._result_bytes > self._max_bytes
            waiting, job.watchers = job.watchers, set()
            for address in waiting:
                self.send(address, job)
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

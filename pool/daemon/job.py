"""One accepted job: what the daemon has of it, from its acceptance to the end of its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from pool import wire
from pool.core.records import HistoryEntry
from pool.daemon.journal_entries import JobRow, packed_bytes
from pool.daemon.output import OutputStream
from pool.errors import PoolError
from pool.model import Outcome, StartKind

#: What a job costs besides its frames (header, record, table entry), about.
JOB_BYTES = 2048
_NS_PER_S = 1e9
#: The answer of a job of which nothing is known: stdout, stderr and error.
_NOTHING = (b"", b"", b"")
#: The steps of `wire.Done.steps_ns`.
_STEPS = ("runner: received", "runner: passed to the child", "runner: answer complete")


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
    held_until: float = 0.0  #: monotonic seconds: Accepted waits for the result until then; 0: it does not
    unsent: dict[bytes, wire.Accepted] = {}  #: those that wait, by watcher
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

    def mark_attempt(self, done: wire.Done) -> None:
        """Note the steps of its worker, in the order of time; none of them before its lease or in the future."""
        assert self.trace is not None, "it is traced"
        stamps = [*zip(_STEPS, done.steps_ns, strict=False)]
        stamps += [("child: code begins", done.started_ns), ("child: code ended", done.ended_ns)]
        now = time.monotonic_ns()
        limited = [(step, min(max(at_ns, self.leased_ns), now)) for step, at_ns in stamps]
        self.trace += sorted(limited, key=lambda stamp: stamp[1])

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

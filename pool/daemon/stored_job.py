"""Between a Job and the journal: the operations that write it, and the Job that a later daemon makes of its rows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from pool import wire
from pool.core import events as ev
from pool.daemon.job_store import JOB_BYTES, Grader, Job, Terms
from pool.daemon.journal_entries import Accept, End, JobRow, Lease, SetHeader, packed_bytes
from pool.model import Outcome

_NS_PER_S = 1e9
#: The answer of a job of which nothing is known: stdout, stderr and error.
_NOTHING = (b"", b"", b"")


class Header(Struct, frozen=True):
    """The column `job.header`: what a later daemon needs to run the job."""

    run: wire.Run
    terms: Terms
    grader: Grader | None = None  #: its frames are the last ones of the payload


_encoder = msgspec.msgpack.Encoder()
_header = msgspec.msgpack.Decoder(Header)
_result = msgspec.msgpack.Decoder(wire.Result)


def header(job: Job) -> bytes:
    assert job.run is not None, "it has not ended"
    return _encoder.encode(Header(job.run, job.terms, job.grader))


def set_header(job: Job) -> SetHeader:
    return SetHeader(job.number, header(job))


def accept(job: Job) -> Accept:
    return Accept(
        number=job.number,
        key=job.key,
        pool=job.pool,
        digest=job.digest,
        header=header(job),
        payload=payload(job),
        accepted_at=job.received_ns / _NS_PER_S,
    )


def payload(job: Job) -> Sequence[wire.Frame]:
    """The frames of a job that has not ended, and those of its grader."""
    return job.payload if job.grader is None else (*job.payload, *job.grader_payload)


def set_payload(job: Job, frames: Sequence[wire.Frame]) -> None:
    """The frames of `payload(job)`, which may be in another place now."""
    own = len(frames) - (job.grader.frames if job.grader is not None else 0)
    job.payload, job.grader_payload = frames[:own], frames[own:]


def lease(job: Job, command: ev.Dispatch) -> Lease:
    return Lease(job.number, command.epoch, command.attempt, command.worker_id, job.leased_ns / _NS_PER_S)


def end(job: Job, result: wire.Result, answer: Sequence[wire.Frame], *, now: float) -> End:
    return End(job.number, _encoder.encode(result), answer, now)


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
        set_payload(job, frames)
    return job

"""Messages between a client and the daemon, on submit.sock."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pool.outcome import Outcome, StartKind
from pool.wire.fields import (
    Bytes,
    Count,
    Duration,
    EndFields,
    Entry,
    Id,
    JobFields,
    Marks,
    Message,
    Name,
    Scalars,
    Seconds,
    StreamName,
    Text,
)

# ---- client -> daemon ----------------------------------------------------------------------------------------------


class JobLimits(Message, frozen=True, omit_defaults=True):
    """The limits that a job asks for, as plain numbers. None: the template's default."""

    wall_s: Seconds | None = None
    cpu_s: Seconds | None = None
    memory: Bytes | None = None
    tmp: Bytes | None = None
    output: Bytes | None = None
    result: Bytes | None = None
    processes: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class Grader(Message, frozen=True, omit_defaults=True):
    """The code that grades a job's value. `arguments`: how many frames of its payload they have."""

    entry: Entry | None = None
    pickled: bool = False
    python: Annotated[str, Meta(max_length=16)] = ""
    arguments: Count = 0


class Submit(JobFields, frozen=True, kw_only=True, tag="submit", omit_defaults=True):
    """Run this job. A second Submit with the same job id and the same content is the same job. Answer: Accepted or
    Refused. Payload: [code, stdin, *files, *arguments], and for a grade the grader's [code, *arguments] after it.
    """

    request: Count
    pool: Name = "default"
    limits: JobLimits = JobLimits()
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0  #: higher goes first, within one client
    queue_timeout_s: Seconds | None = None
    watch: bool = False  #: send the Result when the job ends, without another request
    stream: bool = False  #: with `watch`: also send its output while it runs
    session: Id | None = None  #: cancel the job when the client of this session is gone; None: it goes on
    grade: Grader | None = None  #: run this on the value, in another child; its limits are those of the job
    retries: Annotated[int, Meta(ge=0, le=10)] = 0  #: further attempts if a fault that was not the job's ends one
    sent_ns: Count = 0  #: with `trace`: when the client made this message; CLOCK_MONOTONIC


class Watch(Message, frozen=True, tag="watch", omit_defaults=True):
    """Send the Result of this job when it ends, or now if it has ended. Answer: Accepted or Refused."""

    request: Count
    job_id: Id
    stream: bool = False  #: also send its output until then, from the first byte


class Cancel(Message, frozen=True, tag="cancel"):
    """End this job. Answer: Accepted (also when it has ended already) or Refused."""

    request: Count
    job_id: Id


class Ping(Message, frozen=True, tag="ping", omit_defaults=True):
    """Asks whether the daemon runs. Answer: Pong."""

    request: Count
    session: Id | None = None  #: names this client, over all its connections; the first message of each connection


class Mine(Message, frozen=True, tag="mine"):
    """Asks for this user's jobs, and the pools. Answer: an AdminReply, whose document is a `pool.status.Mine`."""

    request: Count


# ---- daemon -> client ----------------------------------------------------------------------------------------------


class Accepted(Message, frozen=True, tag="accepted"):
    request: Count
    job_id: Id


class Refused(Message, frozen=True, tag="refused"):
    """The request failed with an error of `pool.errors`, which the client raises."""

    request: Count
    code: Name
    message: Text
    fields: Scalars = {}


class Output(Message, frozen=True, tag="output"):
    """A piece of a running job's output, from `offset` on. The Result has the whole output again."""

    job_id: Id
    name: StreamName
    offset: Count


class Grade(Message, frozen=True):
    """How the grader of a job ended. `outcome` is None if it did not run, and `reason` says why."""

    outcome: Outcome | None = None
    reason: Text = ""
    frames: Count = 0  #: of the payload, at its end: [error, *grade]


class Result(EndFields, frozen=True, kw_only=True, tag="result"):
    """How a job ended; sent once to each client that waits. Payload: [stdout, stderr, error, *files, *value], and with
    a grade [error, *grade].
    """

    queue_ms: Duration = 0.0
    dispatch_ms: Duration = 0.0
    run_ms: Duration = 0.0
    collect_ms: Duration = 0.0
    total_ms: Duration = 0.0
    worker: str | None = None
    container: str | None = None
    attempt: Count = 0
    start: StartKind | None = None
    fallback: bool = False
    grade_ms: Duration = 0.0
    grade: Grade | None = None
    calls: Count = 0  #: as in Done
    trace: Marks = ()  #: the steps of a traced job until this message, in the order of time


class Pong(Message, frozen=True, tag="pong"):
    request: Count
    instance: Id  #: another one after a restart of the daemon
    version: Text


FromClient = Submit | Watch | Cancel | Ping | Mine
ToClient = Accepted | Refused | Output | Result | Pong

from_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)

"""What a loop and the daemon say to each other, on submit.sock."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pool.model import Outcome, StartKind
from pool.wire.fields import Bytes, Count, Duration, Entry, Env, Files, Id, Message, Name, Seconds, StreamName, Text

# ---- loop -> daemon ------------------------------------------------------------------------------------------------


class JobLimits(Message, frozen=True, omit_defaults=True):
    """Limits as they travel: numbers only, None for the template's default."""

    wall_s: Seconds | None = None
    cpu_s: Seconds | None = None
    memory: Bytes | None = None
    tmp: Bytes | None = None
    output: Bytes | None = None
    result: Bytes | None = None
    processes: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class Submit(Message, frozen=True, tag="submit", omit_defaults=True):
    """Take this job. The same job id again, with the same body, is the same job. Answer: Accepted or Refused."""

    request: Count
    job_id: Id
    pool: Name = "default"
    entry: Entry | None = None
    pickled: bool = False  #: the code frame is a cloudpickle of a callable, to be loaded in the sandbox only
    python: Annotated[str, Meta(max_length=16)] = ""  #: "3.11", the interpreter that pickled it
    files: Files = ()
    env: Env = {}
    limits: JobLimits = JobLimits()
    seed: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0  #: higher goes first, within one client
    queue_timeout_s: Seconds | None = None
    watch: bool = False  #: send the Result unasked when the job ends
    stream: bool = False  #: and, until then, what it prints; with watch only
    explain: bool = False  #: write every system call that is denied, and the line that made it, to the job's stderr


class Watch(Message, frozen=True, tag="watch", omit_defaults=True):
    """Send me the Result of this job when it ends, or now if it has. Answer: Result or Refused."""

    request: Count
    job_id: Id
    stream: bool = False  #: until then, what it prints, from its first byte on


class Cancel(Message, frozen=True, tag="cancel"):
    """End this job. Answer: Accepted (also when it has ended already) or Refused."""

    request: Count
    job_id: Id


class Ping(Message, frozen=True, tag="ping"):
    """Asks whether the daemon answers. Answer: Pong."""

    request: Count


# ---- daemon -> loop ------------------------------------------------------------------------------------------------


class Accepted(Message, frozen=True, tag="accepted"):
    request: Count
    job_id: Id


class Refused(Message, frozen=True, tag="refused"):
    """The request failed with an error of `pool.errors`, to be raised at the caller."""

    request: Count
    code: Name
    message: Text
    fields: dict[str, str | int | float | bool | None] = {}


class Output(Message, frozen=True, tag="output"):
    """What a job has printed from `offset` on. A slow reader gets less of it; the Result has it all."""

    job_id: Id
    name: StreamName
    offset: Count


class Result(Message, frozen=True, tag="result"):
    """The one answer to a job. Payload: [stdout, stderr, error, *files, *value]."""

    job_id: Id
    outcome: Outcome
    reason: Text = ""
    files: Files = ()
    exit_code: int | None = None
    signal: int | None = None
    truncated: tuple[str, ...] = ()
    stdout_bytes: Count = 0
    stderr_bytes: Count = 0
    queue_ms: Duration = 0.0
    dispatch_ms: Duration = 0.0
    run_ms: Duration = 0.0
    collect_ms: Duration = 0.0
    total_ms: Duration = 0.0
    cpu_s: Duration = 0.0
    max_rss_bytes: Count = 0
    worker: str | None = None
    container: str | None = None
    attempt: Count = 0
    start: StartKind | None = None
    fallback: bool = False


class Pong(Message, frozen=True, tag="pong"):
    request: Count
    instance: Id  #: changes when the daemon was started anew
    version: Text


FromClient = Submit | Watch | Cancel | Ping
ToClient = Accepted | Refused | Output | Result | Pong

from_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)

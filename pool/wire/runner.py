"""What a worker's runner and the daemon say to each other, on link.sock."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pool.model import Outcome
from pool.wire.fields import Bytes, Count, Duration, Entry, Env, Files, Id, Message, Name, Seconds, StreamName, Text

# ---- runner -> daemon ----------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag="hello"):
    """First word of a runner, before its imports. The daemon refuses a runner of other sources."""

    runner: Text  #: version of the project it was built from
    sources: Text  #: digest of the runner's code as it is in the image
    python: Text  #: "3.11"


class Ready(Message, frozen=True, tag="ready"):
    """Imports are done and the first child is parked; now the daemon sends the no-op job."""

    boot_ms: Duration
    preload_ms: Duration
    isolation: Name  #: the level in force: plain | namespaces
    missing: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()  #: parts of it that this host refuses, and why


class Started(Message, frozen=True, tag="started"):
    job_id: Id
    epoch: Count


class Printed(Message, frozen=True, tag="printed"):
    """What is new of a running job's kept output, from `offset` on. Only after Stream, and Done has all of it again."""

    job_id: Id
    epoch: Count
    name: StreamName
    offset: Count


class Done(Message, frozen=True, tag="done"):
    """The end of an attempt. Payload: [stdout, stderr, error, *files, *value]. Stamps: CLOCK_MONOTONIC, ns."""

    job_id: Id
    epoch: Count
    outcome: Outcome
    reason: Text = ""
    files: Files = ()
    exit_code: int | None = None
    signal: int | None = None
    truncated: Annotated[tuple[Name, ...], Meta(max_length=4)] = ()
    stdout_bytes: Count = 0
    stderr_bytes: Count = 0
    started_ns: Count = 0
    ended_ns: Count = 0
    cpu_s: Duration = 0.0
    max_rss_bytes: Count = 0


class Freed(Message, frozen=True, tag="freed"):
    """After each Done: nothing of the job is left and the next child is parked."""

    epoch: Count
    dirty: Text = ""  #: what would not go; not empty: this worker must not be used again


class Beat(Message, frozen=True, tag="beat"):
    """I am alive, sent while idle and as the answer to Probe."""

    seq: Count = 0


class Broken(Message, frozen=True, tag="broken"):
    """The runner cannot go on and says why; it exits after this."""

    reason: Text


# ---- daemon -> runner ----------------------------------------------------------------------------------------------


class Run(Message, frozen=True, tag="run", omit_defaults=True):
    """Run this attempt. All limits are set. Payload as in Submit."""

    job_id: Id
    epoch: Count
    wall_s: Seconds
    cpu_s: Seconds
    memory: Bytes
    tmp: Bytes
    output: Bytes
    result: Bytes
    processes: Count
    entry: Entry | None = None
    pickled: bool = False
    python: str = ""
    files: Files = ()
    env: Env = {}
    seed: int | None = None
    explain: bool = False
    screened: bool = True  #: False for the daemon's own questions to a worker


class Kill(Message, frozen=True, tag="kill"):
    """Kill this attempt and answer with Done(cancelled)."""

    job_id: Id
    epoch: Count


class Stream(Message, frozen=True, tag="stream"):
    """Say Printed of this attempt from now on, from its first byte."""

    job_id: Id
    epoch: Count


class Probe(Message, frozen=True, tag="probe"):
    seq: Count


FromRunner = Hello | Ready | Started | Printed | Done | Freed | Beat | Broken
ToRunner = Run | Kill | Stream | Probe

from_runner: msgspec.msgpack.Decoder[FromRunner] = msgspec.msgpack.Decoder(FromRunner)
to_runner: msgspec.msgpack.Decoder[ToRunner] = msgspec.msgpack.Decoder(ToRunner)

"""Messages between a worker's runner and the daemon, on link.sock."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pool.wire.caps import MAPPED_BYTES, MAX_JOB_BYTES
from pool.wire.fields import (
    AttemptFields,
    Bytes,
    Count,
    Duration,
    EndFields,
    JobFields,
    Message,
    Name,
    OptionalId,
    Seconds,
    StreamName,
    Text,
)

# ---- runner -> daemon ----------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag="hello"):
    """The first message of a runner, before its imports. The daemon refuses a runner with other sources."""

    runner: Text  #: version of the project it was built from
    sources: Text  #: digest of the runner's code as it is in the image
    python: Text  #: "3.11"


class Ready(Message, frozen=True, tag="ready"):
    """The imports are done and the first child is parked. The daemon now sends its self-tests."""

    boot_ms: Duration
    preload_ms: Duration
    isolation: Name  #: the level in force: plain | partial | namespaces
    missing: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()  #: what this host refuses of it, and why


class Started(AttemptFields, frozen=True, tag="started"):
    """The job has run for a few milliseconds and goes on. A shorter one is answered by Done alone."""


class Printed(AttemptFields, frozen=True, tag="printed"):
    """New output of a running job, from `offset` on; sent only after Stream. Done has the whole output again."""

    name: StreamName
    offset: Count


class Done(EndFields, frozen=True, kw_only=True, tag="done", omit_defaults=True):
    """The end of an attempt. Payload: [stdout, stderr, error, *files, *value]. Times: CLOCK_MONOTONIC, ns."""

    epoch: Count
    started_ns: Count = 0
    ended_ns: Count = 0
    #: Of a traced job: when the runner received it, had passed it to the child, and had the whole answer.
    steps_ns: Annotated[tuple[Count, ...], Meta(max_length=3)] = ()
    calls: Count = 0  #: of a chunk: how many of its calls have begun; the value is then as `chunk.py` says


class Freed(Message, frozen=True, tag="freed"):
    """Sent after each Done: everything of the job has been removed and the next child is parked."""

    epoch: Count
    residue: Text = ""  #: what could not be removed; if there is any, the worker must not be used again


class Heartbeat(Message, frozen=True, tag="heartbeat"):
    """Sent at a fixed interval while idle, and as the answer to Probe."""

    seq: Count = 0


class Resume(Message, frozen=True, kw_only=True, tag="resume"):
    """The first message of a runner to a new daemon, which has bound the link of a worker that it did not start."""

    token: Text  #: from Welcome
    #: Answered: it holds the Done of its latest job. After Adopted it sends Done, unless Collected came, and Freed.
    state: Literal["idle", "running", "answered", "cleaning"]
    job_id: OptionalId = ""  #: "" while idle
    epoch: Count = 0  #: of the latest Run, also while idle; 0: none
    jobs: Count  #: that it was sent so far
    elapsed_s: Duration = 0.0  #: since a running job began


class Broken(Message, frozen=True, tag="broken"):
    """The runner cannot go on, for this reason, and exits. `permanent`: nor could another worker of this template."""

    reason: Text
    permanent: bool = False


# ---- daemon -> runner ----------------------------------------------------------------------------------------------


class Run(JobFields, frozen=True, kw_only=True, tag="run", omit_defaults=True):
    """Run this attempt, and drop the Done of the last one. All limits are set. Payload as in Submit."""

    epoch: Count
    wall_s: Seconds
    cpu_s: Seconds
    memory: Bytes
    tmp: Bytes
    output: Bytes
    result: Bytes
    processes: Count
    graded: Count = 0  #: so many frames at the end of the payload are one more argument, the first: the value to grade
    #: Frames of arguments that are empty here: the place of each among them, where it begins in a file, and its size.
    #: The runner gets a descriptor of that file at `body.sock`, beside its link, and passes it on to the child.
    mapped: Annotated[tuple[tuple[Count, Count, Count], ...], Meta(max_length=MAX_JOB_BYTES // MAPPED_BYTES)] = ()
    screened: bool = True  #: False for the daemon's self-tests, and to a child for code that the screen has read here


class Kill(AttemptFields, frozen=True, tag="kill"):
    """Kill this attempt and answer with Done(cancelled)."""


class Stream(AttemptFields, frozen=True, tag="stream"):
    """Send this attempt's output as it is printed, from the first byte."""


class Collected(AttemptFields, frozen=True, tag="collected"):
    """Drop the Done of this attempt before the next Run: it is large, or not wanted after Resume."""


class Welcome(Message, frozen=True, tag="welcome"):
    """The self-tests have passed. A runner that shows this token to the next daemon is adopted by it."""

    token: Text


class Adopted(Message, frozen=True, tag="adopted"):
    """The answer to Resume: go on."""


class Probe(Message, frozen=True, tag="probe"):
    """Answer with a Heartbeat."""

    seq: Count


FromRunner = Hello | Resume | Ready | Started | Printed | Done | Freed | Heartbeat | Broken
ToRunner = Run | Kill | Stream | Collected | Welcome | Adopted | Probe

from_runner: msgspec.msgpack.Decoder[FromRunner] = msgspec.msgpack.Decoder(FromRunner)
to_runner: msgspec.msgpack.Decoder[ToRunner] = msgspec.msgpack.Decoder(ToRunner)

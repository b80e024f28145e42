"""Messages between loop, daemon and worker: structs, encoding, version, caps. No sockets.

Every message is multipart, on every socket:

    ┌──────────────┬─────────────────────────────┬─────────┬─────────┬───
    │ b"WCP" + u8  │ header: one msgpack map,    │ payload │ payload │ …   raw bytes, never decoded on the way
    │ version      │ a tagged struct (see below) │ frame   │ frame   │
    └──────────────┴─────────────────────────────┴─────────┴─────────┴───

Rules:
1. A header is decoded into its struct or refused: wrong type, unknown field, unknown tag and out-of-range all raise
   RemoteProtocolError, whatever the bytes. Nothing else is raised by `decode`.
2. Payload frames are opaque to the daemon. Their order is fixed by the message:
       Submit, Run    [code, stdin, *files (as named in the header), *arguments]
       Done, Result   [stdout, stderr, error, *files (as named in the header), *value]
       Printed, Output   [text: bytes of that stream, as the job wrote them]
   `error` is an encoded Fault or empty; arguments and value are the frames of `pool.values`.
3. What a worker or a client says is bounded here: header size, number of frames, length of every string and list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pool.errors import LocalProtocolError, RemoteProtocolError, VersionMismatchError
from pool.model import Outcome, StartKind

PROTOCOL_VERSION = 1
MAGIC = b"WCP"
PREAMBLE = MAGIC + bytes([PROTOCOL_VERSION])

#: A header holds names and numbers only; 64 KiB leaves room for 256 file names and an environment.
MAX_HEADER_BYTES = 64 * 1024
#: Files, one frame each, and the out-of-band buffers of large arrays.
MAX_FRAMES = 1024
#: One frame. libzmq drops the peer that sends more (ZMQ_MAXMSGSIZE), before the bytes are in memory.
MAX_FRAME_BYTES = 256 * 1024 * 1024
#: Source text. `ast.parse` of 1 MB of short lines takes 2 s and 500 MB, so a program has to stay well below.
MAX_CODE_BYTES = 1024 * 1024
#: All payload frames of a Submit together.
MAX_JOB_BYTES = 256 * 1024 * 1024
#: Files that one job can leave.
MAX_FILES_OUT = 200
#: Output in one Printed or Output; and how often a runner that was asked for it says what is new, at most.
MAX_PRINTED_BYTES = 64 * 1024
PRINT_INTERVAL_S = 0.01

Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[A-Za-z0-9._:\-]+\Z")]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Entry = Annotated[str, Meta(min_length=1, max_length=128)]
StreamName = Literal["stdout", "stderr"]
Text = Annotated[str, Meta(max_length=4096)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 50)]
Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Duration = Annotated[float, Meta(ge=0, le=1e9)]
FileName = Annotated[str, Meta(min_length=1, max_length=255)]
Files = Annotated[tuple[FileName, ...], Meta(max_length=256)]
Env = Annotated[dict[Annotated[str, Meta(max_length=256)], Annotated[str, Meta(max_length=8192)]], Meta(max_length=64)]


class Message(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every header."""


class JobLimits(Message, frozen=True, omit_defaults=True):
    """Limits as they travel: numbers only, None for the template's default."""

    wall_s: Seconds | None = None
    cpu_s: Seconds | None = None
    memory: Bytes | None = None
    tmp: Bytes | None = None
    output: Bytes | None = None
    result: Bytes | None = None
    processes: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class Complaint(Message, frozen=True):
    """A `model.Finding` as it travels."""

    rule: Annotated[str, Meta(max_length=32)]
    line: Annotated[int, Meta(ge=1, le=1 << 31)]
    column: Annotated[int, Meta(ge=1, le=1 << 31)]
    reason: Annotated[str, Meta(max_length=1024)]
    remedy: Annotated[str, Meta(max_length=1024)]


class Fault(Message, frozen=True, omit_defaults=True):
    """Why a job has no value, formatted inside the child: its exception, or what the screen found."""

    type: Annotated[str, Meta(max_length=512)]
    message: Annotated[str, Meta(max_length=65536)]
    traceback: Annotated[str, Meta(max_length=262144)] = ""
    findings: Annotated[tuple[Complaint, ...], Meta(max_length=100)] = ()


# ---- loop -> daemon, on submit.sock --------------------------------------------------------------------------------


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


class Hail(Message, frozen=True, tag="hail"):
    """Are you there? Answer: Hailed."""

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


class Hailed(Message, frozen=True, tag="hailed"):
    request: Count
    instance: Id  #: changes when the daemon was started anew
    version: Text


# ---- admin.sock ----------------------------------------------------------------------------------------------------


class AdminCall(Message, frozen=True, tag="call"):
    request: Count
    name: Name
    arguments: dict[str, str | int | float | bool | None] = {}


class AdminReply(Message, frozen=True, tag="reply"):
    """`body` is one JSON document, as bytes in the payload frame; here only how it went."""

    request: Count
    code: Text = ""  #: empty: done; else a code of `pool.errors`
    message: Text = ""
    fields: dict[str, str | int | float | bool | None] = {}


# ---- runner -> daemon, on link.sock --------------------------------------------------------------------------------


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


FromClient = Submit | Watch | Cancel | Hail
ToClient = Accepted | Refused | Output | Result | Hailed
FromRunner = Hello | Ready | Started | Printed | Done | Freed | Beat | Broken
ToRunner = Run | Kill | Stream | Probe

Frame = bytes | bytearray | memoryview
M = TypeVar("M")

from_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)
from_runner: msgspec.msgpack.Decoder[FromRunner] = msgspec.msgpack.Decoder(FromRunner)
to_runner: msgspec.msgpack.Decoder[ToRunner] = msgspec.msgpack.Decoder(ToRunner)
from_admin: msgspec.msgpack.Decoder[AdminCall] = msgspec.msgpack.Decoder(AdminCall)
to_admin: msgspec.msgpack.Decoder[AdminReply] = msgspec.msgpack.Decoder(AdminReply)
_fault: msgspec.msgpack.Decoder[Fault] = msgspec.msgpack.Decoder(Fault)
_encoder = msgspec.msgpack.Encoder()


def encode(message: Message, payload: Sequence[Frame] = ()) -> list[Frame]:
    """Frames of one message, ready for `send_multipart`. Raises LocalProtocolError over a cap."""
    header = _encoder.encode(message)
    if len(header) > MAX_HEADER_BYTES:
        raise LocalProtocolError(
            f"the header of {type(message).__name__} has {len(header)} bytes, {MAX_HEADER_BYTES} fit"
        )
    if len(payload) > MAX_FRAMES:
        raise LocalProtocolError(f"{type(message).__name__} has {len(payload)} payload frames, {MAX_FRAMES} fit")
    return [PREAMBLE, header, *payload]


def decode(decoder: msgspec.msgpack.Decoder[M], frames: Sequence[Frame]) -> tuple[M, Sequence[Frame]]:
    """Header and payload of one message. Raises RemoteProtocolError (or its VersionMismatchError), nothing else."""
    if len(frames) < 2 or len(frames) > MAX_FRAMES + 2:
        raise RemoteProtocolError(f"a message has 2 to {MAX_FRAMES + 2} frames, got {len(frames)}")
    check_preamble(bytes(frames[0][:8]))
    if len(frames[1]) > MAX_HEADER_BYTES:
        raise RemoteProtocolError(f"a header has at most {MAX_HEADER_BYTES} bytes, got {len(frames[1])}")
    try:
        return decoder.decode(frames[1]), frames[2:]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"the header is not valid: {error}") from None


def check_preamble(preamble: bytes) -> None:
    """Raise unless the peer speaks our version."""
    if preamble == PREAMBLE:
        return
    if len(preamble) == len(PREAMBLE) and preamble.startswith(MAGIC):
        raise VersionMismatchError(
            f"the peer speaks protocol {preamble[-1]}, this side {PROTOCOL_VERSION}; install the same version of "
            "warm-container-pool on both sides and restart the daemon",
            theirs=preamble[-1],
            ours=PROTOCOL_VERSION,
        )
    raise RemoteProtocolError("the message does not begin with this protocol's preamble")


def is_relative_name(name: str) -> bool:
    """Whether a file that a job left may have this name: a path of plain parts that stays below where it is written."""
    try:
        fits = 0 < len(name.encode()) <= 255
    except UnicodeEncodeError:
        return False
    return fits and "\0" not in name and not any(part in {"", ".", ".."} for part in name.split("/"))


def encode_fault(fault: Fault) -> bytes:
    return _encoder.encode(fault)


def decode_fault(frame: Frame) -> Fault:
    """Raises RemoteProtocolError for anything but a Fault."""
    try:
        return _fault.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"the job's error is not valid: {error}") from None

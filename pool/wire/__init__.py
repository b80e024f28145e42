"""Messages between client, daemon and worker: structs, encoding, version, limits. No sockets.

Every message is multipart, on every socket:

    ┌──────────────┬─────────────────────────────┬─────────┬─────────┬───
    │ b"WCP" + u8  │ header: one msgpack map,    │ payload │ payload │ …   raw bytes that the daemon does not decode
    │ version      │ a tagged struct (see below) │ frame   │ frame   │
    └──────────────┴─────────────────────────────┴─────────┴─────────┴───

Rules:
1. `decode` returns a valid struct or raises RemoteProtocolError, whatever the bytes: for a wrong type, an unknown
   field, an unknown tag, a value out of range. It raises nothing else.
2. The daemon does not decode payload frames. Their order is fixed for each message:
       Submit, Run        [code, stdin, *files (as named in the header), *arguments]
       Done, Result       [stdout, stderr, error, *files (as named in the header), *value]
       with a grade       Submit: [..., grader, *its arguments]   Run: [..., *value]   Result: [..., error, *grade]
       of a chunk         as `chunk.py` says
       Printed, Output    [text: bytes of that stream, as the job wrote them]
   `error` is an encoded Fault or empty; arguments and value are the frames of `pool.values`.
3. The size of a header, the number of frames, and the length of every string and list are bounded here.

Modules, each of which imports only those below it:

    client.py   admin.py   runner.py     messages on submit.sock, admin.sock, link.sock; a decoder for each direction
    fault.py   chunk.py                  the error of a job: the `error` frame; the calls of a chunk
    codec.py                             frames to message and back, and the version
    fields.py                            base structs and field types
    caps.py                              upper bounds

A worker has no messages of clients and of the administration. So these two modules are imported when one of their names
is first used, which saves a worker 3 ms of its start.
"""

from typing import TYPE_CHECKING

from pool.wire.caps import (
    CHUNK_ANSWERS,
    FIXED_FRAMES,
    MAPPED_BYTES,
    MAX_CALLS,
    MAX_CODE_BYTES,
    MAX_FILES_OUT,
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    MAX_JOB_BYTES,
    MAX_PRINTED_BYTES,
    PRINT_INTERVAL_S,
)
from pool.wire.chunk import Call, decode_calls, encode_calls
from pool.wire.codec import MAGIC, PREAMBLE, PROTOCOL_VERSION, Frame, check_preamble, decode, encode
from pool.wire.fault import Fault, Finding, decode_fault, encode_fault
from pool.wire.fields import EndFields, JobFields, Marks, Message, StreamName, is_relative_name, misplaced
from pool.wire.runner import (
    Adopted,
    Broken,
    Collected,
    Done,
    Freed,
    FromRunner,
    Heartbeat,
    Hello,
    Kill,
    Printed,
    Probe,
    Ready,
    Resume,
    Run,
    Started,
    Stream,
    ToRunner,
    Welcome,
    from_runner,
    to_runner,
)

if TYPE_CHECKING:
    from pool.wire.admin import AdminCall, AdminReply, from_admin, to_admin
    from pool.wire.client import (
        Accepted,
        Cancel,
        FromClient,
        Grade,
        Grader,
        JobLimits,
        Mine,
        Output,
        Ping,
        Pong,
        Refused,
        Result,
        Submit,
        ToClient,
        Watch,
        from_client,
        to_client,
    )
else:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        for module in ("client", "admin") if name in __all__ else ():
            found = vars(import_module(f"pool.wire.{module}"))
            globals().update({each: found[each] for each in __all__ if each in found})
        if name in globals():
            return globals()[name]
        raise AttributeError(f"module 'pool.wire' has no attribute {name!r}")


__all__ = [
    "CHUNK_ANSWERS", "FIXED_FRAMES", "MAGIC", "MAPPED_BYTES", "MAX_CALLS", "MAX_CODE_BYTES", "MAX_FILES_OUT",
    "MAX_FRAMES", "MAX_FRAME_BYTES", "MAX_HEADER_BYTES", "MAX_JOB_BYTES", "MAX_PRINTED_BYTES", "PREAMBLE",
    "PRINT_INTERVAL_S", "PROTOCOL_VERSION", "Accepted", "AdminCall", "AdminReply", "Adopted", "Broken", "Call",
    "Cancel", "Collected", "Done", "EndFields", "Fault", "Finding", "Frame", "Freed", "FromClient", "FromRunner",
    "Grade", "Grader", "Heartbeat", "Hello", "JobFields", "JobLimits", "Kill", "Marks", "Message", "Mine", "Output",
    "Ping", "Pong", "Printed", "Probe", "Ready", "Refused", "Result", "Resume", "Run", "Started", "Stream",
    "StreamName", "Submit", "ToClient", "ToRunner", "Watch", "Welcome", "check_preamble", "decode", "decode_calls",
    "decode_fault", "encode", "encode_calls", "encode_fault", "from_admin", "from_client", "from_runner",
    "is_relative_name", "misplaced", "to_admin", "to_client", "to_runner",
]  # fmt: skip

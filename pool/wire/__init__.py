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

Rooms, each of which knows those below it:

    client.py   admin.py   runner.py     what is said on submit.sock, admin.sock, link.sock, and a decoder each way
    fault.py                             why a job has no value: the `error` frame
    codec.py                             frames to message and back, and the version
    fields.py   caps.py                  the base of every header and the types of its fields; how much fits
"""

from pool.wire.admin import AdminCall, AdminReply, from_admin, to_admin
from pool.wire.caps import (
    MAX_CODE_BYTES,
    MAX_FILES_OUT,
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    MAX_JOB_BYTES,
    MAX_PRINTED_BYTES,
    PRINT_INTERVAL_S,
)
from pool.wire.client import (
    Accepted,
    Cancel,
    FromClient,
    JobLimits,
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
from pool.wire.codec import MAGIC, PREAMBLE, PROTOCOL_VERSION, Frame, check_preamble, decode, encode
from pool.wire.fault import Complaint, Fault, decode_fault, encode_fault
from pool.wire.fields import Message, StreamName, is_relative_name
from pool.wire.runner import (
    Beat,
    Broken,
    Done,
    Freed,
    FromRunner,
    Hello,
    Kill,
    Printed,
    Probe,
    Ready,
    Run,
    Started,
    Stream,
    ToRunner,
    from_runner,
    to_runner,
)

__all__ = [
    "MAGIC", "MAX_CODE_BYTES", "MAX_FILES_OUT", "MAX_FRAMES", "MAX_FRAME_BYTES", "MAX_HEADER_BYTES",
    "MAX_JOB_BYTES", "MAX_PRINTED_BYTES", "PREAMBLE", "PRINT_INTERVAL_S", "PROTOCOL_VERSION", "Accepted",
    "AdminCall", "AdminReply", "Beat", "Broken", "Cancel", "Complaint", "Done", "Fault", "Frame", "Freed",
    "FromClient", "FromRunner", "Hello", "JobLimits", "Kill", "Message", "Output", "Ping", "Pong", "Printed",
    "Probe", "Ready", "Refused", "Result", "Run", "Started", "Stream", "StreamName", "Submit", "ToClient",
    "ToRunner", "Watch", "check_preamble", "decode", "decode_fault", "encode", "encode_fault", "from_admin",
    "from_client", "from_runner", "is_relative_name", "to_admin", "to_client", "to_runner",
]  # fmt: skip

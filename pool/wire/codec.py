"""Frames to message and back: the preamble with the version, the header, and the payload, which is left as it is.

It knows no message: what may come is the decoder's business, and each of them stands beside the messages it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from pool.errors import LocalProtocolError, RemoteProtocolError, VersionMismatchError
from pool.wire.caps import MAX_FRAMES, MAX_HEADER_BYTES
from pool.wire.fields import Message

PROTOCOL_VERSION = 1
MAGIC = b"WCP"
PREAMBLE = MAGIC + bytes([PROTOCOL_VERSION])

#: What a decoder raises for bytes that are not what it reads.
MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Frame = bytes | bytearray | memoryview
M = TypeVar("M")

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
    except MALFORMED as error:
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

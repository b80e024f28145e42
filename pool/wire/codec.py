"""Encodes a message into frames and decodes it: preamble with the version, header, payload (passed on unchanged).

The caller passes the decoder, which says which messages are accepted. Each decoder is defined beside its messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from pool.errors import LocalProtocolError, RemoteProtocolError, VersionMismatchError
from pool.wire.caps import MAX_FRAMES, MAX_HEADER_BYTES
from pool.wire.fields import Message

PROTOCOL_VERSION = 2
MAGIC = b"WCP"
PREAMBLE = MAGIC + bytes([PROTOCOL_VERSION])

#: The exceptions that msgspec raises for bytes that are not a valid message.
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
    """Header and payload of one message. Raises RemoteProtocolError or its subclass VersionMismatchError only."""
    if len(frames) < 2 or len(frames) > MAX_FRAMES + 2:
        raise RemoteProtocolError(f"a message has 2 to {MAX_FRAMES + 2} frames, got {len(frames)}")
    if frames[0] != PREAMBLE:
        check_preamble(bytes(frames[0][:8]))
    if len(frames[1]) > MAX_HEADER_BYTES:
        raise RemoteProtocolError(f"a header has at most {MAX_HEADER_BYTES} bytes, got {len(frames[1])}")
    try:
        return decoder.decode(frames[1]), frames[2:]
    except MALFORMED as error:
        raise RemoteProtocolError(f"the header is not valid: {error}") from None


def check_preamble(preamble: bytes) -> None:
    """Raise VersionMismatchError for another version of the protocol, RemoteProtocolError for another protocol."""
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

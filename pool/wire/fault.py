"""The error of a job, in a payload frame: written in the child, decoded by the client only."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pool.errors import RemoteProtocolError
from pool.wire.codec import MALFORMED, Frame
from pool.wire.fields import Message


class Finding(Message, frozen=True):
    """A `model.Finding` on the wire."""

    rule: Annotated[str, Meta(max_length=32)]
    line: Annotated[int, Meta(ge=1, le=1 << 31)]
    column: Annotated[int, Meta(ge=1, le=1 << 31)]
    reason: Annotated[str, Meta(max_length=1024)]
    remedy: Annotated[str, Meta(max_length=1024)]


class Fault(Message, frozen=True, omit_defaults=True):
    """Why a job has no value: the exception that it raised, or what the screen found."""

    type: Annotated[str, Meta(max_length=512)]
    message: Annotated[str, Meta(max_length=65536)]
    traceback: Annotated[str, Meta(max_length=262144)] = ""
    findings: Annotated[tuple[Finding, ...], Meta(max_length=100)] = ()
    limit: Annotated[str, Meta(max_length=32)] = ""  #: the limit that the job reached, by its key in the configuration


_decoder: msgspec.msgpack.Decoder[Fault] = msgspec.msgpack.Decoder(Fault)
_encoder = msgspec.msgpack.Encoder()


def encode_fault(fault: Fault) -> bytes:
    return _encoder.encode(fault)


def decode_fault(frame: Frame) -> Fault:
    """Raises RemoteProtocolError when the frame is not a valid Fault."""
    try:
        return _decoder.decode(frame)
    except MALFORMED as error:
        raise RemoteProtocolError(f"the job's error is not valid: {error}") from None

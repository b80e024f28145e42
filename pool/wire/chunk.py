"""The calls of a chunk: one job whose code runs once for each of many arguments, one after the other.

They run in one child, or, with `apart`, each in a child of its own. Then the first frame of each call is its stdin.

    Submit, Run    payload [code, stdin, *files, *arguments of all calls]; `calls` has how many frames each call has
    Done, Result   payload [stdout, stderr, b"", calls, one frame for each call]; the streams are those of all calls

`calls` is the list of a `Call` for each call that has begun, in order. In one child all but the last one ended ok. The
frame of a call is its error, files and value, without anything between them; its `sizes` tell where each begins. The
runner writes both and decodes nothing that a call made; the daemon passes them on.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pool.errors import RemoteProtocolError
from pool.wire.caps import MAX_CALLS, MAX_FRAMES
from pool.wire.codec import MALFORMED, Frame
from pool.wire.fields import Count, EndFields


class Call(EndFields, frozen=True, kw_only=True, omit_defaults=True):
    """How one call ended. `sizes`: of [stdout, stderr, error, *files, *value]. Times: CLOCK_MONOTONIC, ns."""

    started_ns: Count = 0
    ended_ns: Count = 0
    sizes: Annotated[tuple[Count, ...], Meta(min_length=3, max_length=MAX_FRAMES)]


_Calls = Annotated[tuple[Call, ...], Meta(min_length=1, max_length=MAX_CALLS)]
_decoder: msgspec.msgpack.Decoder[tuple[Call, ...]] = msgspec.msgpack.Decoder(_Calls)
_encoder = msgspec.msgpack.Encoder()


def encode_calls(calls: list[Call]) -> bytes:
    return _encoder.encode(calls)


def decode_calls(frame: Frame) -> tuple[Call, ...]:
    """Raises RemoteProtocolError if the frame is not a list of calls."""
    try:
        return _decoder.decode(frame)
    except MALFORMED as error:
        raise RemoteProtocolError(f"the calls of the chunk are not valid: {error}") from None

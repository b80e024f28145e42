"""The fixed words of ZMTP 3 with the NULL mechanism: greeting, commands, and how a message is framed.

    greeting  FF, 8 bytes of padding, 7F │ 03, minor │ mechanism, 20 bytes │ as-server │ 31 bytes of zero
    command   name length, name, body: READY (properties), PING (ttl, context), PONG (context), ERROR (reason)
    frame     flags (1 more, 2 long, 4 command), size of 1 or 8 bytes, body

Everything here is pure. What a peer gets wrong raises RemoteProtocolError.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pool.errors import RemoteProtocolError

Frame = bytes | bytearray | memoryview

GREETING_BYTES = 64
_SIGNATURE_BYTES = 10
_MAJOR, _MINOR, _MECHANISM, _AS_SERVER = 10, 11, slice(12, 32), 32
_NULL = b"NULL".ljust(20, b"\0")
_MAX_IDENTITY_BYTES = 255
_MAX_CONTEXT_BYTES = 16
_TTL_BYTES = 2
#: Frames up to this size are sent from one buffer together with their neighbours; larger ones from where they lie.
_JOIN_BYTES = 16 * 1024


class Peer(NamedTuple):
    """The handshake is over, and this is who said READY."""

    kind: str  #: its socket type, "DEALER"
    identity: bytes
    minor: int


class Ping(NamedTuple):
    """To be answered with a Pong of the same context."""

    context: bytes


class Pong(NamedTuple):
    """The answer to a Ping."""


# ---- what comes in ----


def check_greeting(so_far: bytes | bytearray) -> int:
    """Its minor version (0 as long as that is not there). Raises as soon as it cannot become a greeting any more."""
    if so_far and so_far[0] != 0xFF:
        raise RemoteProtocolError("it does not begin as a ZMTP greeting")
    if len(so_far) >= _SIGNATURE_BYTES and so_far[_SIGNATURE_BYTES - 1] != 0x7F:
        raise RemoteProtocolError("the greeting's signature is not one")
    if len(so_far) > _MAJOR and so_far[_MAJOR] < 3:
        raise RemoteProtocolError(f"it speaks ZMTP {so_far[_MAJOR]}, this side 3")
    mechanism = so_far[_MECHANISM]
    if mechanism != _NULL[: len(mechanism)]:
        raise RemoteProtocolError("it asks for a security mechanism, this side has NULL")
    if len(so_far) > _AS_SERVER and so_far[_AS_SERVER] not in {0, 1}:
        raise RemoteProtocolError("the greeting's as-server byte is neither 0 nor 1")
    return so_far[_MINOR] if len(so_far) > _MINOR else 0


def read_ready(body: bytes, minor: int) -> Peer:
    """READY, the one command of a NULL handshake; ERROR is its refusal."""
    name, rest = _name(body)
    if name == b"ERROR":
        raise RemoteProtocolError(f"the peer gave up: {_name(rest)[0][:200]!r}")
    if name != b"READY":
        raise RemoteProtocolError(f"the command {name[:32]!r} came where READY belongs")
    properties = _properties(rest)
    kind, identity = properties.get(b"socket-type"), properties.get(b"identity", b"")
    if not kind or not kind.isalpha() or len(kind) > 16:
        raise RemoteProtocolError("READY names no socket type")
    if len(identity) > _MAX_IDENTITY_BYTES:
        raise RemoteProtocolError(f"READY has an identity of {len(identity)} bytes")
    return Peer(kind.decode("ascii", "replace"), identity, minor)


def read_command(body: bytes) -> Ping | Pong:
    """A command after the handshake."""
    name, rest = _name(body)
    if name == b"PING" and _TTL_BYTES <= len(rest) <= _TTL_BYTES + _MAX_CONTEXT_BYTES:
        return Ping(rest[_TTL_BYTES:])
    if name == b"PONG" and len(rest) <= _MAX_CONTEXT_BYTES:
        return Pong()
    raise RemoteProtocolError(f"the command {name[:32]!r} of {len(body)} bytes is not known here")


def _name(body: bytes) -> tuple[bytes, bytes]:
    """A short string and what follows it."""
    if not body or len(body) < 1 + body[0]:
        raise RemoteProtocolError("a command is shorter than it says")
    return body[1 : 1 + body[0]], body[1 + body[0] :]


def _properties(rest: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    while rest:
        name, rest = _name(rest)
        size = int.from_bytes(rest[:4])
        if not name or len(rest) < 4 + size:
            raise RemoteProtocolError("READY is shorter than it says")
        if name.lower() in found:
            raise RemoteProtocolError(f"READY names {name[:32]!r} twice")
        found[name.lower()] = rest[4 : 4 + size]
        rest = rest[4 + size :]
    return found


# ---- what goes out ----

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + _NULL + bytes(32)


def ready(kind: str) -> bytes:
    return _command(b"READY", _property(b"Socket-Type", kind.encode()) + _property(b"Identity", b""))


def pong(context: bytes) -> bytes:
    return _command(b"PONG", context)


def error(reason: str) -> bytes:
    words = reason.encode()[:200]
    return _command(b"ERROR", bytes([len(words)]) + words)


def _command(name: bytes, body: bytes) -> bytes:
    whole = bytes([len(name)]) + name + body
    return (bytes([4, len(whole)]) if len(whole) < 256 else b"\x06" + len(whole).to_bytes(8)) + whole


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4) + value


def pack(frames: Iterable[Frame]) -> list[bytes | memoryview]:
    """The buffers of one message, in order. A large frame is not copied."""
    views = [memoryview(frame).cast("B") if not isinstance(frame, bytes) else frame for frame in frames]
    buffers: list[bytes | memoryview] = []
    joined: list[bytes | memoryview] = []
    for left, view in zip(range(len(views) - 1, -1, -1), views, strict=True):
        size, more = len(view), 1 if left else 0
        joined.append(bytes((more, size)) if size < 256 else bytes((more | 2,)) + size.to_bytes(8))
        if size <= _JOIN_BYTES:
            joined.append(view)
        else:
            buffers += (b"".join(joined), view)
            joined.clear()
    if joined:
        buffers.append(b"".join(joined))
    return buffers

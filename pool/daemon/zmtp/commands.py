"""The greeting and the commands of ZMTP 3 with the NULL mechanism: bytes of a peer to events, and ours to bytes.

    greeting  FF, 8 bytes of padding, 7F | 03, minor | mechanism, 20 bytes | as-server | 31 bytes of zero
    command   name length, name, body: READY (properties), PING (ttl, context), PONG (context), ERROR (reason)

Bytes of a peer that break the protocol raise RemoteProtocolError, and nothing else is raised for any.
"""

from __future__ import annotations

from typing import NamedTuple

from pool.errors import RemoteProtocolError

GREETING_BYTES = 64
_SIGNATURE_BYTES = 10
_MAJOR, _MINOR, _MECHANISM, _AS_SERVER = 10, 11, slice(12, 32), 32
_NULL = b"NULL".ljust(20, b"\0")
_MAX_IDENTITY_BYTES = 255
_MAX_CONTEXT_BYTES = 16
_TTL_BYTES = 2
_TTLS_PER_S = 10


class Greeting(NamedTuple):
    """The peer's greeting has come and is valid. `minor` 1 and above: the peer knows PING and PONG."""

    minor: int


class Peer(NamedTuple):
    """The peer's READY has come: the handshake is over."""

    kind: str  #: its socket type, "DEALER"
    identity: bytes


class Ping(NamedTuple):
    """To be answered by a PONG with the same context."""

    ttl_s: float  #: the peer asks us to close the connection when nothing comes for so long; 0: it does not ask
    context: bytes


class Pong(NamedTuple):
    """The answer to a PING of ours."""


# ---- what comes in ----


def check_greeting(so_far: bytes) -> None:
    """Raise as soon as these bytes cannot become a valid greeting any more."""
    if so_far and so_far[0] != 0xFF:
        raise RemoteProtocolError("this is no ZMTP greeting: its first byte is not 0xff")
    if len(so_far) >= _SIGNATURE_BYTES and so_far[_SIGNATURE_BYTES - 1] != 0x7F:
        raise RemoteProtocolError("this is no ZMTP greeting: its signature does not end with 0x7f")
    if len(so_far) > _MAJOR and so_far[_MAJOR] < 3:
        raise RemoteProtocolError(
            f"the peer speaks ZMTP {so_far[_MAJOR]}; use a libzmq that speaks ZMTP 3 (4.0 or newer)"
        )
    mechanism = so_far[_MECHANISM]
    if mechanism != _NULL[: len(mechanism)]:
        raise RemoteProtocolError("the peer asks for a security mechanism; this socket has none (NULL)")
    if len(so_far) > _AS_SERVER and so_far[_AS_SERVER] not in {0, 1}:
        raise RemoteProtocolError("the greeting's as-server byte is neither 0 nor 1")


def read_greeting(whole: bytes) -> Greeting:
    """A whole greeting that was checked."""
    return Greeting(whole[_MINOR])


def read_ready(body: bytes) -> Peer:
    """READY is the one command of a NULL handshake; a peer that gives up sends ERROR."""
    name, rest = _short_string(body)
    if name == b"ERROR":
        raise RemoteProtocolError(f"the peer refused the connection: {_short_string(rest)[0][:200]!r}")
    if name != b"READY":
        raise RemoteProtocolError(f"the command {name[:32]!r} came instead of READY")
    properties = _properties(rest)
    kind, identity = properties.get(b"socket-type"), properties.get(b"identity", b"")
    if not kind or not kind.isalpha() or len(kind) > 16:
        raise RemoteProtocolError("READY names no socket type")
    if len(identity) > _MAX_IDENTITY_BYTES:
        raise RemoteProtocolError(f"READY has an identity of {len(identity)} bytes, {_MAX_IDENTITY_BYTES} are allowed")
    return Peer(kind.decode("ascii", "replace"), identity)


def read_command(body: bytes) -> Ping | Pong:
    """A command after the handshake."""
    name, rest = _short_string(body)
    if name == b"PING" and _TTL_BYTES <= len(rest) <= _TTL_BYTES + _MAX_CONTEXT_BYTES:
        return Ping(int.from_bytes(rest[:_TTL_BYTES]) / _TTLS_PER_S, rest[_TTL_BYTES:])
    if name == b"PONG" and len(rest) <= _MAX_CONTEXT_BYTES:
        return Pong()
    raise RemoteProtocolError(f"the command {name[:32]!r} of {len(body)} bytes is not known here")


def _short_string(body: bytes) -> tuple[bytes, bytes]:
    """A string with its length in one byte, and the bytes after it."""
    if not body or len(body) < 1 + body[0]:
        raise RemoteProtocolError("a command is shorter than it says")
    return body[1 : 1 + body[0]], body[1 + body[0] :]


def _properties(rest: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    while rest:
        name, rest = _short_string(rest)
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


def ping(context: bytes = b"") -> bytes:
    """Without a TTL: the peer is not asked to close the connection when nothing comes from us for a while."""
    return _command(b"PING", bytes(_TTL_BYTES) + context)


def pong(context: bytes) -> bytes:
    return _command(b"PONG", context)


def error(reason: str) -> bytes:
    text = reason.encode()[:200]
    return _command(b"ERROR", bytes([len(text)]) + text)


def _command(name: bytes, body: bytes) -> bytes:
    whole = bytes([len(name)]) + name + body
    return (bytes([4, len(whole)]) if len(whole) < 256 else b"\x06" + len(whole).to_bytes(8)) + whole


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4) + value

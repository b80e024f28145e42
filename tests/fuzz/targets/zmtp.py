"""A connection's bytes: an input is two bytes that say how they are cut, and the stream itself.

The stream is read twice: whole, with the sizes as they are; and in pieces, by a decoder whose large frames begin at a
few hundred bytes, so that a small input reaches their pages. Both have to tell the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from random import Random

from pool.daemon.zmtp import codec, decoder
from pool.daemon.zmtp.decoder import FRAME_COST, MAX_COMMAND_BYTES, Decoder, Event, Parts
from pool.errors import RemoteProtocolError
from tests.fuzz.mutate import bend_bytes
from tests.fuzz.target import Target

_LIMIT = 8192
_MAX_FRAMES = 12
_MOST_PIECES = 200
_SMALL = {"LARGE_BYTES": 256, "_FIRST_BYTES": 64}
_READY = codec.GREETING + codec.ready("DEALER")
_GREETING = len(codec.GREETING)


class _Talk:
    """Feeds pieces as a connection does, and keeps what came out of them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.fault = ""
        self._decoder = Decoder(limit=_LIMIT, max_frames=_MAX_FRAMES)

    def hear(self, data: bytes, *, first: int, piece: int) -> None:
        rest, size = memoryview(data), first
        try:
            self._drain()
            while rest:
                rest = rest[self._take(rest[: size or len(rest)]) :]
                size = piece
                self._drain()
        except RemoteProtocolError as error:
            self.fault = str(error)

    def _take(self, taken: memoryview) -> int:
        room = self._decoder.room()
        if room is None:
            self._decoder.feed(taken)
            return len(taken)
        with room:
            count = min(len(room), len(taken))
            room[:count] = taken[:count]
        self._decoder.filled(count)
        return count

    def _drain(self) -> None:
        while (event := self._decoder.next()) is not None:
            self.events.append(Parts([bytes(each) for each in event.frames]) if isinstance(event, Parts) else event)
            self._check_held()
        self._check_held()
        self._decoder.settle()

    def _check_held(self) -> None:
        held = self._decoder
        pages = held._body._pages if held._body is not None else None
        assert held.held <= _LIMIT + MAX_COMMAND_BYTES
        assert len(held._frames) <= _MAX_FRAMES
        assert pages is None or len(pages) <= max(2 * held._body.filled, _SMALL["_FIRST_BYTES"])
        assert held._held >= FRAME_COST * len(held._frames)


@contextmanager
def _small_pages() -> Iterator[None]:
    before = {name: getattr(decoder, name) for name in _SMALL}
    vars(decoder).update(_SMALL)
    try:
        yield
    finally:
        vars(decoder).update(before)


def one(data: bytes) -> None:
    first, piece, stream = *(data[:2].ljust(2, b"\0")), data[2:]
    whole, pieces = _Talk(), _Talk()
    whole.hear(stream, first=0, piece=0)
    with _small_pages():
        pieces.hear(stream, first=first, piece=max(piece, len(stream) // _MOST_PIECES))
    assert whole.events == pieces.events
    assert whole.fault == pieces.fault
    _check_packed(whole.events)


def _check_packed(events: list[Event]) -> None:
    """What we would send on comes out as it went in."""
    said = [event for event in events if isinstance(event, Parts)]
    stream = b"".join(bytes(each) for event in said for each in codec.pack(event.frames))
    again = _Talk()
    again.hear(_READY + stream, first=0, piece=0)
    assert again.events[1:] == said
    assert not again.fault


def mutate(data: bytes, random: Random) -> bytes:
    """Often a frame more, which fits or does not; and often the greeting is left as it is."""
    if random.random() < 0.4:
        return data + _frame(random)
    if random.random() < 0.5 or len(data) < 2 + _GREETING:
        return bend_bytes(data, random)
    return data[: 2 + _GREETING] + bend_bytes(data[2 + _GREETING :], random)


def _frame(random: Random) -> bytes:
    flags = random.choice((0, 1, 1, 2, 3, 4, 6, random.randrange(256)))
    body = random.randbytes(random.choice((0, 1, 30, 255, 256, 300, 700)))
    size = len(body) if random.random() < 0.8 else random.choice((0, 255, 8192, 8193, 1 << 31, (1 << 64) - 1))
    if flags & 4 and random.random() < 0.8:
        body = random.choice((b"\4PING\0\1x", b"\4PONGx", b"\5READY", b"\5ERROR\1x", body))
        size = len(body)
    return bytes([flags]) + (size.to_bytes(8) if flags & 2 else bytes([size % 256])) + body


def seeds() -> Iterable[bytes]:
    pack = codec.pack
    yield b"\0\0" + codec.GREETING[:20]
    yield b"\1\1" + _READY
    yield b"\7\3" + _READY + b"\4\6\4PONGx" + b"\4\x08\4PING\0\1x"
    yield b"\0\1" + _READY + b"".join(map(bytes, pack([b"a", b"", b"b" * 300])))
    yield b"\x40\x11" + _READY + b"".join(map(bytes, pack([b"c" * 3000, b"d" * 40])))
    yield b"\0\5" + _READY + b"".join(map(bytes, pack([b""] * (_MAX_FRAMES + 1))))
    yield b"\0\5" + _READY + b"\2" + (1 << 60).to_bytes(8) + b"x"
    yield b"\0\5" + codec.GREETING + b"\4\x26\5READY\x0bSocket-Type\0\0\0\6DEALER\x08Identity\0\0\0\0"
    yield b"\0\5" + codec.GREETING + codec.error("no")


TARGET = Target(
    contract="RemoteProtocolError or messages, the same however cut, within the caps",
    one=one,
    mutate=mutate,
    seeds=seeds,
    words=(
        codec.GREETING,
        _READY[_GREETING:],
        b"\4PING",
        b"\4PONG",
        b"\5ERROR",
        b"Socket-Type",
        b"Identity",
        b"\2\0\0\0\0",
    ),
    inputs=100_000,
    max_len=2048,
    base_bytes=256 * 1024,
    per_byte=400,
)

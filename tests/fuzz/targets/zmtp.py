"""The bytes of a connection: an input is two bytes that say how the stream is cut, then the stream.

It is read twice: whole, with the decoder's sizes as they are; and in pieces, by a decoder whose large frames begin at
100 bytes and have pages from 256 bytes on, so that a small input reaches both. Both must give the same events.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from random import Random

from pool.daemon.zmtp import body as body_module
from pool.daemon.zmtp import codec, commands
from pool.daemon.zmtp.codec import FRAME_COST, MAX_COMMAND_BYTES, Event
from pool.errors import RemoteProtocolError
from tests.fuzz.mutate import bend_bytes
from tests.fuzz.target import Target
from tests.support.zmtp_reader import Reader

_LIMIT = 8192
_MAX_FRAMES = 12
_MOST_PIECES = 200
_FIRST_BYTES = 64
#: The module, and its constants.
_SMALL = ((body_module, {"LARGE_BYTES": 256, "_FIRST_BYTES": _FIRST_BYTES}), (codec, {"_WHOLE_BYTES": 100}))
_READY = commands.GREETING + commands.ready("DEALER")
_GREETING = len(commands.GREETING)


class _Reader(Reader):
    """Keeps the fault, too, and watches what the decoder holds."""

    def __init__(self) -> None:
        super().__init__(limit=_LIMIT, max_frames=_MAX_FRAMES)
        self.fault = ""

    def read(self, data: bytes, piece: int | None = None, *, first: int | None = None) -> list[Event]:
        try:
            return super().read(data, piece, first=first)
        except RemoteProtocolError as error:
            self.fault = str(error)
            return self.events

    def check(self) -> None:
        held = self.decoder
        pages = held.body._pages if held.body is not None else None
        assert held.held <= _LIMIT + MAX_COMMAND_BYTES + 9
        assert len(held._frames) <= _MAX_FRAMES
        assert pages is None or len(pages) <= max(2 * held.body.filled, _FIRST_BYTES)
        assert held._size >= FRAME_COST * len(held._frames)


@contextmanager
def _small_pages() -> Iterator[None]:
    before = [(module, {name: getattr(module, name) for name in small}) for module, small in _SMALL]
    for module, small in _SMALL:
        vars(module).update(small)
    try:
        yield
    finally:
        for module, normal in before:
            vars(module).update(normal)


def one(data: bytes) -> None:
    first, piece, stream = *(data[:2].ljust(2, b"\0")), data[2:]
    whole, pieces = _Reader(), _Reader()
    whole.read(stream)
    with _small_pages():
        pieces.read(stream, max(piece, len(stream) // _MOST_PIECES), first=first)
    assert whole.events == pieces.events
    assert whole.fault == pieces.fault
    _check_packed(whole.events)


def _check_packed(events: list[Event]) -> None:
    """Messages that are packed and read again are the same."""
    messages = [event for event in events if isinstance(event, list)]
    stream = b"".join(bytes(each) for message in messages for each in codec.pack(message))
    again = _Reader()
    again.read(_READY + stream)
    assert again.events[2:] == messages
    assert not again.fault


def mutate(data: bytes, random: Random) -> bytes:
    """Often adds a frame, which may be valid or not, and often keeps the greeting as it is."""
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
    yield b"\0\0" + commands.GREETING[:20]
    yield b"\1\1" + _READY
    yield b"\7\3" + _READY + b"\4\6\4PONGx" + b"\4\x08\4PING\0\1x"
    yield b"\0\1" + _READY + b"".join(map(bytes, pack([b"a", b"", b"b" * 300])))
    yield b"\x40\x11" + _READY + b"".join(map(bytes, pack([b"c" * 3000, b"d" * 40])))
    yield b"\0\5" + _READY + b"".join(map(bytes, pack([b""] * (_MAX_FRAMES + 1))))
    yield b"\0\5" + _READY + b"\2" + (1 << 60).to_bytes(8) + b"x"
    yield b"\0\5" + commands.GREETING + b"\4\x26\5READY\x0bSocket-Type\0\0\0\6DEALER\x08Identity\0\0\0\0"
    yield b"\0\5" + commands.GREETING + commands.error("no")


TARGET = Target(
    contract="RemoteProtocolError or messages, the same however cut, within the caps",
    one=one,
    mutate=mutate,
    seeds=seeds,
    words=(
        commands.GREETING,
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

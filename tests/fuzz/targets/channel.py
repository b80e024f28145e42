"""What comes back from a process that has run hostile code: an input is a byte that says how it is cut, and the bytes.

They go through a real socket, and what the runner makes of them is compared with the plainest reader there can be.
"""

import socket
import struct
from collections.abc import Iterable
from random import Random

from runner import channel
from runner.channel import Answer, ChannelError, Collector

from pool.model import Outcome
from tests.fuzz.mutate import bend_bytes
from tests.fuzz.target import Target

_MOST_BYTES = 16 * 1024
_MOST_FRAMES = 20
_MOST_PIECES = 100


def one(data: bytes) -> None:
    piece, stream = data[0] if data else 0, data[1:]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        collector = Collector(sock=ours, max_bytes=_MOST_BYTES, max_frames=_MOST_FRAMES)
        try:
            _feed(collector, theirs, stream, piece=max(piece or len(stream), len(stream) // _MOST_PIECES))
        except ChannelError:
            assert _plainly(stream) is None
            return
    assert collector.frames == _plainly(stream)
    if collector.frames is not None:
        _check_answer(collector.frames)


def _feed(collector: Collector, theirs: socket.socket, stream: bytes, *, piece: int) -> None:
    for at in range(0, len(stream), piece or 1):
        if collector.frames is not None:  # nobody reads what comes after it, and a send would wait
            return
        theirs.sendall(stream[at : at + piece])
        collector.feed()
        _check_held(collector)
    theirs.close()
    while collector.frames is None and not collector.closed:
        collector.feed()
    _check_held(collector)


def _check_held(collector: Collector) -> None:
    frames = collector._parts or []
    assert len(frames) <= _MOST_FRAMES
    assert sum(map(len, frames)) <= _MOST_BYTES
    assert len(collector._early) <= 4 + 8 * _MOST_FRAMES + channel.FIRST_READ_BYTES


def _plainly(stream: bytes) -> list[bytes] | None:
    """The message, if there is a whole one."""
    count = int.from_bytes(stream[:4])
    body = 4 + 8 * count
    if len(stream) < 4 or not 1 <= count <= _MOST_FRAMES or len(stream) < body:
        return None
    frames = []
    for at in range(4, body, 8):
        size = int.from_bytes(stream[at : at + 8])
        frames.append(stream[body : body + size])
        body += size
    whole = body <= len(stream) and sum(map(len, frames)) <= _MOST_BYTES
    return frames if whole else None


def _check_answer(frames: list[bytearray]) -> None:
    claim = Answer.of(frames)
    if claim is not None:
        assert claim.outcome in channel.CLAIMS
        assert claim.exit_code is None or 0 <= claim.exit_code <= 255
        assert claim.frames() == [claim.frames()[0], *frames[1:]]
        assert Answer.of(claim.frames()) == claim


def _message(*frames: bytes) -> bytes:
    return struct.pack(f"!I{len(frames)}Q", len(frames), *map(len, frames)) + b"".join(frames)


def mutate(data: bytes, random: Random) -> bytes:
    """Half of them are whole messages with one thing wrong."""
    if random.random() < 0.5:
        return bend_bytes(data, random)
    frames = [random.randbytes(random.choice((0, 1, 22, 22, 300))) for _ in range(random.choice((1, 2, 5, 20, 21)))]
    message = _message(bytes([random.randrange(6)]) + frames[0][1:], *frames[1:])
    return data[:1] + (bend_bytes(message, random) if random.random() < 0.5 else message)


def seeds() -> Iterable[bytes]:
    claim = Answer(Outcome.OK, 2, started_ns=1, value=[b"value"])
    exited = Answer(Outcome.ERROR, 9, started_ns=5, exit_code=3, error=b"fault", files=[b"name", b"content"])
    yield b"\0" + _message(*claim.frames())
    yield b"\1" + _message(*exited.frames())
    yield b"\7" + _message(b"", b"", b"")
    yield b"\0" + _message(b"x" * 2000, b"y" * 900)
    yield b"\0" + struct.pack("!IQ", 1, 1 << 60)
    yield b"\0" + struct.pack("!I", 0xFFFFFFFF) + bytes(64)
    yield b"\0" + struct.pack("!I", 0)


TARGET = Target(
    contract="ChannelError or the message, never more than the cap",
    one=one,
    mutate=mutate,
    seeds=seeds,
    words=(struct.pack("!I", 1), struct.pack("!Q", 1 << 60), struct.pack("!Q", _MOST_BYTES), struct.pack("!IQ", 1, 22)),
    inputs=100_000,
    base_bytes=_MOST_BYTES + 128 * 1024,
    per_byte=20,
)

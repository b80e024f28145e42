"""The codec without a socket: the events of a stream, however it is cut, and the bounds for any bytes."""

import pytest

from pool.daemon.zmtp import codec, commands
from pool.daemon.zmtp.body import LARGE_BYTES, Body
from pool.daemon.zmtp.codec import FRAME_COST, MAX_COMMAND_BYTES
from pool.daemon.zmtp.commands import GREETING, Greeting, Peer, Ping, Pong
from pool.errors import RemoteProtocolError
from tests.support.zmtp_reader import Reader

LIMIT = 4 * LARGE_BYTES
HELLO = GREETING + commands.ready("DEALER")


def framed(*messages):
    return b"".join(bytes(each) for message in messages for each in codec.pack(message))


def frame(flags, body=b"", size=None):
    size = len(body) if size is None else size
    return (bytes([flags, size]) if not flags & 2 else bytes([flags]) + size.to_bytes(8)) + body


def command(name, body=b""):
    return frame(4, bytes([len(name)]) + name + body)


class Watched(Reader):
    """Watches what the decoder holds."""

    def __init__(self, limit=LIMIT, max_frames=64):
        super().__init__(limit=limit, max_frames=max_frames)
        self.most = 0

    def check(self):
        self.most = max(self.most, self.decoder.held)


def events_of(data, piece=None, **caps):
    return Watched(**caps).read(data, piece)


def test_a_greeting_gives_the_version_and_ready_gives_the_peer():
    ready = command(b"READY", b"\x0bSocket-Type\0\0\0\6DEALER\x08Identity\0\0\0\3abc\x05Other\0\0\0\0")
    for minor in (0, 1, 7):
        greeting = GREETING[:11] + bytes([minor]) + GREETING[12:]
        assert events_of(greeting + ready) == [Greeting(minor), Peer("DEALER", b"abc")]


def test_commands_may_come_between_the_frames_of_a_message():
    stream = HELLO + frame(1, b"a") + command(b"PING", b"\0\0ctx") + frame(0, b"b") + command(b"PONG", b"ctx")
    assert events_of(stream)[2:] == [Ping(0, b"ctx"), [b"a", b"b"], Pong()]


@pytest.mark.parametrize(
    "size", [0, 1, 255, 256, 70_000, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, 3 * LARGE_BYTES // 2]
)
@pytest.mark.parametrize("piece", [1000, 300_000, None])
def test_a_frame_of_any_size_arrives_as_it_was_sent(size, piece):
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert events_of(HELLO + framed([b"x", body, b"y"]), piece)[2:] == [[b"x", body, b"y"]]


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "greeting"),
        (b"\x16\x03\x01\x02\0\x01", "greeting"),
        (GREETING[:9] + b"\0", "signature"),
        (b"\xff" + bytes(7) + b"\1\x7f\x01", "ZMTP 1"),
        (GREETING[:12] + b"CURVE", "security mechanism"),
        (GREETING[:12] + b"NULLX", "security mechanism"),
        (GREETING[:32] + b"\x02", "as-server"),
        (GREETING + frame(0, b"early"), "before READY"),
        (GREETING + command(b"HELLO"), "instead of READY"),
        (GREETING + command(b"ERROR", b"\2no"), "refused the connection"),
        (GREETING + frame(4, b"\x05REA"), "shorter"),
        (GREETING + frame(4, b""), "shorter"),
        (GREETING + command(b"READY"), "no socket type"),
        (GREETING + command(b"READY", b"\x0bSocket-Type\0\0\0\xffDEALER"), "shorter"),
        (GREETING + command(b"READY", b"\x0bSocket-Type\0\0\0\2\xff\xfe"), "no socket type"),
        (GREETING + command(b"READY", b"\1A\0\0\0\0\1a\0\0\0\0"), "twice"),
        (GREETING + frame(6, size=MAX_COMMAND_BYTES + 1), "a command has"),
        (HELLO + commands.ready("DEALER"), "not known"),
        (HELLO + command(b"SUBSCRIBE", b"x"), "not known"),
        (HELLO + command(b"PING", b"\0\0" + b"c" * 17), "not known"),
        (HELLO + command(b"PING", b"\0"), "not known"),
        (HELLO + b"\x08\0", "not allowed here"),
        (HELLO + b"\x05\0", "not allowed here"),
        (HELLO + frame(2, size=(1 << 64) - 1), "after 0 bytes"),
    ],
)
def test_bytes_that_break_the_protocol_are_refused_and_the_error_says_how(stream, words):
    with pytest.raises(RemoteProtocolError, match=words):
        events_of(stream)
    with pytest.raises(RemoteProtocolError, match=words):
        events_of(stream, 1)


def test_a_message_before_the_fault_is_received():
    reader = Watched()
    with pytest.raises(RemoteProtocolError):
        reader.read(HELLO + framed([b"said"]) + b"\xff")
    assert reader.events[2:] == [[b"said"]]


def test_frames_and_bytes_of_a_message_are_limited_and_those_of_a_connection_are_not():
    assert len(events_of(HELLO + framed([b"x"] * 4) * 100, max_frames=4)) == 102
    with pytest.raises(RemoteProtocolError, match="more than 4 frames"):
        events_of(HELLO + framed([b"x"] * 5), max_frames=4)
    with pytest.raises(RemoteProtocolError, match="1000 are allowed"):
        events_of(HELLO + framed([b"x" * 500, b"x" * 500]), limit=1000)


def test_the_limit_can_be_changed_from_one_frame_to_the_next():
    reader = Watched(limit=100)
    reader.read(HELLO)
    reader.decoder.limit = 10_000
    reader.read(framed([b"x" * 5000]))
    reader.decoder.limit = 100
    with pytest.raises(RemoteProtocolError):
        reader.read(framed([b"x" * 5000]))


def test_the_last_bytes_read_are_let_go_when_their_messages_are_taken():
    reader = Watched()
    reader.read(HELLO + framed([b"x" * 8000]))
    assert reader.decoder._data == b""
    assert not reader.decoder.pending


def test_empty_frames_count_against_the_limit():
    reader = Watched(limit=10 * FRAME_COST, max_frames=1_000_000)
    with pytest.raises(RemoteProtocolError):
        reader.read(HELLO + frame(1) * 11)
    assert reader.most <= 10 * FRAME_COST


def test_memory_grows_with_the_bytes_that_arrive_not_with_the_announced_size():
    body = Body(1 << 40)
    body.add(memoryview(b"x" * 1000))
    with body.room() as room:
        assert len(room) < LARGE_BYTES


def test_a_large_frame_is_not_copied_when_it_is_whole():
    body = Body(LARGE_BYTES)
    while body.filled < body.size:
        with body.room() as room:
            room[:] = b"z" * len(room)
            body.filled += len(room)
    frame = body.frame()
    assert isinstance(frame, memoryview)
    assert frame.obj is body.frame().obj
    assert frame == b"z" * LARGE_BYTES


def test_a_large_frame_is_sent_from_where_it_lies():
    large = bytearray(1_000_000)
    buffers = codec.pack([b"small", large, b"after"])
    assert [len(each) for each in buffers] == [2 + 5 + 9, len(large), 2 + 5]
    assert buffers[1].obj is large

"""The codec alone: what bytes mean, however they are cut, and what they can never do."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pool.daemon.zmtp import codec
from pool.daemon.zmtp.codec import GREETING, Peer, Ping, Pong
from pool.daemon.zmtp.decoder import FRAME_COST, LARGE_BYTES, MAX_COMMAND_BYTES, Body, Decoder, Parts
from pool.errors import RemoteProtocolError

LIMIT = 4 * LARGE_BYTES
HELLO = GREETING + codec.ready("DEALER")


def framed(*messages):
    return b"".join(bytes(each) for message in messages for each in codec.pack(message))


def frame(flags, body=b"", size=None):
    size = len(body) if size is None else size
    return (bytes([flags, size]) if not flags & 2 else bytes([flags]) + size.to_bytes(8)) + body


def command(name, body=b""):
    return frame(4, bytes([len(name)]) + name + body)


class Talk:
    """Feeds pieces as a connection does, and watches what the decoder holds."""

    def __init__(self, limit=LIMIT, max_frames=64):
        self.decoder = Decoder(limit=limit, max_frames=max_frames)
        self.events, self.most = [], 0

    def drain(self):
        while (event := self.decoder.next()) is not None:
            self.events.append(Parts([bytes(each) for each in event.frames]) if isinstance(event, Parts) else event)
        self.most = max(self.most, self.decoder.held)

    def say(self, data, piece=None):
        rest = memoryview(data)
        self.drain()
        while rest:
            room = self.decoder.room()
            if room is None:
                taken = rest[:piece]
                self.decoder.feed(taken)
                self.decoder.settle()
            else:
                with room:
                    taken = rest[: min(len(room), piece or len(room))]
                    room[: len(taken)] = taken
                self.decoder.filled(len(taken))
            rest = rest[len(taken) :]
            self.drain()
        return self.events


def events_of(data, piece=None, **caps):
    return Talk(**caps).say(data, piece)


MESSAGES = st.lists(st.lists(st.binary(max_size=400), min_size=1, max_size=5), max_size=6)


def test_a_greeting_and_ready_give_the_peer():
    ready = command(b"READY", b"\x0bSocket-Type\0\0\0\6DEALER\x08Identity\0\0\0\3abc\x05Other\0\0\0\0")
    for minor in (0, 1, 7):
        greeting = GREETING[:11] + bytes([minor]) + GREETING[12:]
        assert events_of(greeting + ready) == [Peer("DEALER", b"abc", minor)]


def test_commands_may_come_between_the_frames_of_a_message():
    stream = HELLO + frame(1, b"a") + command(b"PING", b"\0\0ctx") + frame(0, b"b") + command(b"PONG", b"ctx")
    assert events_of(stream)[1:] == [Ping(b"ctx"), Parts([b"a", b"b"]), Pong()]


@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 4000), max_size=20), tail=st.binary(max_size=12))
@settings(max_examples=200, deadline=None)
def test_however_a_stream_is_cut_its_events_are_the_same(messages, cuts, tail):
    stream = HELLO + framed(*messages) + tail

    def heard(pieces):
        talk = Talk()
        try:
            for piece in pieces:
                talk.say(piece)
        except RemoteProtocolError as error:
            return talk.events, error.message
        return talk.events, None

    at = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    whole = heard([stream])
    assert heard([stream[a:b] for a, b in itertools.pairwise(at)]) == whole
    assert heard([bytes([each]) for each in stream]) == whole
    assert whole[0][1 : 1 + len(messages)] == [Parts(message) for message in messages]


@pytest.mark.parametrize(
    "size", [0, 1, 255, 256, 70_000, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, 3 * LARGE_BYTES // 2]
)
@pytest.mark.parametrize("piece", [1000, 300_000, None])
def test_a_frame_of_any_size_arrives_as_it_was_sent(size, piece):
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert events_of(HELLO + framed([b"x", body, b"y"]), piece)[1:] == [Parts([b"x", body, b"y"])]


VALID = HELLO + framed([b"one", b"two" * 200], [b""])


@given(
    prefix=st.sampled_from([0, 1, 10, 11, 12, 32, 64, 66, 100, len(HELLO), len(HELLO) + 7, len(VALID)]),
    noise=st.binary(max_size=300),
    piece=st.integers(1, 64),
)
@example(prefix=len(HELLO), noise=b"\x02" + b"\xff" * 8, piece=9)
@settings(max_examples=600, deadline=None)
def test_whatever_the_bytes_nothing_else_is_raised_and_no_more_than_the_cap_is_held(prefix, noise, piece):
    talk = Talk(limit=1000, max_frames=4)
    with contextlib.suppress(RemoteProtocolError):
        talk.say(VALID[:prefix] + noise, piece)
    assert talk.most <= max(1000, MAX_COMMAND_BYTES)


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
        (GREETING + command(b"HELLO"), "READY belongs"),
        (GREETING + command(b"ERROR", b"\2no"), "gave up"),
        (GREETING + frame(4, b"\x05REA"), "shorter"),
        (GREETING + frame(4, b""), "shorter"),
        (GREETING + command(b"READY"), "no socket type"),
        (GREETING + command(b"READY", b"\x0bSocket-Type\0\0\0\xffDEALER"), "shorter"),
        (GREETING + command(b"READY", b"\x0bSocket-Type\0\0\0\2\xff\xfe"), "no socket type"),
        (GREETING + command(b"READY", b"\1A\0\0\0\0\1a\0\0\0\0"), "twice"),
        (GREETING + frame(6, size=MAX_COMMAND_BYTES + 1), "command of"),
        (HELLO + codec.ready("DEALER"), "not known"),
        (HELLO + command(b"SUBSCRIBE", b"x"), "not known"),
        (HELLO + command(b"PING", b"\0\0" + b"c" * 17), "not known"),
        (HELLO + command(b"PING", b"\0"), "not known"),
        (HELLO + b"\x08\0", "no frame"),
        (HELLO + b"\x05\0", "no frame"),
        (HELLO + frame(2, size=(1 << 64) - 1), "bytes after 0"),
    ],
)
def test_what_is_no_zmtp_is_refused_with_what_it_was(stream, words):
    with pytest.raises(RemoteProtocolError, match=words):
        events_of(stream)
    with pytest.raises(RemoteProtocolError, match=words):
        events_of(stream, 1)


def test_what_was_said_before_the_fault_is_heard():
    talk = Talk()
    with pytest.raises(RemoteProtocolError):
        talk.say(HELLO + framed([b"said"]) + b"\xff")
    assert talk.events[1:] == [Parts([b"said"])]


def test_frames_and_bytes_of_a_message_are_capped_and_not_those_of_a_connection():
    assert len(events_of(HELLO + framed([b"x"] * 4) * 100, max_frames=4)) == 101
    with pytest.raises(RemoteProtocolError, match="more than 4 frames"):
        events_of(HELLO + framed([b"x"] * 5), max_frames=4)
    with pytest.raises(RemoteProtocolError, match="at most 1000"):
        events_of(HELLO + framed([b"x" * 500, b"x" * 500]), limit=1000)


def test_the_limit_can_be_changed_from_one_frame_to_the_next():
    talk = Talk(limit=100)
    talk.say(HELLO)
    talk.decoder.limit = 10_000
    talk.say(framed([b"x" * 5000]))
    talk.decoder.limit = 100
    with pytest.raises(RemoteProtocolError):
        talk.say(framed([b"x" * 5000]))


def test_endless_empty_frames_are_not_free():
    talk = Talk(limit=10 * FRAME_COST, max_frames=1_000_000)
    with pytest.raises(RemoteProtocolError):
        talk.say(HELLO + frame(1) * 11)
    assert talk.most <= 10 * FRAME_COST


def test_memory_follows_what_has_arrived_and_not_what_was_announced():
    body = Body(1 << 40)
    body.add(memoryview(b"x" * 1000))
    with body.room() as room:
        assert len(room) < LARGE_BYTES


def test_a_large_frame_is_not_copied_when_it_is_whole():
    body = Body(LARGE_BYTES)
    while body.missing:
        with body.room() as room:
            room[:] = b"z" * len(room)
            body.took(len(room))
    frame = body.frame()
    assert isinstance(frame, memoryview)
    assert frame.obj is body.frame().obj
    assert frame == b"z" * LARGE_BYTES


def test_a_large_frame_is_sent_from_where_it_lies():
    large = bytearray(1_000_000)
    buffers = codec.pack([b"small", large, b"after"])
    assert [len(each) for each in buffers] == [2 + 5 + 9, len(large), 2 + 5]
    assert buffers[1].obj is large

"""Frames between the processes of a worker, also from a hostile writer."""

import socket
import struct
import threading

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runner import channel
from runner.channel import Answer, ChannelError, Collector

from pool import wire
from pool.model import Outcome


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def collect(sock, *, max_bytes=1 << 20, max_frames=16):
    return Collector(sock=sock, max_bytes=max_bytes, max_frames=max_frames)


def test_the_largest_answer_fits_into_the_done_that_is_made_of_it():
    report = Answer(Outcome.OK, 0).frames()[0]
    answer = Answer.of([report, *[bytearray()] * (channel.MAX_FRAMES - 1)])
    done = wire.Done(job_id="j", epoch=1, outcome=Outcome.OK)
    wire.encode(done, [b"stdout", b"stderr", answer.error, *answer.files[1::2], *answer.value])


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=16))
@settings(max_examples=50, deadline=None)
def test_every_message_arrives_as_it_was_sent(frames):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        channel.send(theirs, frames)
        collector = collect(ours)
        collector.feed()
        assert collector.frames == frames


def test_a_message_that_comes_byte_by_byte_is_put_together(pair):
    ours, theirs = pair
    collector = collect(ours)
    for byte in struct.pack("!IQQ", 2, 3, 0) + b"abc":
        assert collector.frames is None
        theirs.send(bytes([byte]))
        collector.feed()
    assert collector.frames == [b"abc", b""]


def test_a_message_larger_than_the_socket_buffer_arrives_whole(pair):
    ours, theirs = pair
    big = bytes(range(256)) * 40_000
    sender = threading.Thread(target=channel.send, args=(theirs, [b"head", big]))
    sender.start()
    collector = collect(ours, max_bytes=20 << 20)
    while collector.frames is None:
        collector.feed()
    sender.join()
    assert collector.frames == [b"head", big]


def test_a_writer_that_sends_byte_after_byte_gets_a_few_reads_in_a_turn():
    class Trickle:
        reads = 0

        def recv(self, _):
            self.reads += 1
            return struct.pack("!IQ", 1, 10_000)

        def recv_into(self, _):
            self.reads += 1
            return 1

    collector = collect(sock := Trickle())
    for turn in range(1, 4):
        collector.feed()
        assert (collector.frames, sock.reads) == (None, turn * channel.READS_PER_TURN)


def test_the_last_feed_takes_all_of_a_message_of_many_frames(pair):
    ours, theirs = pair
    frames = [b"%d" % number for number in range(channel.MAX_FRAMES)]
    sender = threading.Thread(target=channel.send, args=(theirs, frames))
    sender.start()
    sender.join()
    theirs.close()
    collector = collect(ours, max_frames=channel.MAX_FRAMES)
    collector.feed(channel.LAST_READS)
    assert collector.frames == frames


def test_a_head_that_came_with_the_last_read_of_a_turn_is_used_in_that_turn(pair):
    ours, theirs = pair
    channel.send(theirs, [b"all"])
    collector = collect(ours)
    collector.feed(1)
    assert collector.frames == [b"all"]


def test_a_message_over_the_cap_is_refused_before_its_bytes_are_held(pair):
    ours, theirs = pair
    theirs.send(struct.pack("!IQ", 1, 1 << 60))
    collector = collect(ours)
    with pytest.raises(ChannelError, match="at most"):
        collector.feed()
    assert collector.over_cap


@pytest.mark.parametrize("count", [0, 17, 0xFFFFFFFF])
def test_a_count_of_frames_out_of_range_is_refused(pair, count):
    ours, theirs = pair
    theirs.send(struct.pack("!I", count) + b"x" * 64)
    with pytest.raises(ChannelError, match="frames"):
        collect(ours).feed()


def test_a_writer_that_closes_early_leaves_no_message(pair):
    ours, theirs = pair
    theirs.send(struct.pack("!IQ", 1, 10) + b"only")
    theirs.close()
    collector = collect(ours)
    collector.feed()
    assert collector.closed
    assert collector.frames is None


def test_a_blocking_reader_says_when_the_other_end_is_gone(pair):
    ours, theirs = pair
    ours.setblocking(True)
    theirs.close()
    with pytest.raises(EOFError):
        channel.receive(ours, bytearray())


@given(st.binary(max_size=64))
def test_any_bytes_are_a_report_or_none(frame):
    claim = Answer.of([frame, b""])
    assert claim is None or claim.outcome in channel.CLAIMS


def test_a_report_says_what_the_child_claims():
    claim = Answer(Outcome.ERROR, 9, started_ns=5, exit_code=3, error=b"why", files=[b"name", b"content"])
    assert Answer.of(claim.frames()) == msgspec.structs.replace(claim, value=[])


def test_messages_that_come_together_are_read_one_after_the_other(pair):
    ours, theirs = pair
    for frames in ([b"one", b""], [b"two"], [b"three", bytes(100_000)]):
        channel.send(theirs, frames)
    collector = collect(ours)
    read = []
    for _ in range(3):
        collector.feed()
        read.append(collector.frames)
        collector.next_message()
    assert read == [[b"one", b""], [b"two"], [b"three", bytes(100_000)]]

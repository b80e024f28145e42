"""The output of a running job in the daemon: what a worker may send, and what readers get."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool import wire
from pool.daemon.output import OutputSender, OutputStream
from pool.errors import RemoteProtocolError

FULL = b"x" * wire.MAX_PRINTED_BYTES


def printed(offset, name="stdout"):
    return wire.Printed(job_id="j", epoch=1, name=name, offset=offset)


def read(stream, reader):
    """All that is there for a reader, by stream."""
    got = {"stdout": b"", "stderr": b""}
    while (piece := stream.next_piece(reader)) is not None:
        output, text = piece
        assert output.offset == len(got[output.name])
        assert 0 < len(text) <= wire.MAX_PRINTED_BYTES
        got[output.name] += text
    return got


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=50)), max_size=16))
def test_every_reader_gets_every_byte_once_and_in_order_whenever_it_comes(pieces):
    stream, whole = OutputStream("j", limit=1000), {"stdout": b"", "stderr": b""}
    early = {"stdout": b"", "stderr": b""}
    stream.add_reader(b"early")
    for name, text in pieces:
        stream.append(printed(len(whole[name]), name), [text], 0)
        whole[name] += text
        while (piece := stream.next_piece(b"early")) is not None:
            assert piece[0].offset == len(early[piece[0].name])
            early[piece[0].name] += piece[1]
    stream.add_reader(b"late")
    assert read(stream, b"late") == early == whole
    stream.add_reader(b"late")
    assert read(stream, b"late") == whole  # a reader that asks again starts at the beginning
    assert stream.frames == (whole["stdout"], whole["stderr"])


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (printed(0), []),
        (printed(0), [b""]),
        (printed(0), [b"a", b"b"]),
        (printed(0), [FULL + b"x"]),
        (printed(1), [b"a"]),
        (printed(5), [b"a"]),
        (printed(1 << 60), [b"a"]),
        (printed(4), [b"1234567"]),
    ],
)
def test_a_piece_that_an_honest_worker_does_not_send_is_refused_and_not_kept(message, payload):
    stream = OutputStream("j", limit=10)
    stream.append(printed(0), [b"kept"], 0)
    with pytest.raises(RemoteProtocolError):
        stream.append(message, payload, 0)
    assert stream.frames == (b"kept", b"")


def test_each_stream_has_the_job_s_own_limit():
    stream = OutputStream("j", limit=3)
    stream.append(printed(0), [b"abc"], 0)
    stream.append(printed(0, "stderr"), [b"def"], 0)
    for name in ("stdout", "stderr"):
        with pytest.raises(RemoteProtocolError, match="more of"):
            stream.append(printed(3, name), [b"x"], 0)


def test_small_pieces_are_limited_in_rate_and_full_ones_are_not():
    stream = OutputStream("j", limit=1 << 30)
    stream.start(100.0)
    for count in range(100):
        stream.append(printed(count * len(FULL)), [FULL], 100.0)
    place = 100 * len(FULL)
    for count in range(4000):  # ten seconds' worth, read at once because the loop was busy
        stream.append(printed(place + count), [b"x"], 110.0)
    for count in range(4000, 4016):
        stream.append(printed(place + count), [b"x"], 110.0)
    with pytest.raises(RemoteProtocolError, match="times in"):
        stream.append(printed(place + 4016), [b"x"], 110.0)


def test_an_answer_must_begin_with_what_was_printed():
    stream = OutputStream("j", limit=10)
    stream.append(printed(0), [b"abc"], 0)
    stream.check([b"abc", b"", b""])
    stream.check([memoryview(b"abcdef"), bytearray(b"more"), b""])
    for answer in ([b"ab", b"", b""], [b"abX", b"", b""], [b"", b"abc", b""]):
        with pytest.raises(RemoteProtocolError, match="differs from"):
            stream.check(answer)


class FakeListener:
    """What an outlet needs of a listener; a client takes what it was sent when the test says so."""

    def __init__(self, **clients):
        self.waiting = {name.encode(): 0 for name in clients}
        self.takes = {name.encode(): takes for name, takes in clients.items()}
        self.got = {name.encode(): b"" for name in clients}

    def queued_bytes(self, address):
        return self.waiting.get(address)

    def send(self, address, message, payload):
        assert message.offset == len(self.got[address])
        self.got[address] += payload[0]
        if not self.takes[address]:
            self.waiting[address] += len(payload[0])
        return True


def test_a_reader_that_takes_nothing_costs_a_few_pieces_and_delays_no_other_reader():
    listener = FakeListener(slow=False, quick=True)
    sender, stream = OutputSender(listener), OutputStream("j", limit=1 << 30)
    sender.add_reader(stream, b"slow")
    sender.add_reader(stream, b"quick")
    for count in range(100):
        stream.append(printed(count * len(FULL)), [FULL], 0)
        sender.send(stream)
        assert len(listener.got[b"quick"]) == (count + 1) * len(FULL)
    assert listener.waiting[b"slow"] <= 5 * len(FULL)
    assert not sender.more_to_send
    listener.takes[b"slow"], listener.waiting[b"slow"] = True, 0
    turns = 0
    while len(listener.got[b"slow"]) < 100 * len(FULL):
        sender.catch_up()
        turns += 1
        assert sender.more_to_send or len(listener.got[b"slow"]) == 100 * len(FULL)
    assert turns > 3  # the rest of the loop had its turn in between


def test_a_reader_that_is_gone_and_a_job_that_has_ended_are_forgotten():
    listener = FakeListener(stays=False, goes=False)
    sender, stream = OutputSender(listener), OutputStream("j", limit=1 << 30)
    for reader in (b"stays", b"goes"):
        sender.add_reader(stream, reader)
    del listener.waiting[b"goes"]
    for count in range(10):
        stream.append(printed(count * len(FULL)), [FULL], 0)
        sender.send(stream)
    assert stream.readers == [b"stays"]
    stream.close()
    sender.catch_up()
    sent = listener.got[b"stays"]
    listener.waiting[b"stays"] = 0
    sender.catch_up()
    assert listener.got[b"stays"] == sent

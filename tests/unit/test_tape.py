"""A running job's output in the daemon: what a worker may put on the tape, and what its readers get of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool import wire
from pool.daemon.outlet import Outlet
from pool.daemon.tape import Tape
from pool.errors import RemoteProtocolError

FULL = b"x" * wire.MAX_PRINTED_BYTES


def printed(offset, name="stdout"):
    return wire.Printed(job_id="j", epoch=1, name=name, offset=offset)


def read(tape, reader):
    """All that is there for a reader, by stream."""
    got = {"stdout": b"", "stderr": b""}
    while (piece := tape.next(reader)) is not None:
        output, text = piece
        assert output.offset == len(got[output.name])
        assert 0 < len(text) <= wire.MAX_PRINTED_BYTES
        got[output.name] += text
    return got


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=50)), max_size=16))
def test_every_reader_gets_every_byte_once_and_in_order_whenever_it_comes(pieces):
    tape, whole = Tape("j", limit=1000), {"stdout": b"", "stderr": b""}
    early = {"stdout": b"", "stderr": b""}
    tape.join(b"early")
    for name, text in pieces:
        tape.take(printed(len(whole[name]), name), [text], 0)
        whole[name] += text
        while (piece := tape.next(b"early")) is not None:
            assert piece[0].offset == len(early[piece[0].name])
            early[piece[0].name] += piece[1]
    tape.join(b"late")
    assert read(tape, b"late") == early == whole
    tape.join(b"late")
    assert read(tape, b"late") == whole  # who asks again begins anew
    assert tape.frames == (whole["stdout"], whole["stderr"])


@pytest.mark.parametrize(
    ("word", "payload"),
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
def test_what_no_honest_worker_prints_is_refused_and_not_kept(word, payload):
    tape = Tape("j", limit=10)
    tape.take(printed(0), [b"kept"], 0)
    with pytest.raises(RemoteProtocolError):
        tape.take(word, payload, 0)
    assert tape.frames == (b"kept", b"")


def test_each_stream_has_the_job_s_own_limit():
    tape = Tape("j", limit=3)
    tape.take(printed(0), [b"abc"], 0)
    tape.take(printed(0, "stderr"), [b"def"], 0)
    for name in ("stdout", "stderr"):
        with pytest.raises(RemoteProtocolError, match="more of"):
            tape.take(printed(3, name), [b"x"], 0)


def test_small_pieces_come_with_the_clock_and_full_ones_as_they_like():
    tape = Tape("j", limit=1 << 30)
    tape.start(100.0)
    for count in range(100):
        tape.take(printed(count * len(FULL)), [FULL], 100.0)
    place = 100 * len(FULL)
    for count in range(4000):  # ten seconds' worth, read at once because the loop was busy
        tape.take(printed(place + count), [b"x"], 110.0)
    for count in range(4000, 4016):
        tape.take(printed(place + count), [b"x"], 110.0)
    with pytest.raises(RemoteProtocolError, match="times in"):
        tape.take(printed(place + 4016), [b"x"], 110.0)


def test_an_answer_goes_on_where_the_tape_ends():
    tape = Tape("j", limit=10)
    tape.take(printed(0), [b"abc"], 0)
    tape.check([b"abc", b"", b""])
    tape.check([memoryview(b"abcdef"), bytearray(b"more"), b""])
    for answer in ([b"ab", b"", b""], [b"abX", b"", b""], [b"", b"abc", b""]):
        with pytest.raises(RemoteProtocolError, match="another output"):
            tape.check(answer)


class Counter:
    """What an outlet needs of a door; a client takes what it was sent when the test says so."""

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


def test_a_reader_that_takes_nothing_costs_a_few_pieces_and_the_other_one_no_time():
    door = Counter(slow=False, quick=True)
    outlet, tape = Outlet(door), Tape("j", limit=1 << 30)
    outlet.join(tape, b"slow")
    outlet.join(tape, b"quick")
    for count in range(100):
        tape.take(printed(count * len(FULL)), [FULL], 0)
        outlet.show(tape)
        assert len(door.got[b"quick"]) == (count + 1) * len(FULL)
    assert door.waiting[b"slow"] <= 5 * len(FULL)
    assert not outlet.eager
    door.takes[b"slow"], door.waiting[b"slow"] = True, 0
    turns = 0
    while len(door.got[b"slow"]) < 100 * len(FULL):
        outlet.catch_up()
        turns += 1
        assert outlet.eager or len(door.got[b"slow"]) == 100 * len(FULL)
    assert turns > 3  # the rest of the loop had its turn in between


def test_a_reader_that_is_gone_and_a_job_that_has_ended_are_forgotten():
    door = Counter(stays=False, goes=False)
    outlet, tape = Outlet(door), Tape("j", limit=1 << 30)
    for reader in (b"stays", b"goes"):
        outlet.join(tape, reader)
    del door.waiting[b"goes"]
    for count in range(10):
        tape.take(printed(count * len(FULL)), [FULL], 0)
        outlet.show(tape)
    assert tape.readers == [b"stays"]
    tape.close()
    outlet.catch_up()
    sent = door.got[b"stays"]
    door.waiting[b"stays"] = 0
    outlet.catch_up()
    assert door.got[b"stays"] == sent

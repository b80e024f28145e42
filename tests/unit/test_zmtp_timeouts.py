"""Heartbeats of ZMTP 3.1, and the connections that are ended because they are too slow. The peers are plain sockets."""

from __future__ import annotations

import contextlib
import time

import pytest

from pool import wire
from pool.daemon.zmtp import codec, connection
from pool.daemon.zmtp.codec import Ping, Pong
from pool.daemon.zmtp.connection import Timeouts
from tests.support.sockets import receive_exactly
from tests.support.zmtp_host import GREETED, Events, Host, is_closed, packed, until

MESSAGE_OF_100_BYTES = b"\x02" + (100).to_bytes(8) + bytes(100)
VERSION_3_0 = GREETED[:11] + b"\0" + GREETED[12:]


@pytest.fixture(autouse=True)
def sweeps_often(monkeypatch):
    monkeypatch.setattr("pool.daemon.zmtp.transport._SWEEP_S", 0.02)


@pytest.fixture
def hosted(tmp_path):
    """Gives a function that makes a host with some timeouts."""
    with contextlib.ExitStack() as stack:
        yield lambda **timeouts: stack.enter_context(Host(tmp_path, Timeouts(**timeouts)))


def ping(context=b"", ttl=0):
    return b"\x04" + bytes([7 + len(context)]) + b"\x04PING" + ttl.to_bytes(2) + context


def dribble(sock, data, pause_s=0.02):
    """Send byte by byte until all is sent or the other side closes."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for each in data:
            sock.sendall(bytes([each]))
            time.sleep(pause_s)


# ---- the handshake ----


def test_ready_comes_without_waiting_for_the_ready_of_the_peer(hosted):
    sock = hosted().connect()
    sock.sendall(codec.GREETING)
    expected = codec.GREETING + codec.ready("ROUTER")
    assert receive_exactly(sock, len(expected)) == expected


@pytest.mark.parametrize("start", [b"", b"\xff", codec.GREETING, codec.GREETING + b"\x04"])
def test_a_peer_that_does_not_end_its_handshake_is_ended(hosted, start):
    host = hosted(handshake=0.2)
    sock = host.connect()
    sock.sendall(start)
    assert is_closed(sock)
    assert host.counts == {"no_handshake": 1}


# ---- the peer's PINGs ----


def test_a_ping_is_answered_with_its_context(hosted):
    sock = hosted().greet()
    for context in (b"", b"c", b"sixteen bytes ok"):
        sock.sendall(ping(context))
        assert receive_exactly(sock, 7 + len(context)) == codec.pong(context)


def with_queued(hosted, answers):
    """A host, its client that has not read so many answers of a megabyte, its address, and how many bytes are queued."""
    host = hosted()
    host.payload = [bytes(1_000_000)]
    sock = host.greet()
    sock.sendall(packed() * answers)
    until(lambda: len(host.from_clients) == answers)
    address = host.from_clients[0][0]
    return host, sock, address, host.call(lambda: host.transport.submit.queued_bytes(address))


def test_a_ping_is_answered_between_two_messages_while_answers_are_queued(hosted):
    host, sock, address, size = with_queued(hosted, 5)
    sock.sendall(ping(b"now"))
    until(lambda: host.transport.submit.queued_bytes(address) > size)
    events = Events(sock)
    kinds = [type(events.next()) for _ in range(6)]
    assert kinds.count(list) == 5
    assert kinds.index(Pong) <= 2


def test_pongs_that_a_peer_does_not_read_do_not_pile_up(hosted):
    host, sock, address, size = with_queued(hosted, 2)
    sock.sendall(ping(b"sixteen bytes ok") * 90 + packed())
    until(lambda: len(host.from_clients) == 3)
    grown = host.transport.submit.queued_bytes(address) - size - 1_000_000
    assert 0 < grown < 2 * connection._CONTROLS_QUEUED * len(codec.pong(b"sixteen bytes ok"))


def test_a_peer_that_is_silent_longer_than_the_ttl_of_its_ping_is_ended(hosted):
    host = hosted()
    sock = host.greet()
    sock.sendall(ping(ttl=2))
    assert is_closed(sock)
    assert host.counts == {"ttl": 1}


def test_a_peer_that_goes_on_within_its_ttl_is_kept_and_a_later_ping_ends_the_ttl(hosted):
    host = hosted()
    sock = host.greet()
    for _ in range(6):
        sock.sendall(ping(ttl=20))
        time.sleep(0.1)
    sock.sendall(ping(ttl=1) + ping(ttl=0))
    time.sleep(0.4)
    sock.sendall(packed())
    until(lambda: host.from_clients)
    assert not host.counts


# ---- our PINGs ----


def test_a_silent_peer_is_sent_a_ping_and_is_kept_as_long_as_it_answers(hosted):
    host = hosted(ping_after=0.1, pong=0.3)
    events = Events(sock := host.greet())
    for _ in range(5):
        assert events.next() == Ping(0, b"")
        sock.sendall(codec.pong(b""))
    assert not host.counts


def test_a_peer_that_does_not_answer_a_ping_is_ended(hosted):
    host = hosted(ping_after=0.1, pong=0.2)
    assert is_closed(host.greet())
    assert host.counts == {"no_pong": 1}


def test_a_peer_of_zmtp_3_0_is_not_sent_a_ping_and_not_ended(hosted):
    host = hosted(ping_after=0.1, pong=0.1)
    sock = host.greet(VERSION_3_0)
    time.sleep(0.5)
    sock.sendall(packed())
    until(lambda: host.from_clients)
    assert isinstance(Events(sock).next(), list)
    assert not host.counts


def test_bytes_that_wait_while_the_loop_is_busy_count_as_an_answer(hosted):
    host = hosted(ping_after=0.2, pong=0.2)
    events = Events(sock := host.greet())
    assert events.next() == Ping(0, b"")

    def answer_while_the_loop_is_busy():
        sock.sendall(codec.pong(b""))
        time.sleep(0.6)

    host.call(answer_while_the_loop_is_busy)
    assert events.next() == Ping(0, b"")
    assert not host.counts


def test_a_ping_that_comes_late_because_the_loop_was_busy_leaves_time_for_its_answer(hosted):
    host = hosted(ping_after=0.1, pong=0.5)
    events = Events(sock := host.greet())
    host.call(lambda: time.sleep(1))
    assert events.next() == Ping(0, b"")
    sock.sendall(codec.pong(b"") + packed())
    until(lambda: host.from_clients)
    assert not host.counts


# ---- slow messages ----


def test_a_message_that_stalls_is_ended_and_an_idle_client_is_not(hosted):
    host = hosted(stalled=0.2)
    idle, stalled = host.greet(), host.greet()
    stalled.sendall(MESSAGE_OF_100_BYTES[:50])
    assert is_closed(stalled)
    assert host.counts == {"stalled": 1}
    idle.sendall(packed())
    until(lambda: host.from_clients)


@pytest.mark.parametrize("data", [MESSAGE_OF_100_BYTES, b"\1\1x" * 40, b"\1\0" * 60], ids=["frame", "frames", "empty"])
def test_a_message_that_comes_byte_by_byte_is_ended_after_its_whole_time(hosted, data):
    host = hosted(message=0.5)
    sock = host.greet()
    dribble(sock, data)
    assert is_closed(sock)
    assert host.counts == {"slow_message": 1}
    assert not host.from_clients


def test_the_time_of_a_message_begins_anew_with_each_message(hosted):
    host = hosted(message=0.5)
    sock = host.greet()
    data = packed()
    for _ in range(3):
        sock.sendall(data[-3:] if host.from_clients else data)  # the end of one message and the beginning of the next
        sock.sendall(data[:-3])
        time.sleep(0.3)
    until(lambda: len(host.from_clients) == 3)
    assert not host.counts


def test_a_client_that_reads_an_answer_byte_by_byte_is_ended_after_its_whole_time(hosted):
    host = hosted(message=0.5)
    host.payload = [bytes(8_000_000)]
    sock = host.greet()
    sock.sendall(packed())
    deadline = time.monotonic() + 20
    while not host.counts:
        assert time.monotonic() < deadline
        sock.recv(4096)
        time.sleep(0.02)
    assert host.counts == {"slow_reader": 1}


def test_an_answer_that_nobody_reads_is_ended(hosted):
    host = hosted(stalled=0.2)
    host.payload = [bytes(8_000_000)]
    sock = host.greet()
    sock.sendall(packed())
    until(lambda: host.counts)
    assert host.counts == {"stalled": 1}


def test_a_worker_whose_message_takes_too_long_is_lost_and_one_that_is_idle_is_not(hosted):
    host = hosted(handshake=0.1, stalled=0.1, ping_after=0.1, pong=0.1, message=0.5)
    slow, idle = (host.connect(host.open_link(worker)) for worker in ("p-1", "p-2"))
    for each in (slow, idle):
        each.sendall(codec.GREETING + codec.ready("PAIR"))
    dribble(slow, MESSAGE_OF_100_BYTES)
    assert is_closed(slow)
    assert host.losses == [("p-1", "its link was ended: slow_message")]
    idle.sendall(packed(wire.Heartbeat(seq=7)))
    until(lambda: host.from_workers)

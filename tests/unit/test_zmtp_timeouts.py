"""Heartbeats of ZMTP 3.1, and the connections that are ended because they are too slow.

The peers are plain sockets. The loop runs in the test's own thread, with a clock that the test moves.
"""

import pytest

from pool import wire
from pool.daemon.zmtp import commands, connection
from pool.daemon.zmtp.commands import Ping, Pong
from pool.daemon.zmtp.connection import TIMEOUTS
from tests.support.sockets import receive_exactly
from tests.support.zmtp_host import GREETED, Events, SteppedHost, is_closed, packed

MESSAGE_OF_100_BYTES = b"\x02" + (100).to_bytes(8) + bytes(100)
VERSION_3_0 = GREETED[:11] + b"\0" + GREETED[12:]
HANDSHAKE_S, STALLED_S, MESSAGE_S, PING_AFTER_S, PONG_S = map(int, TIMEOUTS)


@pytest.fixture
def host(tmp_path, monkeypatch):
    with SteppedHost(tmp_path, monkeypatch) as it:
        yield it


def ping(context=b"", ttl_s=0):
    return b"\x04" + bytes([7 + len(context)]) + b"\x04PING" + (10 * ttl_s).to_bytes(2) + context


def passes(host, reason, seconds):
    """Nothing is ended for so long; a second later one connection is, for this reason."""
    host.pass_time(seconds)
    assert not host.counts
    host.pass_time(1)
    assert host.counts == {reason: 1}


def ended_after(host, ended, act):
    """Seconds until `ended` gives something true, with `act` every two seconds."""
    began = host.now
    while not ended():
        assert host.now - began < 10 * MESSAGE_S
        act()
        host.pass_time(2)
    return host.now - began


# ---- the handshake ----


def test_ready_comes_without_waiting_for_the_ready_of_the_peer(host):
    sock = host.connect()
    sock.sendall(commands.GREETING)
    host.step()
    expected = commands.GREETING + commands.ready("ROUTER")
    assert receive_exactly(sock, len(expected)) == expected


@pytest.mark.parametrize("start", [b"", b"\xff", commands.GREETING, commands.GREETING + b"\x04"])
def test_a_peer_that_does_not_end_its_handshake_is_ended(host, start):
    sock = host.connect()
    sock.sendall(start)
    host.step()
    passes(host, "no_handshake", HANDSHAKE_S)
    assert is_closed(sock)


# ---- the peer's PINGs ----


def test_a_ping_is_answered_with_its_context(host):
    sock = host.greet()
    for context in (b"", b"c", b"sixteen bytes ok"):
        sock.sendall(ping(context))
        host.step()
        assert receive_exactly(sock, 7 + len(context)) == commands.pong(context)


def with_queued(host, answers):
    """A client that has not read so many answers of a megabyte, its address, and how many bytes are queued for it."""
    host.payload = [bytes(1_000_000)]
    sock = host.greet()
    sock.sendall(packed() * answers)
    host.step()
    assert len(host.from_clients) == answers
    address = host.from_clients[0][0]
    return sock, address, host.transport.submit.queued_bytes(address)


def test_a_ping_is_answered_between_two_messages_while_answers_are_queued(host):
    sock, address, size = with_queued(host, 5)
    sock.sendall(ping(b"now"))
    host.step()
    assert host.transport.submit.queued_bytes(address) > size
    events = Events(host, sock)
    kinds = [type(events.next()) for _ in range(6)]
    assert kinds.count(list) == 5
    assert kinds.index(Pong) <= 2


def test_pongs_that_a_peer_does_not_read_do_not_pile_up(host):
    sock, address, size = with_queued(host, 2)
    sock.sendall(ping(b"sixteen bytes ok") * 90 + packed())
    host.step()
    assert len(host.from_clients) == 3
    grown = host.transport.submit.queued_bytes(address) - size - 1_000_000
    assert 0 < grown < 2 * connection._CONTROLS_QUEUED * len(commands.pong(b"sixteen bytes ok"))


def test_a_peer_that_is_silent_longer_than_the_ttl_of_its_ping_is_ended(host):
    sock = host.greet()
    sock.sendall(ping(ttl_s=2))
    host.step()
    passes(host, "ttl", 2)
    assert is_closed(sock)


def test_a_peer_that_goes_on_within_its_ttl_is_kept_and_a_later_ping_ends_the_ttl(host):
    sock = host.greet()
    for _ in range(3):
        sock.sendall(ping(ttl_s=2))
        host.step()
        host.pass_time(2)
    sock.sendall(ping(ttl_s=1) + ping(ttl_s=0))
    host.step()
    host.pass_time(PING_AFTER_S)
    sock.sendall(packed())
    host.step()
    assert len(host.from_clients) == 1
    assert not host.counts


# ---- our PINGs ----


def test_a_silent_peer_is_sent_a_ping_and_is_kept_as_long_as_it_answers(host):
    sock = host.greet()
    events = Events(host, sock)
    for _ in range(5):
        host.pass_time(PING_AFTER_S + 1)
        assert events.next() == Ping(0, b"")
        host.pass_time(PONG_S)
        sock.sendall(commands.pong(b""))
        host.step()
    assert not host.counts


def test_a_peer_that_does_not_answer_a_ping_is_ended(host):
    sock = host.greet()
    passes(host, "no_pong", PING_AFTER_S + 1 + PONG_S)
    assert is_closed(sock)


def test_a_peer_of_zmtp_3_0_is_not_sent_a_ping_and_not_ended(host):
    sock = host.greet(VERSION_3_0)
    host.pass_time(10 * (PING_AFTER_S + PONG_S))
    sock.sendall(packed())
    assert isinstance(Events(host, sock).next(), list)
    assert not host.counts


def test_bytes_that_wait_while_the_loop_is_busy_count_as_an_answer(host):
    sock = host.greet()
    events = Events(host, sock)
    host.pass_time(PING_AFTER_S + 1)
    assert events.next() == Ping(0, b"")
    host.busy(2 * PONG_S, meanwhile=lambda: sock.sendall(commands.pong(b"")))
    host.pass_time(PING_AFTER_S + 1)
    assert events.next() == Ping(0, b"")
    assert not host.counts


def test_a_ping_that_comes_late_because_the_loop_was_busy_leaves_time_for_its_answer(host):
    sock = host.greet()
    host.busy(2 * (PING_AFTER_S + PONG_S))
    assert Events(host, sock).next() == Ping(0, b"")
    host.pass_time(PONG_S)
    sock.sendall(commands.pong(b"") + packed())
    host.step()
    assert len(host.from_clients) == 1
    assert not host.counts


# ---- slow messages ----


def test_a_message_that_stalls_is_ended_and_an_idle_client_is_not(host):
    idle, stalled = host.greet(), host.greet()
    stalled.sendall(MESSAGE_OF_100_BYTES[:50])
    host.step()
    passes(host, "stalled", STALLED_S)
    assert is_closed(stalled)
    idle.sendall(packed())
    host.step()
    assert len(host.from_clients) == 1


@pytest.mark.parametrize("data", [MESSAGE_OF_100_BYTES, b"\1\1x" * 40, b"\1\0" * 60], ids=["frame", "frames", "empty"])
def test_a_message_that_comes_byte_by_byte_is_ended_after_its_whole_time(host, data):
    sock, left = host.greet(), iter(data)
    took_s = ended_after(host, lambda: host.counts, lambda: sock.sendall(bytes([next(left)])))
    assert MESSAGE_S < took_s <= MESSAGE_S + 2
    assert is_closed(sock)
    assert host.counts == {"slow_message": 1}
    assert not host.from_clients


def test_the_time_of_a_message_begins_anew_with_each_message(host):
    sock, data = host.greet(), packed()
    sock.sendall(data)
    for _ in range(4):
        sock.sendall(data[:-3])
        host.step()
        host.pass_time(STALLED_S)
        sock.sendall(data[-3:])  # followed by the beginning of the next one
    host.step()
    assert 4 * STALLED_S > MESSAGE_S
    assert len(host.from_clients) == 5
    assert not host.counts


def test_a_client_that_reads_an_answer_bit_by_bit_is_ended_after_its_whole_time(host):
    host.payload = [bytes(16_000_000)]
    sock = host.greet()
    sock.sendall(packed())
    host.step()
    took_s = ended_after(host, lambda: host.counts, lambda: sock.recv(1 << 16))
    assert MESSAGE_S < took_s <= MESSAGE_S + 2
    assert host.counts == {"slow_reader": 1}


def test_an_answer_that_nobody_reads_is_ended(host):
    host.payload = [bytes(8_000_000)]
    sock = host.greet()
    sock.sendall(packed())
    host.step()
    passes(host, "stalled", STALLED_S)


def test_a_worker_whose_message_takes_too_long_is_lost_and_one_that_is_idle_is_not(host):
    slow, idle = (host.connect(host.open_link(worker)) for worker in ("p-1", "p-2"))
    for each in (slow, idle):
        each.sendall(commands.GREETING + commands.ready("PAIR"))
    left = iter(MESSAGE_OF_100_BYTES)
    took_s = ended_after(host, lambda: host.losses, lambda: slow.sendall(bytes([next(left)])))
    assert MESSAGE_S < took_s <= MESSAGE_S + 2
    assert is_closed(slow)
    assert host.losses == [("p-1", "its link was ended: slow_message")]
    idle.sendall(packed(wire.Heartbeat(seq=7)))
    host.step()
    assert len(host.from_workers) == 1

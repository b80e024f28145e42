"""Doors and links with the peers they are for: sockets of the installed libzmq, and some that are nothing of the kind."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import stat
import threading
import time

import pytest
import zmq

from pool import wire
from pool.daemon.zmtp import UNLEASED_BYTES, Handlers, Transport, codec, connection, listener
from pool.errors import ConfigError
from pool.model import Outcome
from tests.support.sockets import receive_exactly

HELLO = codec.GREETING + codec.ready("DEALER")
BIG = 80_000_000
#: Sockets of the test that runs: one that is collected closes its connection.
OPENED = []


class Host:
    """A transport served by a thread: the submit door says every Ping again, a link says what it has heard."""

    def __init__(self, root):
        (root / "w").mkdir()
        self.transport = Transport(
            submit=root / "s", admin=root / "a", links=root / "w", submit_mode=0o660, submit_group=None
        )
        self.root = root
        self.heard, self.lost, self.seen = [], [], []
        self.payload = ()
        self.failure = None
        self._end, self._raw = False, []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.call(lambda: setattr(self, "_end", True))
        self._thread.join(10)
        for each in self._raw:
            each.close()
        if self.failure:
            raise self.failure

    def call(self, function):
        """Run it on the thread of the loop, and give what it gave."""
        done, box = threading.Event(), []
        self.transport.call_soon(lambda: (box.append(function()), done.set()))
        assert done.wait(20), self.failure
        return box[0]

    def _run(self):
        handlers = Handlers(
            on_submit=lambda *message: self._echo(self.transport.submit, *message),
            on_admin=lambda *message: self._echo(self.transport.admin, *message),
            on_worker=lambda *message: self.heard.append(message),
            on_worker_lost=self._lose,
        )
        try:
            while not self._end:
                self.transport.run_once(1, handlers)
            self.transport.close()
        except BaseException as error:
            self.failure = error
            raise

    def _lose(self, worker_id, reason):
        self.lost.append((worker_id, reason))
        self.transport.links.close(worker_id)

    def _echo(self, door, address, user, frames):
        self.seen.append((address, user, [len(each) for each in frames]))
        door.send(address, wire.Accepted(request=len(self.seen), job_id="x"), self.payload or frames[2:])

    @property
    def submit(self):
        return f"ipc://{self.root}/s"

    def raw(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.root / "s"))
        sock.settimeout(10)
        self._raw.append(sock)
        return sock


@pytest.fixture
def host(tmp_path):
    with Host(tmp_path) as it:
        yield it


@pytest.fixture
def context():
    with zmq.Context() as it:
        OPENED.clear()
        yield it
        for each in OPENED:
            each.close(linger=0)


def dial(context, endpoint, kind=zmq.DEALER, **options):
    sock = context.socket(kind)
    for name, value in options.items():
        sock.setsockopt(getattr(zmq, name), value)
    sock.connect(endpoint)
    OPENED.append(sock)
    return sock


def ask(sock, *payload, request=1):
    sock.send_multipart(wire.encode(wire.Ping(request=request), payload), copy=False)
    assert sock.poll(20_000), "no answer"
    return wire.decode(wire.to_client, sock.recv_multipart())


def until(condition, timeout=20):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def closed(sock):
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(65536):
            pass
    return True


# ---- libzmq at the door ----


def test_a_dealer_is_heard_with_its_user_and_answered(host, context):
    answer, payload = ask(dial(context, host.submit), b"", b"payload")
    assert (answer.request, payload) == (1, [b"", b"payload"])
    assert host.seen[0][1] == str(os.getuid())


def test_a_thousand_messages_come_in_order_and_so_do_their_answers(host, context):
    sock = dial(context, host.submit)
    for number in range(1000):
        sock.send_multipart(wire.encode(wire.Ping(request=1), [str(number).encode()]))
    for number in range(1000):
        assert sock.poll(20_000)
        answer, payload = wire.decode(wire.to_client, sock.recv_multipart())
        assert (answer.request, payload) == (number + 1, [str(number).encode()])


def test_large_frames_go_both_ways_between_small_ones(host, context):
    large = os.urandom(1 << 20) * (BIG >> 20)
    _, payload = ask(dial(context, host.submit), b"a", large, b"", b"b" * 100_000)
    assert payload == [b"a", large, b"", b"b" * 100_000]


def test_peers_with_heartbeats_and_identities_are_served_and_kept(host, context):
    sock = dial(context, host.submit, HEARTBEAT_IVL=50, HEARTBEAT_TIMEOUT=400, HEARTBEAT_TTL=500, ROUTING_ID=b"me")
    monitor = sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    ask(sock)
    assert not monitor.poll(1200), "the connection was given up"
    ask(sock)
    sock.disable_monitor()
    monitor.close(linger=0)


def test_two_peers_of_one_identity_are_two_peers(host, context):
    first, second = (dial(context, host.submit, ROUTING_ID=b"same") for _ in range(2))
    assert ask(first, b"1")[1] == [b"1"]
    assert ask(second, b"2")[1] == [b"2"]
    assert ask(first, b"3")[1] == [b"3"]
    assert len({address for address, _, _ in host.seen}) == 2


def test_a_client_that_comes_back_is_somebody_new_and_the_old_address_is_dead(host, context):
    ask(first := dial(context, host.submit))
    address = host.seen[0][0]
    first.close(linger=0)
    ask(dial(context, host.submit))
    until(lambda: not host.call(lambda: host.transport.submit.send(address, wire.Accepted(request=1, job_id="x"))))


def test_libzmq_reconnects_to_a_door_that_was_opened_anew(tmp_path, context):
    with Host(tmp_path) as host:
        sock = dial(context, host.submit, RECONNECT_IVL=10)
        ask(sock)
    (tmp_path / "w").rmdir()
    with Host(tmp_path):
        time.sleep(0.1)
        ask(sock)


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.PAIR, zmq.SUB, zmq.PUSH])
def test_other_kinds_of_sockets_are_not_let_in(host, context, kind):
    sock = dial(context, host.submit, kind, RECONNECT_IVL=-1)
    until(lambda: host.transport.submit.counts["garbage"])
    sock.close(linger=0)
    ask(dial(context, host.submit))


def test_a_security_mechanism_is_not_taken_for_none(host, context):
    public, secret = zmq.curve_keypair()
    curve = dial(context, host.submit, CURVE_SERVERKEY=public, CURVE_PUBLICKEY=public, CURVE_SECRETKEY=secret)
    curve.send_multipart(wire.encode(wire.Ping(request=1)))
    assert not curve.poll(300)
    ask(dial(context, host.submit))
    assert len(host.seen) == 1


def test_a_slow_reader_gets_everything_and_holds_up_nobody(host, context):
    slow, quick = dial(context, host.submit, RCVHWM=1), dial(context, host.submit)
    host.payload = [bytes(2_000_000)]
    for _ in range(20):
        slow.send_multipart(wire.encode(wire.Ping(request=1)))
    until(lambda: len(host.seen) == 20)
    host.payload = ()
    ask(quick)
    for _ in range(20):
        assert slow.poll(20_000)
        assert len(slow.recv_multipart()[2]) == 2_000_000


def test_who_never_reads_is_cut_off_at_its_share_and_the_others_are_not(host, context, monkeypatch):
    caps = listener.Caps(
        message=1 << 20, connections=9, connections_each=9, incoming=1 << 30, incoming_each=1 << 30,
        outgoing=8 << 20, outgoing_each=4 << 20, answers=1000,
    )  # fmt: skip
    monkeypatch.setattr(host.transport.submit, "_caps", caps)
    monkeypatch.setattr(host.transport.submit, "_outgoing", listener.Budget(each=4 << 20, total=8 << 20))
    host.payload = [bytes(1_000_000)]
    question = b"".join(map(bytes, codec.pack(wire.encode(wire.Ping(request=1)))))
    stubborn, other = host.raw(), host.raw()
    for sock in (stubborn, other):
        sock.sendall(HELLO)
    other.sendall(question * 2)
    stubborn.sendall(question * 20)
    until(lambda: host.transport.submit.counts["not_read"])
    assert closed(stubborn)
    host.payload = ()
    ask(dial(context, host.submit))
    other.settimeout(0.5)
    with pytest.raises(TimeoutError):
        closed(other)


# ---- everybody else at the door ----


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\x00" * 64,
        b"\xff" * 64,
        b"\x01\x00" * 50,
        HELLO + b"\xff" * 100,
        codec.GREETING + b"\x04\xff" + bytes(255),
    ],
)
def test_garbage_ends_its_own_connection_and_is_counted(host, context, words):
    good = dial(context, host.submit)
    ask(good)
    with host.raw() as bad:
        bad.sendall(words)
        assert closed(bad)
    assert host.transport.submit.counts["garbage"] == 1
    ask(good)


def test_what_is_half_open_is_given_up(host, monkeypatch):
    monkeypatch.setattr(listener, "_HANDSHAKE_S", 0.2)
    for start in (b"", b"\xff", codec.GREETING, codec.GREETING + b"\x04"):
        with host.raw() as lazy:
            lazy.sendall(start)
            assert closed(lazy)
    assert host.transport.submit.counts["no_handshake"] == 4


def test_a_message_that_stops_in_the_middle_is_given_up_and_an_idle_client_is_not(host, context, monkeypatch):
    monkeypatch.setattr(listener, "_STALLED_S", 0.2)
    ask(idle := dial(context, host.submit))
    with host.raw() as stalled:
        stalled.sendall(HELLO + b"\x01\x01a")
        assert closed(stalled)
    assert host.transport.submit.counts["stalled"] == 1
    assert ask(idle)[0].request == 2
    assert host.seen[0][0] == host.seen[1][0]


def test_one_user_has_so_many_connections_and_no_more(host, monkeypatch):
    most = listener.SUBMIT.connections_each
    held = [host.raw() for _ in range(most)]
    with host.raw() as late:
        assert closed(late)
    held.pop().close()
    time.sleep(0.1)
    with host.raw() as next_one:
        next_one.sendall(HELLO)
        assert receive_exactly(next_one, 64) == codec.GREETING
    for each in held:
        each.close()


def test_who_has_too_much_on_its_way_loses_what_is_largest(host, context, monkeypatch):
    monkeypatch.setattr(host.transport.submit, "_incoming", listener.Budget(each=3 << 20, total=1 << 30))
    large, small = host.raw(), host.raw()
    start = HELLO + b"\x02" + (100 << 20).to_bytes(8)
    small.sendall(start + bytes(1 << 20))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        large.sendall(start + bytes(4 << 20))
    assert closed(large)
    assert host.transport.submit.counts == {"too_much": 1}
    small.settimeout(0.2)
    assert small.recv(1000)
    ask(dial(context, host.submit))


def test_descriptors_that_are_sent_along_are_not_taken(host):
    before = len(os.listdir("/proc/self/fd"))
    with host.raw() as sock, open(os.devnull) as null:
        fds = array.array("i", [null.fileno()] * 10)
        for _ in range(50):
            sock.sendmsg([codec.GREETING[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            break
        sock.sendmsg([codec.GREETING[1:]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        assert receive_exactly(sock, 64) == codec.GREETING
        time.sleep(0.1)
        assert len(os.listdir("/proc/self/fd")) <= before + 3  # our end, theirs, and the file


def test_a_flood_of_pings_is_no_conversation(host):
    with host.raw() as sock:
        sock.sendall(HELLO + b"\x04\x07\x04PING\0\0" * (connection._CONTROLS_PER_S + 1))
        assert closed(sock)


def test_without_a_free_descriptor_the_door_waits_and_goes_on(host, context, monkeypatch):
    def none_left(_):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("pool.daemon.zmtp.poller.ListeningSocket.accept", none_left)
        sock = dial(context, host.submit)
        until(lambda: host.transport.submit.counts["no_descriptors"])
    ask(sock)


def test_the_sockets_have_their_permissions_and_an_unknown_group_is_named(host, tmp_path):
    assert stat.S_IMODE(os.stat(tmp_path / "s").st_mode) == 0o660
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o600
    (tmp_path / "2").mkdir()
    with pytest.raises(ConfigError, match="no-such-group"):
        Transport(
            submit=tmp_path / "2/s", admin=tmp_path / "2/a", links=tmp_path, submit_mode=0o660,
            submit_group="no-such-group",
        )  # fmt: skip


# ---- links ----


HI = wire.Hello(runner="1", sources="s", python="3.11")


@pytest.fixture
def link(host):
    """The path of the socket of worker p-1."""
    return host.call(lambda: host.transport.links.open("p-1")) / "link.sock"


def test_a_pair_says_hello_gets_a_large_job_and_gives_a_large_answer(host, context, link):
    runner = dial(context, f"ipc://{link}", zmq.PAIR)
    runner.send_multipart(wire.encode(HI))
    until(lambda: host.heard)
    assert host.heard == [("p-1", HI, [])]
    job = [b"code", bytes(BIG)]
    host.call(lambda: host.transport.links.set_limit("p-1", BIG + 10_000))
    assert host.call(lambda: host.transport.links.send("p-1", wire.Probe(seq=7), job))
    assert runner.poll(20_000)
    message, payload = wire.decode(wire.to_runner, runner.recv_multipart(copy=True))
    assert (message, payload) == (wire.Probe(seq=7), job)
    runner.send_multipart(wire.encode(wire.Done(job_id="j", epoch=1, outcome=Outcome.OK), [bytes(BIG)]), copy=False)
    until(lambda: len(host.heard) == 2)
    assert host.heard[1][2] == [bytes(BIG)]


def test_what_was_said_before_the_end_is_heard_before_the_end(host, context, link):
    runner = dial(context, f"ipc://{link}", zmq.PAIR)
    for seq in range(100):
        runner.send_multipart(wire.encode(wire.Heartbeat(seq=seq)))
    runner.close(linger=5000)
    until(lambda: host.lost)
    assert [message.seq for _, message, _ in host.heard] == list(range(100))
    assert "closed" in host.lost[0][1]
    assert not link.exists()


def test_one_connection_is_let_in_and_no_second_one(host, context, link):
    runner = dial(context, f"ipc://{link}", zmq.PAIR)
    runner.send_multipart(wire.encode(HI))
    until(lambda: host.heard)
    with socket.socket(socket.AF_UNIX) as second:
        second.settimeout(10)
        second.connect(str(link))
        assert closed(second)
    with socket.socket(socket.AF_UNIX) as third, pytest.raises(ConnectionRefusedError):
        third.connect(str(link))
    runner.send_multipart(wire.encode(wire.Heartbeat()))
    until(lambda: len(host.heard) == 2)
    assert not host.lost


def test_without_a_lease_a_worker_says_little(host, context, link):
    runner = dial(context, f"ipc://{link}", zmq.PAIR)
    runner.send_multipart(wire.encode(HI, [bytes(UNLEASED_BYTES)]))
    until(lambda: host.lost)
    assert "at most" in host.lost[0][1]
    assert not host.heard


def test_a_paused_user_is_not_received_until_it_is_resumed_and_loses_nothing(host, context):
    stays, waits, leaves = (dial(context, host.submit) for _ in range(3))
    for each in (stays, waits, leaves):
        ask(each)
    host.call(lambda: host.transport.submit.pause(host.seen[0][1]))
    for each in (stays, waits, leaves) * 10:
        each.send_multipart(wire.encode(wire.Ping(request=1)))
    leaves.close(linger=0)
    administrator = dial(context, f"ipc://{host.root}/a")
    for _ in range(50):  # turns of the loop in which the messages above could have been received
        ask(administrator)
    assert len(host.seen) == 3 + 50
    host.call(lambda: host.transport.submit.resume(host.seen[0][1]))
    for each in (stays, waits):
        for _ in range(10):
            assert each.poll(10_000)
            each.recv_multipart()


def test_a_worker_that_takes_nothing_is_told_so_by_the_send(host, context, link):
    with socket.socket(socket.AF_UNIX) as runner:
        runner.connect(str(link))
        runner.sendall(codec.GREETING + codec.ready("PAIR"))
        job = [bytes(1_000_000)]
        sent = [host.call(lambda: host.transport.links.send("p-1", wire.Probe(seq=1), job)) for _ in range(80)]
    assert sent[0]
    assert not sent[-1]


def test_a_link_that_floods_does_not_keep_the_others_waiting(host, context, link):
    other = host.call(lambda: host.transport.links.open("p-2")) / "link.sock"
    beat = b"".join(map(bytes, codec.pack(wire.encode(wire.Heartbeat()))))
    with socket.socket(socket.AF_UNIX) as flood:
        flood.connect(str(link))
        flood.sendall(codec.GREETING + codec.ready("PAIR") + beat * 3000)
        runner = dial(context, f"ipc://{other}", zmq.PAIR)
        runner.send_multipart(wire.encode(HI))
        until(lambda: len(host.heard) == 3001)
    assert host.heard.index(("p-2", HI, [])) < 3000


def test_one_client_that_never_reads_is_cut_off_too(host, context, monkeypatch):
    monkeypatch.setattr(host.transport.submit, "_outgoing", listener.Budget(each=4 << 20, total=8 << 20))
    host.payload = [bytes(6_000_000)]
    question = b"".join(map(bytes, codec.pack(wire.encode(wire.Ping(request=1)))))
    stubborn = host.raw()
    stubborn.sendall(HELLO + question)
    until(lambda: len(host.seen) == 1)
    assert not host.transport.submit.counts  # one answer of any size waits
    stubborn.sendall(question)
    until(lambda: host.transport.submit.counts["not_read"])
    assert closed(stubborn)

"""Listeners and links with real peers: sockets of the installed libzmq, and plain sockets that break every rule."""

import array
import contextlib
import dataclasses
import os
import socket
import stat
import time
from random import Random
from types import SimpleNamespace

import pytest
import zmq

from pool import wire
from pool.daemon.zmtp import UNLEASED_BYTES, Transport, commands, connection, listener
from pool.daemon.zmtp.listening import ListeningSocket
from pool.errors import ConfigError
from pool.model import Outcome
from tests.support.process import descriptors
from tests.support.waiting import eventually
from tests.support.zmtp_host import GREETED, WAIT_S, Host, ask, dialer, is_closed, packed

BIG = 80_000_000


@pytest.fixture
def host(tmp_path):
    with Host(tmp_path) as it:
        yield it


@pytest.fixture
def dial():
    with dialer() as function:
        yield function


# ---- the listening socket ----


def test_a_path_exists_only_once_its_socket_listens_so_that_no_client_is_refused(tmp_path, monkeypatch):
    path, listen, found = tmp_path / "submit.sock", socket.socket.listen, []

    def looking(sock, backlog):
        found.append(path.exists())
        listen(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", looking)
    sockets = [ListeningSocket(path, 0o660, backlog=1) for _ in range(2)]  # the second one replaces the first
    assert found == [False, True]
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert list(tmp_path.iterdir()) == [path]
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        accepted = [each.accept() for each in sockets]
    assert [each is not None for each in accepted] == [False, True]
    for each in [*sockets, *filter(None, accepted)]:
        each.close()


# ---- clients ----


def test_a_message_comes_with_the_user_of_its_client_and_is_answered(host, dial):
    answer, payload = ask(dial(host.endpoint), b"", b"payload")
    assert (answer.request, payload) == (1, [b"", b"payload"])
    assert host.from_clients[0][1] == str(os.getuid())


def test_a_thousand_messages_and_their_answers_keep_their_order(host, dial):
    sock = dial(host.endpoint)
    for number in range(1000):
        sock.send_multipart(wire.encode(wire.Ping(request=1), [str(number).encode()]))
    for number in range(1000):
        assert sock.poll(WAIT_S * 1000)
        answer, payload = wire.decode(wire.to_client, sock.recv_multipart())
        assert (answer.request, payload) == (number + 1, [str(number).encode()])


def test_large_frames_go_both_ways_between_small_ones(host, dial):
    large = Random(1).randbytes(1 << 20) * (BIG >> 20)
    _, payload = ask(dial(host.endpoint), b"a", large, b"", b"b" * 100_000)
    assert payload == [b"a", large, b"", b"b" * 100_000]


@pytest.mark.parametrize("payload", [[b"", b"small"], [b"", bytes(1 << 20)]], ids=["small", "large"])
def test_two_messages_that_are_written_together_are_received_one_after_the_other(host, dial, payload):
    ask(sock := dial(host.endpoint))
    address, messages = host.from_clients[0][0], [wire.Accepted(request=each, job_id="x") for each in (7, 8)]
    assert host.call(lambda: host.transport.submit.send(address, messages[1], payload, first=messages[0]))
    for message, expected in zip(messages, ([], payload), strict=True):
        assert sock.poll(WAIT_S * 1000)
        assert wire.decode(wire.to_client, sock.recv_multipart()) == (message, expected)


def test_a_peer_with_short_heartbeats_and_an_identity_stays_connected(host, dial):
    sock = dial(host.endpoint, HEARTBEAT_IVL=100, HEARTBEAT_TIMEOUT=2000, HEARTBEAT_TTL=2000, ROUTING_ID=b"me")
    monitor = sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    ask(sock)
    assert not monitor.poll(2600), "libzmq gave the connection up"
    ask(sock)
    sock.disable_monitor()
    monitor.close(linger=0)


def test_two_peers_of_one_identity_are_two_peers(host, dial):
    first, second = (dial(host.endpoint, ROUTING_ID=b"same") for _ in range(2))
    assert ask(first, b"1")[1] == [b"1"]
    assert ask(second, b"2")[1] == [b"2"]
    assert ask(first, b"3")[1] == [b"3"]
    assert len({address for address, _, _ in host.from_clients}) == 2


def test_a_client_that_reconnects_has_a_new_address_and_the_old_one_is_refused(host, dial):
    ask(first := dial(host.endpoint))
    address = host.from_clients[0][0]
    first.close(linger=0)
    ask(dial(host.endpoint))
    eventually(lambda: not host.call(lambda: host.transport.submit.send(address, wire.Accepted(request=1, job_id="x"))))


def test_libzmq_reconnects_to_a_socket_that_was_bound_again(tmp_path, dial):
    with Host(tmp_path) as host:
        sock = dial(host.endpoint, RECONNECT_IVL=10)
        ask(sock)
        monitor = sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    with Host(tmp_path) as following:
        assert monitor.poll(WAIT_S * 1000)
        ask(sock)
        assert len(following.from_clients) == 1
    sock.disable_monitor()
    monitor.close(linger=0)


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.PAIR, zmq.SUB, zmq.PUSH])
def test_sockets_of_other_types_are_refused(host, dial, kind):
    sock = dial(host.endpoint, kind, RECONNECT_IVL=-1)
    eventually(lambda: host.counts["garbage"])
    sock.close(linger=0)
    ask(dial(host.endpoint))


def test_a_slow_reader_gets_everything_and_delays_nobody(host, dial):
    slow, quick = dial(host.endpoint, RCVHWM=1), dial(host.endpoint)
    host.payload = [bytes(2_000_000)]
    for _ in range(20):
        slow.send_multipart(wire.encode(wire.Ping(request=1)))
    eventually(lambda: len(host.from_clients) == 20)
    host.payload = ()
    ask(quick)
    for _ in range(20):
        assert slow.poll(WAIT_S * 1000)
        assert len(slow.recv_multipart()[2]) == 2_000_000


def test_a_client_that_never_reads_is_ended_at_its_share_and_others_are_not(host, dial, monkeypatch):
    caps = listener.Caps(
        message=1 << 20, connections=9, connections_each=9, incoming=1 << 30, incoming_each=1 << 30,
        outgoing=8 << 20, outgoing_each=4 << 20, answers=1000,
    )  # fmt: skip
    monkeypatch.setattr(host.transport.submit, "_caps", caps)
    monkeypatch.setattr(host.transport.submit, "_outgoing", listener.Budget(each=4 << 20, total=8 << 20))
    host.payload = [bytes(1_000_000)]
    stubborn, other = host.greet(), host.greet()
    other.sendall(packed() * 2)
    stubborn.sendall(packed() * 20)
    eventually(lambda: host.counts["not_read"])
    assert is_closed(stubborn)
    host.payload = ()
    ask(dial(host.endpoint))
    other.settimeout(0.5)
    with pytest.raises(TimeoutError):
        is_closed(other)


def test_one_answer_of_any_size_waits_for_a_client_and_a_second_one_does_not(host, dial, monkeypatch):
    monkeypatch.setattr(host.transport.submit, "_outgoing", listener.Budget(each=4 << 20, total=8 << 20))
    host.payload = [bytes(6_000_000)]
    stubborn = host.connect()
    stubborn.sendall(GREETED + packed())
    eventually(lambda: len(host.from_clients) == 1)
    assert not host.counts
    stubborn.sendall(packed())
    eventually(lambda: host.counts["not_read"])
    assert is_closed(stubborn)


# ---- peers that break the rules ----


def test_connections_of_one_user_are_limited(host):
    most = listener.SUBMIT.connections_each
    held = [host.connect() for _ in range(most)]
    with host.connect() as late:
        assert is_closed(late)
    held.pop().close()
    eventually(lambda: len(host.transport.submit._clients) == most - 1)
    host.greet()


def test_several_users_with_all_connections_together_do_not_shut_out_another_one(host, dial, monkeypatch):
    users = iter([1, 1, 2, 2, 2, 3, 3])
    monkeypatch.setattr(connection, "_CREDENTIALS", SimpleNamespace(unpack=lambda _: (0, next(users), 0)))
    few = dataclasses.replace(listener.SUBMIT, connections=5, connections_each=3)
    monkeypatch.setattr(host.transport.submit, "_caps", few)
    held = [host.greet() for _ in range(5)]
    ask(dial(host.endpoint))
    assert is_closed(held[4])
    with host.connect() as late:  # by now each of them has two
        assert is_closed(late)
    assert host.counts == {"too_many": 2}
    for each in held[:4]:
        each.settimeout(0.5)
        with pytest.raises(TimeoutError):
            is_closed(each)


def test_a_user_with_too_many_unfinished_bytes_loses_the_largest_connection(host, dial, monkeypatch):
    monkeypatch.setattr(host.transport.submit, "_incoming", listener.Budget(each=3 << 20, total=1 << 30))
    large, small = host.connect(), host.connect()
    start = GREETED + b"\x02" + (100 << 20).to_bytes(8)
    small.sendall(start + bytes(1 << 20))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        large.sendall(start + bytes(4 << 20))
    assert is_closed(large)
    assert host.counts == {"too_much": 1}
    assert small.recv(1000)
    ask(dial(host.endpoint))


def test_descriptors_that_a_peer_sends_along_are_dropped(host):
    with host.greet() as sock, open(os.devnull) as null:
        before = descriptors()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()] * 10))]
        for _ in range(50):
            sock.sendmsg([packed()], rights)
        eventually(lambda: len(host.from_clients) == 50)
        assert descriptors() <= before


def test_a_flood_of_pings_ends_the_connection(host):
    with host.connect() as sock:
        sock.sendall(GREETED + b"\x04\x07\x04PING\0\0" * (connection._CONTROLS_PER_S + 1))
        assert is_closed(sock)


def test_without_a_free_descriptor_connections_wait_until_there_is_one(host, dial, monkeypatch):
    def none_left(_):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("pool.daemon.zmtp.listening.ListeningSocket.accept", none_left)
        sock = dial(host.endpoint)
        eventually(lambda: host.counts["no_descriptors"])
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
    return host.open_link("p-1")


def test_a_worker_gets_a_large_job_and_sends_a_large_answer(host, dial, link):
    runner = dial(f"ipc://{link}", zmq.PAIR)
    runner.send_multipart(wire.encode(HI))
    eventually(lambda: host.from_workers)
    assert host.from_workers == [("p-1", HI, [])]
    job = [b"code", bytes(BIG)]
    assert host.call(lambda: host.transport.links.send("p-1", wire.Probe(seq=7), job, answer_bytes=BIG + 10_000))
    assert runner.poll(WAIT_S * 1000)
    message, payload = wire.decode(wire.to_runner, runner.recv_multipart(copy=True))
    assert (message, payload) == (wire.Probe(seq=7), job)
    runner.send_multipart(wire.encode(wire.Done(job_id="j", epoch=1, outcome=Outcome.OK), [bytes(BIG)]), copy=False)
    eventually(lambda: len(host.from_workers) == 2)
    assert host.from_workers[1][2] == [bytes(BIG)]
    runner.send_multipart(wire.encode(wire.Freed(epoch=1), [bytes(BIG)]), copy=False)  # no more after Done
    eventually(lambda: host.losses)
    assert "are allowed now" in host.losses[0][1]


def test_messages_before_the_end_of_a_link_come_before_its_loss(host, dial, link):
    runner = dial(f"ipc://{link}", zmq.PAIR)
    for seq in range(100):
        runner.send_multipart(wire.encode(wire.Heartbeat(seq=seq)))
    runner.close(linger=5000)
    eventually(lambda: host.losses)
    assert [message.seq for _, message, _ in host.from_workers] == list(range(100))
    assert "closed" in host.losses[0][1]
    assert not link.exists()


def test_a_second_connection_of_a_worker_is_refused(host, dial, link):
    runner = dial(f"ipc://{link}", zmq.PAIR)
    runner.send_multipart(wire.encode(HI))
    eventually(lambda: host.from_workers)
    with socket.socket(socket.AF_UNIX) as second:
        second.settimeout(60)
        second.connect(str(link))
        assert is_closed(second)
    with socket.socket(socket.AF_UNIX) as third, pytest.raises(ConnectionRefusedError):
        third.connect(str(link))
    runner.send_multipart(wire.encode(wire.Heartbeat()))
    eventually(lambda: len(host.from_workers) == 2)
    assert not host.losses


@contextlib.contextmanager
def bound_again(host):
    """The socket of a link that was bound again, with a connection that says nothing."""
    directory = host.root / "w" / "7"
    directory.mkdir()
    host.call(lambda: host.transport.links.reopen("p-1", host, 7))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(directory / "link.sock"))
        eventually(lambda: host.call(lambda: host.transport.links._links["p-1"].connection))
        yield directory / "link.sock", silent


def test_a_link_that_was_bound_again_waits_for_a_connection_that_says_something(host, dial):
    """As a process of the container could connect and say nothing, if it could reach the link."""
    with bound_again(host) as (link, _):
        pass
    eventually(lambda: not host.call(lambda: host.transport.links._links["p-1"].connection))
    runner = dial(f"ipc://{link}", zmq.PAIR)
    runner.send_multipart(wire.encode(HI))
    eventually(lambda: host.from_workers)
    assert not host.losses
    runner.close(linger=0)
    eventually(lambda: host.losses)


def test_a_link_that_was_bound_again_takes_the_newest_connection_until_one_says_something(host, dial):
    """A runner that connects again need not wait until the daemon has noticed the end of its last try."""
    with bound_again(host) as (link, silent):
        runner = dial(f"ipc://{link}", zmq.PAIR)
        runner.send_multipart(wire.encode(HI))
        eventually(lambda: host.from_workers)
        assert is_closed(silent)
    with socket.socket(socket.AF_UNIX) as late:
        late.settimeout(60)
        late.connect(str(link))
        assert is_closed(late)
    assert not host.losses


def test_new_links_get_other_directories_than_those_that_were_bound_again(host):
    (host.root / "w" / "7").mkdir()
    host.call(lambda: host.transport.links.reopen("p-1", host, 7))
    assert host.open_link("p-2").parent.name == "8"


def test_without_a_lease_a_worker_may_send_little(host, dial, link):
    runner = dial(f"ipc://{link}", zmq.PAIR)
    runner.send_multipart(wire.encode(HI, [bytes(UNLEASED_BYTES)]))
    eventually(lambda: host.losses)
    assert "69632 are allowed" in host.losses[0][1]
    assert not host.from_workers


def test_a_paused_user_is_not_received_until_it_is_resumed_and_loses_nothing(host, dial):
    stays, leaves = host.greet(), host.greet()
    stays.sendall(packed())
    eventually(lambda: host.from_clients)
    user = host.from_clients[0][1]
    host.call(lambda: host.transport.submit.pause(user))
    comes = dial(host.endpoint)
    for _ in range(10):
        stays.sendall(packed())
        leaves.sendall(packed())
        comes.send_multipart(wire.encode(wire.Ping(request=1)))
    leaves.close()
    administrator = dial(f"ipc://{host.root}/a")
    for _ in range(50):  # turns of the loop in which the messages above could have been received
        ask(administrator)
    assert len(host.from_clients) == 1 + 50
    host.call(lambda: host.transport.submit.resume(user))
    eventually(lambda: len(host.from_clients) == 1 + 50 + 30)


def test_a_paused_client_that_has_gone_does_not_keep_the_loop_busy(host):
    sock = host.greet()
    sock.sendall(packed())
    eventually(lambda: host.from_clients)
    user = host.from_clients[0][1]
    host.call(lambda: host.transport.submit.pause(user))
    sock.sendall(packed())
    sock.close()
    turns = []
    wait = host.transport._poller.wait
    host.transport._poller.wait = lambda timeout: (turns.append(timeout), wait(timeout))
    time.sleep(0.5)
    assert len(turns) < 50
    host.call(lambda: host.transport.submit.resume(user))
    eventually(lambda: len(host.from_clients) == 2)


def test_send_returns_false_for_a_worker_that_takes_nothing(host, dial, link):
    with socket.socket(socket.AF_UNIX) as runner:
        runner.connect(str(link))
        runner.sendall(commands.GREETING + commands.ready("PAIR"))
        job = [bytes(1_000_000)]
        sent = [host.call(lambda: host.transport.links.send("p-1", wire.Probe(seq=1), job)) for _ in range(80)]
    assert sent[0]
    assert not sent[-1]


def test_a_message_may_end_another_worker_that_has_sent_something_too(host, link):
    other = host.open_link("p-2")
    runners = [host.connect(path) for path in (link, other)]
    for each in runners:
        each.sendall(commands.GREETING + commands.ready("PAIR") + packed(HI))
    eventually(lambda: len(host.from_workers) == 2)

    def receive(worker_id, *_):
        host.from_workers.append(worker_id)
        host.transport.links.close({"p-1": "p-2", "p-2": "p-1"}[worker_id])

    def send_while_the_loop_waits():
        host.receive = receive
        for each in runners:
            each.sendall(packed(wire.Heartbeat()))

    host.call(send_while_the_loop_waits)
    eventually(lambda: len(host.from_workers) == 3)
    host.call(lambda: None)  # the loop goes on
    assert len(host.from_workers) == 3


def test_a_link_that_floods_does_not_delay_the_others(host, link):
    other = host.open_link("p-2")
    flooding, quiet = (host.connect(path) for path in (link, other))
    for each in (flooding, quiet):
        each.sendall(commands.GREETING + commands.ready("PAIR") + packed(HI))
    eventually(lambda: len(host.from_workers) == 2)

    def send_while_the_loop_waits():
        flooding.sendall(packed(wire.Heartbeat()) * 1000)
        quiet.sendall(packed(wire.Heartbeat(seq=2)))

    host.call(send_while_the_loop_waits)
    eventually(lambda: len(host.from_workers) == 1003)
    assert host.from_workers.index(("p-2", wire.Heartbeat(seq=2), [])) < 100

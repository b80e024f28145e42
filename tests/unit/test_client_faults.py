"""Client and a daemon that is absent, dies, restarts, stops answering or sends garbage."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import tempfile
import threading
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace

import msgspec
import pytest
import zmq

from pool import Client, Outcome, values, wire
from pool.client import connection
from pool.client.job import LARGE_BYTES
from pool.client.pending import PendingRequests
from pool.errors import (
    DaemonUnreachableError,
    DrainingError,
    RemoteProtocolError,
    UnknownJobError,
    VersionMismatchError,
)
from tests.support.waiting import Waiting, eventually, in_child
from tests.unit.fake_daemon import HOLD, FakeDaemon

#: The daemon is pinged every quarter of a timeout as short as this.
HASTY_S = 2.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


@pytest.fixture
def daemon(path):
    with FakeDaemon(path) as daemon:
        yield daemon


@pytest.fixture
def client(path):
    with Client(path, timeout=60) as client:
        yield client


@pytest.fixture
def hasty(path):
    """A client whose timeout tests wait for."""
    with Client(path, timeout=HASTY_S) as client:
        yield client


@pytest.fixture
def an_hour_passes(monkeypatch):
    """Moves the client's clock forward: whatever it was going to do within an hour is due in its next turn."""
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + clock.ahead, ahead=0)
    monkeypatch.setattr(connection, "time", clock)

    def pass_() -> None:
        clock.ahead += 3600

    return pass_


def ignore(call):
    pass


def read_all(client):
    """Answers come in order: after this one, the client has read all that the daemon sent before."""
    client.submit("")


# ---- no daemon ----


@pytest.fixture
def patient(path):
    """A client whose timeout no test waits for."""
    with Client(path, timeout=600) as client:
        yield client


@pytest.mark.parametrize(
    "ask", [lambda c: c.run(""), lambda c: c.submit(""), lambda c: c.result("x"), lambda c: c.cancel("x")]
)
def test_the_first_request_fails_at_once_when_there_is_no_daemon(patient, ask):
    with pytest.raises(DaemonUnreachableError, match=r"no daemon: .*/s does not exist\. Start pool-daemon"):
        ask(patient)


def test_a_path_that_is_no_socket_is_named_as_such_at_once(path, patient):
    path.write_text("")
    with pytest.raises(DaemonUnreachableError, match="is not a socket"):
        patient.run("")


def test_a_socket_without_a_listener_is_named_as_such_at_once(path, patient):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(DaemonUnreachableError, match="the daemon has died: nobody listens at") as caught:
        patient.run("")
    assert caught.value.fields == {"endpoint": f"ipc://{path}"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_a_socket_without_permission_is_named_as_such_at_once():
    def refused() -> bool:
        os.setuid(65534)
        with Client(f"{home}/s", timeout=600) as client, pytest.raises(DaemonUnreachableError, match="may not use"):
            client.run("")
        return True

    with tempfile.TemporaryDirectory() as home:  # which others may enter, unlike tmp_path
        Path(home).chmod(0o711)
        with FakeDaemon(f"{home}/s"):
            Path(home, "s").chmod(0o600)
            assert in_child(refused) == 0


@pytest.fixture
def lost(monkeypatch):
    """Set when a client has noticed that its connection is lost."""
    noticed, disconnected = threading.Event(), PendingRequests.disconnected
    monkeypatch.setattr(PendingRequests, "disconnected", lambda *args: noticed.set() or disconnected(*args))
    return noticed


def test_a_client_waits_for_a_daemon_that_was_there_and_starts_again(path, lost):
    with Client(path, timeout=60) as client:
        with FakeDaemon(path):
            assert client.run("result = 1").value == 1
        # Before that, a job would go to the daemon that has ended, and whether it ran there would be unknown.
        assert lost.wait(20)
        waiting = Waiting(client.run, "result = 2")
        eventually(waiting.goes_on)
        with FakeDaemon(path, instance="two"):
            assert waiting.end().value == 2


def test_a_daemon_that_was_waited_for_in_vain_is_not_waited_for_again(path, patient, an_hour_passes):
    with FakeDaemon(path):
        patient.run("")
    waiting = Waiting(patient.run, "")
    eventually(lambda: an_hour_passes() or not waiting.goes_on())
    assert isinstance(waiting.end(), DaemonUnreachableError)
    with pytest.raises(DaemonUnreachableError, match=r"does not exist|nobody listens"):
        patient.run("")


def test_a_request_that_failed_is_not_sent_to_a_daemon_that_starts_later(path, client):
    with pytest.raises(DaemonUnreachableError):
        client.run("result = 'first'", job_id="first")
    with FakeDaemon(path) as daemon:
        assert client.run("result = 2", job_id="second").value == 2
        assert [submit.job_id for submit in daemon.of(wire.Submit)] == ["second"]


# ---- a daemon that does not answer ----


def test_a_daemon_that_stops_answering_fails_all_pending_requests(hasty, daemon):
    waiting = [Waiting(hasty.run, HOLD) for _ in range(3)]
    daemon.wait_for(wire.Submit, 3)
    for kind in (wire.Ping, wire.Submit):
        daemon.on(kind, ignore)
    errors = [each.end() for each in waiting]
    assert {type(error) for error in errors} == {DaemonUnreachableError}
    assert len(set(map(id, errors))) == 3


def test_a_daemon_that_dies_fails_pending_requests_and_the_client_works_with_the_next(path, hasty):
    with FakeDaemon(path) as daemon:
        waiting = Waiting(hasty.run, HOLD)
        daemon.wait_for(wire.Submit)
    assert isinstance(waiting.end(), DaemonUnreachableError)
    with FakeDaemon(path, instance="two"):
        assert hasty.run("result = 2").value == 2


def test_a_job_may_take_much_longer_than_the_timeout_while_the_daemon_answers(hasty, daemon):
    waiting = Waiting(hasty.run, HOLD, job_id="long")
    daemon.wait_for(wire.Ping, 13)  # four in each timeout
    daemon.finish("long", value="done")
    assert waiting.end().value == "done"


def test_nothing_is_sent_while_nothing_is_pending(client, daemon, an_hour_passes):
    client.run("")
    an_hour_passes()
    client.run("")
    assert list(map(type, daemon.received)) == [wire.Ping, wire.Submit, wire.Submit]


def test_a_request_that_is_pending_for_long_is_pinged_for(client, daemon, an_hour_passes):
    """Shows that the clock of the test above and below has the effect that they rely on."""
    waiting = Waiting(client.run, HOLD, job_id="long")
    daemon.wait_for(wire.Submit)
    read_all(client)
    pings = len(daemon.of(wire.Ping))
    an_hour_passes()
    client.submit("")
    daemon.wait_for(wire.Ping, pings + 1)
    daemon.finish("long")
    waiting.end()


def test_a_result_that_no_caller_waits_for_is_not_pinged_for(daemon, an_hour_passes):
    with Client(daemon.endpoint, timeout=60) as client:
        with pytest.raises(TimeoutError):
            client.run(HOLD, timeout=0.05)
        read_all(client)
        an_hour_passes()
        client.submit("")
    assert len(daemon.of(wire.Ping)) == 1


def test_a_submit_that_a_living_daemon_does_not_answer_fails_alone(hasty, daemon):
    held = Waiting(hasty.run, HOLD, job_id="held")
    daemon.wait_for(wire.Submit)
    daemon.on(wire.Submit, ignore)
    with pytest.raises(
        DaemonUnreachableError, match=r"took longer than .* to accept job x, so whether it ran is unknown"
    ):
        hasty.submit("", job_id="x")
    daemon.finish("held", value=1)
    assert held.end().value == 1


# ---- a daemon that restarts ----


def restarted(path, daemon, **known):
    """The next daemon on this path; it knows these jobs."""
    daemon.stop()
    return FakeDaemon(path, instance="two", jobs=known)


def test_a_job_that_the_new_daemon_knows_is_waited_for_and_not_submitted_again(path, client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    job = daemon.job("job")
    job.watchers.clear()
    with restarted(path, daemon, job=job) as following:
        following.wait_for(wire.Watch)
        following.finish("job", value="survived")
        assert waiting.end().value == "survived"
        assert not following.of(wire.Submit)


def test_a_job_that_the_new_daemon_does_not_know_is_lost(path, client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    read_all(client)
    with restarted(path, daemon) as following:
        result = waiting.end()
        assert result.outcome is Outcome.LOST
        assert "restarted" in result.reason
        assert "unknown" in result.reason
        assert not following.of(wire.Submit)


def test_a_job_that_the_new_daemon_refuses_for_another_reason_ends_with_that_error(path, client, daemon, monkeypatch):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    read_all(client)
    monkeypatch.setattr(FakeDaemon, "_watch", lambda _, call, __: call.refuse("draining"))
    with restarted(path, daemon):
        assert isinstance(waiting.end(), DrainingError)


def test_a_watched_job_that_the_new_daemon_does_not_know_is_lost(path, client, daemon):
    job_id = client.submit(HOLD)
    waiting = Waiting(client.result, job_id)
    daemon.wait_for(wire.Watch)
    daemon.wait_for(wire.Ping, len(daemon.of(wire.Ping)) + 1)
    read_all(client)
    with restarted(path, daemon):
        assert waiting.end().outcome is Outcome.LOST


def test_another_instance_on_the_same_connection_is_noticed_by_its_name(client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    read_all(client)

    def change():
        daemon.instance = "two"
        daemon.jobs.clear()

    daemon.do(change)
    assert waiting.end().outcome is Outcome.LOST
    assert len(daemon.of(wire.Watch)) == 1


def test_a_restart_is_noticed_while_other_jobs_use_the_connection(path, client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    read_all(client)
    with restarted(path, daemon):
        end = time.monotonic() + 20
        while waiting.outcome is None and time.monotonic() < end:
            with contextlib.suppress(DaemonUnreachableError):  # one that went down with the old connection
                client.run("")
    assert waiting.end().outcome is Outcome.LOST


def test_a_job_that_was_not_accepted_before_the_restart_is_an_error_that_says_so(path, client, daemon):
    daemon.on(wire.Submit, ignore)
    waiting = [Waiting(client.run, HOLD), Waiting(client.submit, HOLD)]
    daemon.wait_for(wire.Submit, 2)
    with restarted(path, daemon):
        for each in waiting:
            error = each.end()
            assert isinstance(error, DaemonUnreachableError)
            assert "restarted before it accepted" in str(error)


@pytest.mark.parametrize("large", [False, True])
def test_a_job_that_was_certainly_not_accepted_is_submitted_again_as_it_was(path, client, daemon, large):
    daemon.on(wire.Submit, ignore)
    text = "x" * (LARGE_BYTES if large else 1)
    waiting = [
        Waiting(client.run, "result = 1", job_id="a", stdin=text),
        Waiting(client.submit, "result = 1", job_id="b", stdin=text),
        Waiting(lambda: list(client.map("def main(x): return x", [[1], [2]], entry="main"))),
        Waiting(client.run_tests, "def main(x): return x", [{"args": [1], "expected": 1}], entry="main"),
    ]
    daemon.wait_for(wire.Submit, 5)
    sent = submitted(daemon)
    daemon.stop()
    with FakeDaemon(path, instance="two") as following:
        following.known_since_ns = 0
        one, job_id, mapped, report = [each.end() for each in waiting]
        assert (one.value, job_id, [each.value for each in mapped], report.ok) == (1, "b", [1, 2], True)
        assert len(following.of(wire.Submit)) == 5
        assert submitted(following).items() <= sent.items()


def submitted(daemon):
    """The headers and payloads of the jobs that a fake daemon has received, by id."""
    received = zip(daemon.received, daemon.payloads, strict=True)
    return {each.job_id: (each, payload) for each, payload in received if isinstance(each, wire.Submit)}


def test_the_error_of_the_first_job_says_whether_a_daemon_may_have_it(path):
    with FakeDaemon(path) as daemon, Client(path) as client:
        daemon.on(wire.Ping, ignore)
        daemon.on(wire.Submit, ignore)
        waiting = Waiting(client.run, HOLD, job_id="job")
        daemon.wait_for(wire.Submit)
        daemon.stop()
        error = waiting.end()
        assert isinstance(error, DaemonUnreachableError)
        assert error.fields["job_id"] == "job"
        with pytest.raises(DaemonUnreachableError) as raised:
            client.run(HOLD)
        assert "job_id" not in raised.value.fields


def test_an_unanswered_cancel_is_sent_again_to_the_new_daemon(path, client, daemon):
    client.submit(HOLD, job_id="job")
    daemon.on(wire.Cancel, ignore)
    waiting = Waiting(client.cancel, "job")
    daemon.wait_for(wire.Cancel)
    job = daemon.job("job")
    with restarted(path, daemon, job=job) as following:
        assert waiting.end() is None
        assert len(following.of(wire.Cancel)) == 1


def test_an_id_that_was_never_known_is_not_called_lost(client, daemon):
    client.run("")
    with pytest.raises(UnknownJobError):
        client.result("never")


# ---- lost connections ----


def test_an_answer_that_was_lost_with_the_connection_is_asked_for_again(path, client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    read_all(client)
    job = daemon.job("job")
    job.watchers.clear()
    daemon.stop()
    with FakeDaemon(path, instance=daemon.instance, jobs={"job": job}) as same:
        same.wait_for(wire.Watch)
        same.finish("job", value="arrived")
        assert waiting.end().value == "arrived"
        assert not same.of(wire.Submit)


def test_an_answer_that_always_breaks_the_connection_is_given_up(path, daemon, monkeypatch):
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 1000)
    with Client(path, timeout=60) as client:
        with pytest.raises(RemoteProtocolError, match="the connection was lost 10 times over job big"):
            client.run("result = b'x' * 2000", job_id="big")
        assert client.run("result = 1").value == 1
    assert len(daemon.of(wire.Submit)) == 2


class HangingUp:
    """A listener that closes each connection at once, and counts them."""

    def __init__(self, path):
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self.connections += 1
                peer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._listener.close()


def test_a_peer_that_always_hangs_up_is_given_up_and_not_connected_to_again(tmp_path, path, client, monkeypatch):
    monkeypatch.setattr(connection, "RECONNECT_MS", (1, 1))
    with HangingUp(path) as peer, HangingUp(tmp_path / "other") as other, zmq.Context() as context:
        with pytest.raises((RemoteProtocolError, DaemonUnreachableError)):
            client.run("")
        with context.socket(zmq.DEALER) as control:
            control.setsockopt(zmq.RECONNECT_IVL, 1)
            control.setsockopt(zmq.LINGER, 0)
            control.connect(f"ipc://{tmp_path}/other")
            eventually(lambda: other.connections > 50)  # what was on its way has been accepted and counted
            before = peer.connections
            eventually(lambda: other.connections > 100)  # time for as many attempts of the client, which makes none
        assert peer.connections == before > 0


# ---- garbage ----

HEADER = msgspec.msgpack.encode
RANDOM = Random(1).randbytes(200)


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"", b"", b""],
        [b"HTTP/1.1 200 OK"],
        [wire.PREAMBLE],
        [wire.PREAMBLE, b""],
        [wire.PREAMBLE, b"\xc1"],
        [wire.PREAMBLE, RANDOM[:200]],
        [wire.PREAMBLE, HEADER({"type": "result"})],
        [wire.PREAMBLE, HEADER({"type": "eval", "code": "1"})],
        [wire.PREAMBLE, HEADER({"type": "result", "job_id": "j", "outcome": "won"})],
        [wire.PREAMBLE, HEADER({"type": "accepted", "request": -1, "job_id": "j"})],
        [wire.PREAMBLE, b"\x81" * 60_000],
        [wire.PREAMBLE, b"x" * (wire.MAX_HEADER_BYTES + 1)],
        [wire.PREAMBLE, HEADER({"type": "pong", "request": 1, "instance": "i", "version": "0"}), *[b""] * 1025],
    ],
)
def test_garbage_fails_pending_requests_at_once_and_the_next_job_is_served(client, daemon, frames):
    daemon.on(wire.Submit, lambda call: call.raw(frames))
    began = time.monotonic()
    with pytest.raises(RemoteProtocolError):
        client.run("")
    assert time.monotonic() - began < 50
    daemon.on(wire.Submit, lambda call: call.proceed())
    assert client.run("result = 1").value == 1


def test_another_protocol_version_fails_pending_requests_at_once(client, daemon):
    daemon.on(wire.Ping, lambda call: call.raw([wire.MAGIC + bytes([wire.PROTOCOL_VERSION + 1]), b"what may come"]))
    with pytest.raises(VersionMismatchError, match="install the same version") as caught:
        client.run(HOLD)
    assert caught.value.fields == {"theirs": wire.PROTOCOL_VERSION + 1, "ours": wire.PROTOCOL_VERSION}


def test_messages_that_answer_no_request_are_dropped(client, daemon):
    def stray_answers(call):
        call.answer(wire.Accepted(request=999_999, job_id="other"))
        call.answer(wire.Refused(request=999_999, code="busy", message="no"))
        call.answer(wire.Result(job_id="other", outcome=Outcome.OK), [b"", b"", b""])
        call.answer(wire.Pong(request=999_999, instance="other", version="0"))
        call.proceed()
        call.proceed()

    daemon.on(wire.Submit, stray_answers)
    for each in range(3):
        assert client.run(f"result = {each}").value == each
    assert not daemon.of(wire.Watch)


def test_a_job_that_is_accepted_under_another_id_is_an_error(client, daemon):
    daemon.on(wire.Submit, lambda call: call.answer(wire.Accepted(request=call.message.request, job_id="else")))
    for ask in (client.run, client.submit):
        with pytest.raises(RemoteProtocolError, match="was accepted as else"):
            ask("", job_id="mine")


def test_an_error_on_the_i_o_thread_fails_pending_requests_and_the_next_request_starts_a_new_thread(
    client, daemon, monkeypatch
):
    client.run("")
    before = wire.decode

    def broken(decoder, frames):
        if decoder is wire.to_client:
            raise ZeroDivisionError
        return before(decoder, frames)

    monkeypatch.setattr(wire, "decode", broken)
    with pytest.raises(Exception, match="failed: ZeroDivisionError"):
        client.run("")
    monkeypatch.undo()
    assert client.run("result = 1").value == 1


def test_a_message_that_libzmq_refuses_is_sent_again_and_fails_no_other_request(client, daemon, monkeypatch):
    """It refuses a frame that is not the first of its message if the connection has ended since that one."""
    send, refusals = connection.DaemonSocket._send, [zmq.Again(), zmq.Again()]

    def refuse_twice(self, frames):
        if refusals:
            raise refusals.pop()
        send(self, frames)

    monkeypatch.setattr(connection.DaemonSocket, "_send", refuse_twice)
    assert client.run("result = 1").ok
    assert refusals == []
    assert list(map(type, daemon.received)).count(wire.Submit) == 1


# ---- results of hostile jobs ----


def ending(daemon, client, payload, **header):
    """The result of a job whose answer has this payload."""

    def end(call):
        call.answer(wire.Accepted(request=call.message.request, job_id=call.message.job_id))
        call.answer(wire.Result(job_id=call.message.job_id, **{"outcome": Outcome.OK, **header}), payload)

    daemon.on(wire.Submit, end)
    return client.run("")


def test_output_that_is_not_utf_8_is_decoded_with_replacements(client, daemon):
    result = ending(daemon, client, [b"a\xff", b"\xf0\x9f", b""], stdout_bytes=2, truncated=("stdout",), exit_code=3)
    assert (result.stdout, result.stderr) == ("a\ufffd", "\ufffd")
    assert (result.truncated, result.exit_code, result.ok) == (("stdout",), 3, True)


def test_files_and_figures_come_with_the_result(client, daemon):
    result = ending(daemon, client, [b"", b"", b"", b"A"], files=("a",), queue_ms=1.5, cpu_s=2.0, worker="w", attempt=1)
    assert result.files == {"a": b"A"}
    assert (result.timings.queue_ms, result.usage.cpu_s, result.worker, result.attempt) == (1.5, 2.0, "w", 1)


class Bomb:
    def __reduce__(self):
        return eval, ("__import__('os').environ.__setitem__('POOL_TEST_BOMB', 'went off')",)


@pytest.mark.parametrize("value", [[pickle.dumps(Bomb())], [b""], [b"\xc1"], [RANDOM[:64]], [b"\xdd\xff\xff\xff\xff"]])
def test_a_value_that_cannot_be_decoded_is_the_jobs_error_and_is_never_unpickled(client, daemon, value):
    result = ending(daemon, client, [b"printed", b"", b"", *value])
    assert (result.outcome, result.value, result.stdout) == (Outcome.ERROR, None, "printed")
    assert result.error.type == "ValueCodecError"
    assert "ValueCodecError" in result.reason
    assert "POOL_TEST_BOMB" not in os.environ


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "a\0b"])
def test_a_file_name_that_points_out_of_its_directory_is_dropped(client, daemon, name):
    result = ending(daemon, client, [b"", b"", b"", b"A"], files=(name,))
    assert (result.outcome, result.files) == (Outcome.ERROR, {})
    assert result.error.type == "InvalidError"


def test_an_error_that_cannot_be_decoded_is_still_an_error(client, daemon):
    result = ending(daemon, client, [b"", b"", b"garbage"], outcome=Outcome.ERROR)
    assert (result.outcome, result.error.type) == (Outcome.ERROR, "InvalidError")
    result = ending(daemon, client, [b"", b"", b"garbage"], outcome=Outcome.TIMEOUT, reason="over its wall time")
    assert (result.outcome, result.reason) == (Outcome.TIMEOUT, "over its wall time")


def test_an_answer_with_too_few_frames_is_the_jobs_error(client, daemon):
    result = ending(daemon, client, [b"", b""])
    assert (result.outcome, result.error.type) == (Outcome.ERROR, "InvalidError")


def test_a_value_with_another_outcome_is_not_decoded(client, daemon):
    result = ending(daemon, client, [b"", b"", b"", *values.encode(1, max_bytes=99)], outcome=Outcome.MEMORY)
    assert (result.outcome, result.value) == (Outcome.MEMORY, None)

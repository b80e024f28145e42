"""Client and a daemon that restarts, or whose connections break."""

import contextlib
import socket
import threading
import time

import pytest
import zmq

from pool import Client, Outcome, wire
from pool.client import dealer
from pool.client.job import LARGE_BYTES
from pool.errors import DaemonUnreachableError, DrainingError, RemoteProtocolError, UnknownJobError
from tests.support.waiting import Waiting, eventually
from tests.unit.fake_daemon import HOLD, FakeDaemon, ignore, read_all


@pytest.fixture
def client(path):
    with Client(path, timeout=60) as client:
        yield client


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
    with FakeDaemon(path) as daemon, Client(path, timeout=2) as client:
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
    monkeypatch.setattr(dealer, "RECONNECT_MS", (1, 1))
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

"""Client against a daemon that is not there, dies, is started anew, falls silent or talks nonsense."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import threading
import time

import msgspec
import pytest

from pool import Client, Outcome, values, wire
from pool.errors import DaemonUnreachableError, RemoteProtocolError, UnknownJobError, VersionMismatchError
from tests.unit.fake_daemon import HOLD, FakeDaemon, eventually

#: A daemon is pinged every quarter of a short timeout.
TIMEOUT_S = 0.4


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


@pytest.fixture
def daemon(path):
    with FakeDaemon(path) as daemon:
        yield daemon


@pytest.fixture
def client(path):
    with Client(path, timeout=TIMEOUT_S) as client:
        yield client


class Waiting:
    """A call in a thread of its own."""

    def __init__(self, function, *args, **kwargs):
        self.outcome = None
        self._thread = threading.Thread(target=self._run, args=(function, args, kwargs))
        self._thread.start()

    def _run(self, function, args, kwargs):
        try:
            self.outcome = function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - it is what the test asks for
            self.outcome = error

    def end(self):
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.outcome


def mute(call):
    pass


def settle(client):
    """Answers come in order: with this one, all that the daemon has sent before has been read."""
    client.submit("")


# ---- nobody there ----


@pytest.mark.parametrize(
    "ask", [lambda c: c.run(""), lambda c: c.submit(""), lambda c: c.result("x"), lambda c: c.cancel("x")]
)
def test_the_first_request_fails_within_the_timeout_when_there_is_no_daemon(client, ask):
    began = time.monotonic()
    with pytest.raises(DaemonUnreachableError, match=r"no daemon: .*/s does not exist\. Start pool-daemon"):
        ask(client)
    assert TIMEOUT_S <= time.monotonic() - began < 5


def test_a_path_that_is_no_socket_is_named_as_such(path, client):
    path.write_text("")
    with pytest.raises(DaemonUnreachableError, match="is not a socket"):
        client.run("")


def test_a_socket_that_nobody_listens_on_is_named_as_such(path, client):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(DaemonUnreachableError, match="the daemon has died: nobody listens at") as caught:
        client.run("")
    assert caught.value.fields == {"endpoint": f"ipc://{path}", "timeout_s": TIMEOUT_S}


@pytest.mark.skipif(os.getuid() == 0, reason="root may do everything")
def test_a_socket_without_permission_is_named_as_such(path, client, daemon):
    path.chmod(0)
    with pytest.raises(DaemonUnreachableError, match="no permission"):
        client.run("")


def test_a_client_waits_for_a_daemon_that_is_about_to_start(path):
    with Client(path, timeout=20) as client:
        waiting = Waiting(client.run, "result = 1")
        time.sleep(0.1)
        with FakeDaemon(path):
            assert waiting.end().value == 1


def test_a_request_that_failed_is_not_sent_to_a_daemon_that_starts_later(path, client):
    with pytest.raises(DaemonUnreachableError):
        client.run("result = 'first'", job_id="first")
    with FakeDaemon(path) as daemon:
        assert client.run("result = 2", job_id="second").value == 2
        assert [submit.job_id for submit in daemon.of(wire.Submit)] == ["second"]


# ---- silence ----


def test_a_daemon_that_falls_silent_fails_everything_that_is_pending(client, daemon):
    waiting = [Waiting(client.run, HOLD) for _ in range(3)]
    daemon.wait_for(wire.Submit, 3)
    for kind in (wire.Ping, wire.Submit):
        daemon.on(kind, mute)
    errors = [each.end() for each in waiting]
    assert {type(error) for error in errors} == {DaemonUnreachableError}
    assert len(set(map(id, errors))) == 3


def test_a_daemon_that_dies_fails_what_is_pending_and_the_client_works_again_with_the_next(path, client):
    with FakeDaemon(path) as daemon:
        waiting = Waiting(client.run, HOLD)
        daemon.wait_for(wire.Submit)
    assert isinstance(waiting.end(), DaemonUnreachableError)
    with FakeDaemon(path, instance="two"):
        assert client.run("result = 2").value == 2


def test_a_job_may_take_much_longer_than_the_timeout_while_the_daemon_answers(client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="long")
    time.sleep(3 * TIMEOUT_S)
    daemon.finish("long", value="done")
    assert waiting.end().value == "done"
    assert len(daemon.of(wire.Ping)) > 3


def test_nothing_is_sent_while_nothing_is_pending(client, daemon):
    client.run("")
    eventually(lambda: len(daemon.heard) == 2)  # a ping with the first request, and the job
    time.sleep(TIMEOUT_S)
    assert len(daemon.heard) == 2
    client.run("")
    assert len(daemon.of(wire.Submit)) == 2


def test_nobody_is_pinged_for_an_answer_that_nobody_waits_for(client, daemon):
    with pytest.raises(TimeoutError):
        client.run(HOLD, timeout=0.05)
    time.sleep(TIMEOUT_S / 4)
    pings = len(daemon.of(wire.Ping))
    time.sleep(TIMEOUT_S)
    assert len(daemon.of(wire.Ping)) == pings


def test_a_submit_that_a_living_daemon_does_not_answer_fails_alone(client, daemon):
    held = Waiting(client.run, HOLD, job_id="held")
    daemon.wait_for(wire.Submit)
    daemon.on(wire.Submit, mute)
    with pytest.raises(
        DaemonUnreachableError, match=r"took longer than .* to accept job x, so whether it ran is unknown"
    ):
        client.submit("", job_id="x")
    daemon.finish("held", value=1)
    assert held.end().value == 1


# ---- started anew ----


def restarted(path, daemon, **known):
    """The next daemon on this path; it knows these jobs."""
    daemon.stop()
    return FakeDaemon(path, instance="two", jobs=known)


def test_a_job_that_a_new_daemon_still_knows_is_waited_for_and_never_submitted_again(path, client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    job = daemon.job("job")
    job.watchers.clear()
    with restarted(path, daemon, job=job) as following:
        following.wait_for(wire.Watch)
        following.finish("job", value="survived")
        assert waiting.end().value == "survived"
        assert not following.of(wire.Submit)


def test_a_job_that_a_new_daemon_does_not_know_was_lost(path, client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    settle(client)
    with restarted(path, daemon) as following:
        result = waiting.end()
        assert result.outcome is Outcome.LOST
        assert "restarted" in result.reason
        assert "unknown" in result.reason
        assert not following.of(wire.Submit)


def test_a_watched_job_that_a_new_daemon_does_not_know_was_lost(path, client, daemon):
    job_id = client.submit(HOLD)
    waiting = Waiting(client.result, job_id)
    daemon.wait_for(wire.Watch)
    daemon.wait_for(wire.Ping, len(daemon.of(wire.Ping)) + 1)
    settle(client)
    with restarted(path, daemon):
        assert waiting.end().outcome is Outcome.LOST


def test_another_instance_behind_the_same_connection_is_noticed_by_its_name(client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    settle(client)

    def change():
        daemon.instance = "two"
        daemon.jobs.clear()

    daemon.do(change)
    assert waiting.end().outcome is Outcome.LOST
    assert len(daemon.of(wire.Watch)) == 1


def test_a_restart_is_noticed_while_other_jobs_keep_the_line_busy(path, client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    settle(client)
    with restarted(path, daemon):
        end = time.monotonic() + 20
        while waiting.outcome is None and time.monotonic() < end:
            with contextlib.suppress(DaemonUnreachableError):  # one that went down with the old connection
                client.run("")
    assert waiting.end().outcome is Outcome.LOST


def test_a_job_that_was_not_accepted_before_the_restart_is_an_error_that_says_so(path, client, daemon):
    daemon.on(wire.Submit, mute)
    waiting = [Waiting(client.run, HOLD), Waiting(client.submit, HOLD)]
    daemon.wait_for(wire.Submit, 2)
    with restarted(path, daemon):
        for each in waiting:
            error = each.end()
            assert isinstance(error, DaemonUnreachableError)
            assert "restarted before it accepted" in str(error)


def test_a_cancel_that_was_not_answered_is_asked_again_of_the_new_daemon(path, client, daemon):
    client.submit(HOLD, job_id="job")
    daemon.on(wire.Cancel, mute)
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


# ---- connections that break ----


def test_an_answer_that_was_sent_while_the_connection_was_broken_is_asked_for_again(path, client, daemon):
    waiting = Waiting(client.run, HOLD, job_id="job")
    daemon.wait_for(wire.Submit)
    settle(client)
    job = daemon.job("job")
    job.watchers.clear()
    daemon.stop()
    with FakeDaemon(path, instance=daemon.instance, jobs={"job": job}) as same:
        same.wait_for(wire.Watch)
        same.finish("job", value="heard")
        assert waiting.end().value == "heard"
        assert not same.of(wire.Submit)


def test_an_answer_that_breaks_the_connection_each_time_is_given_up(path, daemon, monkeypatch):
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 1000)
    with Client(path, timeout=20) as client:
        with pytest.raises(RemoteProtocolError, match="the connection was lost 10 times over job big"):
            client.run("result = b'x' * 2000", job_id="big")
        assert client.run("result = 1").value == 1
    assert len(daemon.of(wire.Submit)) == 2


def test_a_peer_that_hangs_up_on_everybody_is_given_up_and_then_left_alone(path, client):
    def hang_up():
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            calls.append(1)
            peer.close()

    calls = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises((RemoteProtocolError, DaemonUnreachableError)):
            client.run("")
        time.sleep(0.1)
        before = len(calls)
        time.sleep(TIMEOUT_S)
        assert len(calls) == before > 0
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


# ---- nonsense ----

HEADER = msgspec.msgpack.encode


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"", b"", b""],
        [b"HTTP/1.1 200 OK"],
        [wire.PREAMBLE],
        [wire.PREAMBLE, b""],
        [wire.PREAMBLE, b"\xc1"],
        [wire.PREAMBLE, os.urandom(200)],
        [wire.PREAMBLE, HEADER({"type": "result"})],
        [wire.PREAMBLE, HEADER({"type": "eval", "code": "1"})],
        [wire.PREAMBLE, HEADER({"type": "result", "job_id": "j", "outcome": "won"})],
        [wire.PREAMBLE, HEADER({"type": "accepted", "request": -1, "job_id": "j"})],
        [wire.PREAMBLE, b"\x81" * 60_000],
        [wire.PREAMBLE, b"x" * (wire.MAX_HEADER_BYTES + 1)],
        [wire.PREAMBLE, HEADER({"type": "pong", "request": 1, "instance": "i", "version": "0"}), *[b""] * 1025],
    ],
)
def test_garbage_fails_what_is_pending_at_once_and_the_next_job_is_served(client, daemon, frames):
    daemon.on(wire.Submit, lambda call: call.raw(frames))
    began = time.monotonic()
    with pytest.raises(RemoteProtocolError):
        client.run("")
    assert time.monotonic() - began < TIMEOUT_S
    daemon.on(wire.Submit, lambda call: call.proceed())
    assert client.run("result = 1").value == 1


def test_another_version_of_the_protocol_fails_what_is_pending_at_once(client, daemon):
    daemon.on(wire.Ping, lambda call: call.raw([wire.MAGIC + bytes([wire.PROTOCOL_VERSION + 1]), b"what may come"]))
    with pytest.raises(VersionMismatchError, match="install the same version") as caught:
        client.run(HOLD)
    assert caught.value.fields == {"theirs": wire.PROTOCOL_VERSION + 1, "ours": wire.PROTOCOL_VERSION}


def test_messages_that_answer_nothing_are_dropped(client, daemon):
    def chatter(call):
        call.answer(wire.Accepted(request=999_999, job_id="other"))
        call.answer(wire.Refused(request=999_999, code="busy", message="no"))
        call.answer(wire.Result(job_id="other", outcome=Outcome.OK), [b"", b"", b""])
        call.answer(wire.Pong(request=999_999, instance="other", version="0"))
        call.proceed()
        call.proceed()

    daemon.on(wire.Submit, chatter)
    for each in range(3):
        assert client.run(f"result = {each}").value == each
    assert not daemon.of(wire.Watch)


def test_a_job_that_is_accepted_under_another_id_is_an_error(client, daemon):
    daemon.on(wire.Submit, lambda call: call.answer(wire.Accepted(request=call.message.request, job_id="else")))
    for ask in (client.run, client.submit):
        with pytest.raises(RemoteProtocolError, match="was accepted as else"):
            ask("", job_id="mine")


def test_a_fault_on_the_i_o_thread_fails_what_waits_and_the_next_request_starts_anew(client, daemon, monkeypatch):
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


# ---- what a hostile job leaves behind ----


def ending(daemon, client, payload, **header):
    """The result of a job that ends with this payload."""

    def end(call):
        call.answer(wire.Accepted(request=call.message.request, job_id=call.message.job_id))
        call.answer(wire.Result(job_id=call.message.job_id, **{"outcome": Outcome.OK, **header}), payload)

    daemon.on(wire.Submit, end)
    return client.run("")


def test_output_that_is_no_text_is_decoded_with_replacements(client, daemon):
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


@pytest.mark.parametrize(
    "value", [[pickle.dumps(Bomb())], [b""], [b"\xc1"], [os.urandom(64)], [b"\xdd\xff\xff\xff\xff"]]
)
def test_a_value_that_cannot_be_decoded_is_the_jobs_error_and_is_never_unpickled(client, daemon, value):
    result = ending(daemon, client, [b"printed", b"", b"", *value])
    assert (result.outcome, result.value, result.stdout) == (Outcome.ERROR, None, "printed")
    assert result.error.type == "ValueCodecError"
    assert "ValueCodecError" in result.reason
    assert "POOL_TEST_BOMB" not in os.environ


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "a\0b"])
def test_a_file_name_that_leads_elsewhere_is_not_passed_on(client, daemon, name):
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


def test_a_value_beside_another_outcome_is_left_alone(client, daemon):
    result = ending(daemon, client, [b"", b"", b"", *values.encode(1, max_bytes=99)], outcome=Outcome.MEMORY)
    assert (result.outcome, result.value) == (Outcome.MEMORY, None)

"""Client and a daemon that sends garbage, and the results of hostile jobs."""

import os
import pickle
import time
from random import Random

import msgspec
import pytest
import zmq

from pool import Outcome, values, wire
from pool.errors import RemoteProtocolError, VersionMismatchError
from tests.unit.fake_daemon import HOLD

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
    send, refusals = zmq.Socket.send, [zmq.Again(), zmq.Again()]

    def refuse_twice(self, *args, **options):
        if refusals and self.type == zmq.DEALER:
            raise refusals.pop()
        return send(self, *args, **options)

    monkeypatch.setattr(zmq.Socket, "send", refuse_twice)
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

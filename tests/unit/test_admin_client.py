"""AdminClient: calls and their answers, also answers that are wrong."""

import threading
import time
from contextlib import contextmanager

import pytest
import zmq

from pool import wire
from pool.cli.answer import Address, resolve
from pool.client import AdminClient
from pool.client.endpoint import admin_endpoint
from pool.errors import ClosedError, DaemonUnreachableError, RemoteProtocolError, UnknownJobError, VersionMismatchError


@contextmanager
def daemon(path, *answers):
    """Answers so many questions, in turn; an answer is a list of messages, made from the question."""
    asked = []

    def serve():
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.linger = 1000
            router.bind(f"ipc://{path}")
            bound.set()
            for answer in answers:
                assert router.poll(60_000)
                peer, *frames = router.recv_multipart()
                call, _ = wire.decode(wire.from_admin, frames)
                asked.append(call)
                for message in answer(call):
                    router.send_multipart([peer, *message])

    bound = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    assert bound.wait(60)
    yield asked
    thread.join(120)
    assert not thread.is_alive()


def reply(call, body=b"null", **fields):
    return wire.encode(wire.AdminReply(request=call.request, **fields), [body])


def test_a_question_gets_its_answer_as_json_values(tmp_path):
    answers = [lambda call: [reply(call, b'{"state": "ready", "pools": []}')], lambda call: [reply(call, b"3")]]
    with daemon(tmp_path / "s", *answers) as asked, AdminClient(tmp_path / "s") as admin:
        assert admin.call("status") == {"state": "ready", "pools": []}
        assert admin.call("resize", pool="default", min=1, max=None) == 3
    assert [(call.name, call.arguments) for call in asked] == [
        ("status", {}),
        ("resize", {"pool": "default", "min": 1, "max": None}),
    ]


def test_an_error_of_the_daemon_is_raised_as_its_class(tmp_path):
    def answer(call):
        return [reply(call, code="unknown_job", message="no job x")]

    endpoint = tmp_path / "s"
    with daemon(endpoint, answer), AdminClient(endpoint) as admin, pytest.raises(UnknownJobError, match="no job x"):
        admin.call("job", id="x")


def test_answers_to_other_questions_are_passed_over(tmp_path):
    stale = wire.encode(wire.AdminReply(request=999), [b"1"])
    with daemon(tmp_path / "s", lambda call: [stale, reply(call, b"2")]), AdminClient(tmp_path / "s") as admin:
        assert admin.call("status") == 2


@pytest.mark.parametrize("body", [[], [b"1", b"2"], [b"{"], [b""], [b"\xff"], [b"[" * 100_000]])
def test_an_answer_that_is_no_document_is_an_error(tmp_path, body):
    def answer(call):
        return [wire.encode(wire.AdminReply(request=call.request), body)]

    with daemon(tmp_path / "s", answer), AdminClient(tmp_path / "s") as admin, pytest.raises(RemoteProtocolError):
        admin.call("status")


def test_garbage_and_other_versions_are_errors_and_the_next_question_is_answered(tmp_path):
    answers = [
        lambda call: [[b"garbage", b""]],
        lambda call: [[wire.MAGIC + b"\x09", b""]],
        lambda call: [reply(call, b"1")],
    ]
    with daemon(tmp_path / "s", *answers), AdminClient(tmp_path / "s") as admin:
        with pytest.raises(RemoteProtocolError):
            admin.call("status")
        with pytest.raises(VersionMismatchError):
            admin.call("status")
        assert admin.call("status") == 1


def test_no_daemon_is_an_error_within_the_timeout(tmp_path):
    began = time.monotonic()
    missing = pytest.raises(DaemonUnreachableError, match=r"no daemon: .* does not exist")
    with AdminClient(tmp_path / "s", timeout=0.2) as admin, missing:
        admin.call("status")
    assert time.monotonic() - began < 60


def test_a_closed_admin_client_says_so(tmp_path):
    admin = AdminClient(tmp_path / "s")
    admin.close()
    admin.close()
    with pytest.raises(ClosedError):
        admin.call("status")


@pytest.mark.parametrize(
    ("given", "environment", "endpoint"),
    [
        ("/a", {"POOL_ADMIN_ENDPOINT": "/b"}, "ipc:///a"),
        (None, {"POOL_ADMIN_ENDPOINT": "ipc:///b", "POOL_ENDPOINT": "/c/submit.sock"}, "ipc:///b"),
        (None, {"POOL_ENDPOINT": "ipc:///c/submit.sock"}, "ipc:///c/admin.sock"),
        (None, {"POOL_RUN_DIR": "/d"}, "ipc:///d/admin.sock"),
        (None, {}, "ipc:///run/pool/admin.sock"),
    ],
)
def test_the_admin_socket_is_found_beside_the_submit_socket(monkeypatch, given, environment, endpoint):
    for name in ("POOL_ADMIN_ENDPOINT", "POOL_ENDPOINT", "POOL_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert admin_endpoint(given) == endpoint


def test_the_admin_socket_is_found_in_a_run_directory(monkeypatch, tmp_path):
    assert admin_endpoint(tmp_path) == f"ipc://{tmp_path}/admin.sock"
    assert admin_endpoint(tmp_path / "submit.sock") == f"ipc://{tmp_path}/submit.sock"  # for AdminClient.mine
    monkeypatch.delenv("POOL_ADMIN_ENDPOINT", raising=False)
    monkeypatch.setenv("POOL_ENDPOINT", str(tmp_path))
    assert admin_endpoint() == f"ipc://{tmp_path}/admin.sock"


@pytest.mark.parametrize("named", ["", "/submit.sock", "/admin.sock"])
def test_the_commands_find_both_sockets_of_a_run_directory(tmp_path, named):
    found = resolve(f"{tmp_path}{named}", None)
    assert found == Address(admin=f"{tmp_path}/admin.sock", submit=f"{tmp_path}/submit.sock")

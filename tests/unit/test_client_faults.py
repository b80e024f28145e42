"""Client and a daemon that is absent, dies or stops answering."""

import os
import socket
import tempfile
import threading
import time
from collections import deque
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from pool import Client, wire
from pool.client import connection
from pool.client.pending import PendingRequests, Request
from pool.errors import DaemonUnreachableError
from tests.support.waiting import Waiting, eventually, in_child
from tests.unit.fake_daemon import HOLD, FakeDaemon, ignore, read_all

#: The daemon is pinged every quarter of a timeout as short as this.
HASTY_S = 2.0


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
        assert lost.wait(120)
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


def resolve_ended(pending):
    while pending.ended:
        pending.ended.popleft()()


def test_an_acceptance_that_is_held_for_the_result_is_waited_for_by_a_client_with_a_shorter_timeout():
    pending = PendingRequests("ipc:///s", 0.03, deque(), number=count(100).__next__, session="s")
    request = Request(wire.Submit(request=1, job_id="x", watch=True))
    pending.inbox.append((request, False))
    pending.take(0.0)
    for hundredth in range(1, 6):
        now = hundredth / 100
        pending.receive(wire.encode(wire.Pong(request=99, version="", instance="one")), now)
        pending.tick(now)
    resolve_ended(pending)
    assert not request.done()
    pending.receive(wire.encode(wire.Pong(request=99, version="", instance="one")), 0.2)
    pending.tick(0.2)
    resolve_ended(pending)
    assert isinstance(request.exception(), DaemonUnreachableError)


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

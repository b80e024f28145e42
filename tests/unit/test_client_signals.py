"""A signal ends every wait of a caller, also if another thread received it and no system call was interrupted."""

import itertools
import signal
import sys
import threading
import time
from queue import Empty, SimpleQueue

import pytest
import zmq

from pool import Outcome, PoolExecutor
from pool.client import waiting
from pool.client.pending import JobFuture
from tests.support.waiting import eventually
from tests.unit.fake_daemon import HOLD


@pytest.fixture
def executor(client):
    made = PoolExecutor(client=client, max_pending=2)
    yield made
    made.shutdown(cancel_futures=True)


def test_a_signal_ends_run(client, daemon, monkeypatch):
    ends_at_a_signal(lambda: client.run(HOLD), daemon, monkeypatch)
    (job,) = daemon.jobs.values()
    assert client.result(job.job_id, timeout=60).outcome is Outcome.CANCELLED


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(lambda client: client.run(HOLD, timeout=3600), id="run with a timeout"),
        pytest.param(lambda client: client.run(HOLD, on_stdout=print), id="run with a listener"),
        pytest.param(lambda client: client.result(client.submit(HOLD)), id="result"),
        pytest.param(lambda client: list(client.stream(client.submit(HOLD))), id="stream"),
        pytest.param(lambda client: list(client.map(HOLD, [[], []])), id="map"),
        pytest.param(lambda client: list(client.results(client.submit_many([{"code": HOLD}]))), id="results"),
    ],
)
def test_a_signal_ends_a_wait_of_a_client(client, daemon, monkeypatch, wait):
    ends_at_a_signal(lambda: wait(client), daemon, monkeypatch)


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(lambda executor: executor.submit_code(HOLD).result(), id="the value of a future"),
        pytest.param(lambda executor: executor.submit_code(HOLD).exception(), id="the error of a future"),
        pytest.param(lambda executor: [executor.submit_code(HOLD) for _ in range(3)], id="submit when it is full"),
        pytest.param(lambda executor: (executor.submit_code(HOLD), executor.shutdown()), id="shutdown"),
    ],
)
def test_a_signal_ends_a_wait_of_an_executor(executor, daemon, monkeypatch, wait):
    ends_at_a_signal(lambda: wait(executor), daemon, monkeypatch)


@pytest.mark.parametrize("seconds", [0, -1, 0.02, 0.12])
def test_a_wait_ends_when_its_time_is_over_and_not_before(monkeypatch, seconds):
    monkeypatch.setattr(waiting, "SLICE_S", 0.05)
    begun = time.monotonic()
    with pytest.raises(Empty):
        waiting.take(SimpleQueue(), seconds)
    JobFuture().until_done(seconds)
    assert time.monotonic() - begun >= 2 * seconds


def test_a_caller_who_is_interrupted_between_two_frames_leaves_a_client_that_works(client, monkeypatch):
    interrupt_own_send(monkeypatch, frame=2)
    with pytest.raises(NoticedError):  # callers send while the last answer is not long ago
        [client.run("result = 1") for _ in range(1000)]
    assert [client.run(f"result = {number}").value for number in range(3)] == [0, 1, 2]


def interrupt_own_send(monkeypatch, frame):
    """This frame of the next message that this thread sends is not sent, as if a signal's handler had raised then."""
    real, me, sent = zmq.Socket.send, threading.get_ident(), itertools.count(1)

    def send(self, *arguments, **options):
        if threading.get_ident() == me and next(sent) == frame:
            raise NoticedError
        return real(self, *arguments, **options)

    monkeypatch.setattr(zmq.Socket, "send", send)


class NoticedError(Exception):
    pass


def ends_at_a_signal(wait, daemon, monkeypatch):
    """SIGUSR1 is blocked in this thread, so it interrupts no system call here, and its handler raises here."""

    def handler(*_):
        raise NoticedError

    def send():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        eventually(lambda: daemon.jobs, 60)
        eventually(rests, 60)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    monkeypatch.setattr(waiting, "SLICE_S", 0.05)
    before = signal.signal(signal.SIGUSR1, handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    thread = threading.Thread(target=send)
    thread.start()
    try:
        with pytest.raises(NoticedError):
            wait()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def rests():
    """Whether the main thread has not moved since the last look. A wrong answer cannot fail the test."""
    places = []
    for _ in range(2):
        frame = sys._current_frames()[threading.main_thread().ident]
        places.append((id(frame), frame.f_lasti))
        threading.Event().wait(0.01)
    return len(set(places)) == 1

"""A signal handler that uses the client which its thread is using: at every line of the connection's code."""

import sys
import threading
from functools import partial
from itertools import count

import pytest

from pool import Client, PoolExecutor
from pool.client import connection, dealer, futures, per_process
from pool.client.pending import Request
from pool.errors import BusyError, ClosedError, ExecutorClosedError
from tests.support.waiting import Waiting

FILES = frozenset({connection.__file__, dealer.__file__, per_process.__file__})


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(connection, "CALLER_S", 0.05)


def test_a_handler_may_use_the_client_that_it_has_interrupted(client):
    """The client has just been used, so the caller sends the job himself."""
    for number in count(1):
        client.run("result = 0")
        answers = Waiting(interrupted, number, client).end()
        assert answers in ([2], [1, 2])
        if answers == [2]:
            break
    assert number > 20, "the call has that many lines at least"


def test_a_handler_may_use_a_client_whose_first_call_it_has_interrupted(daemon):
    for number in count(1):
        with Client(daemon.endpoint, timeout=60) as client:
            answers = Waiting(interrupted, number, client).end()
            assert answers in ([2], [1, 2], ["the thread is being started", 2])
            assert client.run("result = 3").value == 3
        if answers == [2]:
            break
    assert number > 25, "the call has that many lines at least"


@pytest.fixture
def used(executor):
    """An executor whose thread runs."""
    assert executor.submit_code("result = 0").result(60) == 0
    return executor


def test_a_handler_may_use_the_executor_whose_submit_it_has_interrupted(used):
    for number in count(1):
        answers = Waiting(interrupted, number, used, FILES | {futures.__file__}).end()
        assert answers in ([2], [1, 2])
        if answers == [2]:
            break
    assert number > 20, "the call has that many lines at least"


def test_an_executor_that_a_handler_shuts_down_in_its_submit_ends(daemon):
    for number in range(1, 25):
        executor = PoolExecutor(daemon.endpoint)
        assert executor.submit_code("result = 0").result(60) == 0
        how = {"at": partial(executor.shutdown, wait=False), "files": {futures.__file__}}
        ended = Waiting(interrupted, number, executor, **how).end()
        assert ended == [2] or isinstance(ended, ExecutorClosedError | ClosedError)
        assert Waiting(executor.shutdown).end() is None


def interrupted(number, client, files=FILES, at=None):
    """What a call answers, after what another call answers that is made at that line of it, if it has so many."""
    lines, answers = count(1), []

    def local(_frame, event, _argument):
        if event == "line" and next(lines) == number:
            sys.settrace(None)
            try:
                answers.append(value_of(client, 1)) if at is None else at()
            except BusyError:
                answers.append("the thread is being started")
        return local

    sys.settrace(lambda frame, *_: local if frame.f_code.co_filename in files else None)
    try:
        answers.append(value_of(client, 2))
    finally:
        sys.settrace(None)
    return answers


def value_of(client, number):
    if isinstance(client, PoolExecutor):
        return client.submit_code(f"result = {number}").result(60)
    return client.run(f"result = {number}").value


def test_a_destructor_that_waits_on_the_thread_of_the_client_gets_an_error_and_the_client_goes_on(client):
    errors, ended = [], threading.Event()

    def destroyed(_):
        try:
            client.run("result = 1")
        except RuntimeError as error:
            errors.append(str(error))
        ended.set()

    client.connection.submit(client.jobs.make("result = 2", {})).add_done_callback(destroyed)
    assert ended.wait(60)
    assert ["a destructor" in each for each in errors] == [True]
    assert client.run("result = 3").value == 3


def test_an_executor_whose_submit_was_interrupted_ends(daemon, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    executor = PoolExecutor(daemon.endpoint)
    with monkeypatch.context() as patched:
        patched.setattr(Request, "add_done_callback", interrupted)
        with pytest.raises(KeyboardInterrupt):
            executor.submit_code("result = 1")
    assert executor.submit_code("result = 2").result(60) == 2
    assert Waiting(executor.shutdown).end() is None

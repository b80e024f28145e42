"""Client: threads, forked children, and its end."""

import os
import subprocess
import sys
import textwrap
import threading
from functools import partial

import pytest

from pool import Client, wire
from pool.errors import ClosedError
from tests.support.process import threads
from tests.support.waiting import Waiting, eventually, in_child
from tests.unit.fake_daemon import HOLD

DOUBLE = "def main(x):\n    return x * 2"


# ---- threads and processes ----


def test_many_threads_share_a_client_and_each_gets_its_own_results(client):
    def work(base):
        return [client.run(DOUBLE, entry="main", args=[each]).value for each in range(base, base + 25)]

    bases = range(0, 8000, 1000)
    threads = [Waiting(work, base) for base in bases]
    for base, thread in zip(bases, threads, strict=True):
        assert thread.end() == [2 * each for each in range(base, base + 25)]


def test_several_threads_wait_for_the_same_job(client, daemon):
    job_id = client.submit(HOLD)
    waiting = [Waiting(client.result, job_id, timeout=120) for _ in range(4)]
    daemon.wait_for(wire.Watch, 4)
    daemon.finish(job_id, value="all")
    assert [each.end().value for each in waiting] == ["all"] * 4


@pytest.mark.parametrize("code", ["result = 1", HOLD])
def test_a_request_is_resolved_while_no_thread_is_kept_from_sending(client, daemon, code):
    daemon.on(
        wire.Submit, lambda call: call.refuse("busy") if bytes(call.payload[0]) == HOLD.encode() else call.proceed()
    )
    held, ended = [], threading.Event()

    def resolved(_):
        held.append(client.connection.io[os.getpid()].socket._dealer.using.locked())
        ended.set()

    for _ in range(5):
        ended.clear()
        client.connection.submit(client.jobs.make(code, {})).add_done_callback(resolved)
        assert ended.wait(60)
    assert held == [False] * 5


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_client_works_in_a_forked_child_and_goes_on_in_the_parent(client):
    assert client.run("result = 1").value == 1
    assert in_child(lambda: client.run("result = 2", timeout=60).value == 2) == 0
    assert client.run("result = 3").value == 3


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_a_job_is_pending_leaves_the_job_to_the_parent(client, daemon):
    job_id = client.submit(HOLD)
    waiting = Waiting(client.result, job_id)
    daemon.wait_for(wire.Watch)
    assert in_child(lambda: client.run("result = 2", timeout=60).value == 2) == 0
    assert in_child(lambda: client.close() is None) == 0
    daemon.finish(job_id)
    assert waiting.end().ok


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_large_argument_is_sent_from_a_forked_child_and_from_the_parent(client):
    size = 3 << 20
    run = partial(client.run, "def main(data): return len(data)", entry="main", args=[b"x" * size], timeout=60)
    assert run().value == size
    assert in_child(lambda: run().value == size) == 0
    assert run().value == size


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_children_forked_during_requests_do_not_inherit_a_held_lock(client):
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            client.run("result = 1")

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        statuses = [in_child(lambda: client.run("result = 2", timeout=60).value == 2) for _ in range(8)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
    assert statuses == [0] * 8


# ---- closing ----


def test_a_closed_client_raises_closed_error(client):
    client.run("")
    client.close()
    client.close()
    with pytest.raises(ClosedError, match="closed"):
        client.run("")
    with pytest.raises(ClosedError):
        client.result("x")


def test_closing_ends_the_wait_of_other_threads(client, daemon):
    waiting = Waiting(client.run, HOLD)
    daemon.wait_for(wire.Submit)
    client.close()
    assert isinstance(waiting.end(), ClosedError)


def test_a_client_starts_no_thread_before_its_first_job_and_leaves_none_behind(daemon):
    before = threads()
    client = Client(daemon.endpoint)
    assert threads() <= before
    client.run("")
    assert len(threads() - before) == 1
    client.close()
    assert threads() <= before


def test_a_dropped_client_ends_its_thread(daemon):
    before = threads()
    Client(daemon.endpoint).run("")
    eventually(lambda: threads() <= before)


@pytest.mark.parametrize("end", ["", "client.close()", "sys.exit(3)"])
def test_the_interpreter_ends_at_once_with_a_job_pending_and_nobody_there(tmp_path, end):
    program = f"""
        import sys, threading, time
        from pool import Client
        client = Client({str(tmp_path / "nobody")!r}, timeout=600)
        def wait():
            try:
                client.run("")
            except Exception:
                pass
        threading.Thread(target=wait, daemon=True).start()
        time.sleep(0.2)
        {end}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], timeout=120, capture_output=True, check=False
    )
    assert done.returncode == (3 if "exit" in end else 0), done.stderr

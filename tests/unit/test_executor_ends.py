"""PoolExecutor: cancelled jobs, the bound on pending jobs, and shutdown."""

import concurrent.futures as cf
import gc
import os
import threading

import pytest

from pool import Client, PoolExecutor, wire
from pool.client import ExecutorClosedError
from pool.errors import ClosedError, ConfigError, InvalidJobError
from tests.support.process import threads
from tests.support.waiting import Waiting, eventually
from tests.unit.test_executor import WAIT_S, double, hold

# ---- cancel ----


def test_cancelling_a_running_job_kills_it(executor, daemon):
    future = executor.submit(hold)
    (job_id,) = daemon.open_jobs(1)
    called = []
    future.add_done_callback(called.append)
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    assert called == [future]
    with pytest.raises(cf.CancelledError):
        future.result(WAIT_S)
    daemon.wait_for(wire.Cancel)
    assert [cancel.job_id for cancel in daemon.of(wire.Cancel)] == [job_id]


def test_a_cancelled_future_counts_as_completed(executor):
    future = executor.submit(hold)
    completed = cf.as_completed([future], timeout=WAIT_S)
    Waiting(future.cancel)
    assert next(completed) is future


def test_a_job_that_has_ended_cannot_be_cancelled(executor, daemon):
    future = executor.submit(double, 1)
    future.result(WAIT_S)
    assert not future.cancel()
    assert not future.cancelled()
    assert not daemon.of(wire.Cancel)


def test_an_answer_that_arrives_before_cancel_wins_even_if_it_is_not_resolved_yet(daemon):
    with Client(daemon.endpoint) as client, PoolExecutor(client=client) as executor:
        go = threading.Event()
        executor.submit(double, 0).add_done_callback(lambda _: go.wait(WAIT_S))  # keeps the resolver thread busy
        future = executor.submit(double, 1)
        eventually(lambda: daemon.jobs.get(future.job_id) and not daemon.open_jobs())
        client.run("")  # answers come in order: that of the future has arrived
        assert not future.done()
        assert not future.cancel()
        go.set()
        assert future.result(WAIT_S) == 2
        assert not future.cancelled()
        assert not daemon.of(wire.Cancel)


def test_an_answer_that_arrives_after_cancel_is_dropped(daemon):
    with Client(daemon.endpoint) as client, PoolExecutor(client=client) as executor:

        def end_ok(call):
            daemon.finish(future.job_id, value="too late")
            daemon.do(call.proceed)

        daemon.on(wire.Cancel, end_ok)
        future = executor.submit(hold)
        daemon.open_jobs(1)
        assert future.cancel()
        daemon.wait_for(wire.Cancel)
        client.run("")
        assert client.result(future.job_id, timeout=WAIT_S).value == "too late"
        with pytest.raises(cf.CancelledError):
            future.result(WAIT_S)


def test_a_future_is_resolved_once_when_its_answer_and_cancel_arrive_together(executor):
    """Whichever is first; the two tests above show each case."""
    for _ in range(50):
        future = executor.submit(double, 1)
        cancelling = Waiting(future.cancel)
        cf.wait([future], timeout=WAIT_S)
        assert future.cancelled() == cancelling.end()
        assert future.cancelled() or future.result(WAIT_S) == 2


# ---- max_pending ----


def test_submit_waits_while_too_many_jobs_are_pending(daemon):
    with PoolExecutor(daemon.endpoint, max_pending=2) as executor:
        futures = [executor.submit(hold) for _ in range(2)]
        third = Waiting(executor.submit, double, 1)
        eventually(lambda: waiting_for_room(executor) and len(daemon.of(wire.Submit)) == 2)
        assert third.goes_on()
        futures[0].cancel()
        assert third.end().result(WAIT_S) == 2
        futures[1].cancel()


def waiting_for_room(executor):
    return executor._resolver[os.getpid()]._changed._waiters


def test_a_callback_may_submit_although_too_many_were_pending(daemon):
    with PoolExecutor(daemon.endpoint, max_pending=1) as executor:
        chained, ended = [], threading.Event()

        def then(_):
            chained.append(executor.submit(double, 2))
            ended.set()

        executor.submit(double, 1).add_done_callback(then)
        assert ended.wait(WAIT_S)
        assert chained[0].result(WAIT_S) == 4


@pytest.mark.parametrize("most", [0, -1, 1.5, True])
def test_max_pending_has_to_be_a_positive_number(most):
    with pytest.raises(InvalidJobError, match="max_pending"):
        PoolExecutor("/x", max_pending=most)


# ---- shutdown ----


def test_after_shutdown_nothing_is_taken(executor):
    executor.submit(double, 1)
    executor.shutdown()
    executor.shutdown()
    for ask in (
        lambda: executor.submit(double, 1),
        lambda: executor.submit_code(""),
        lambda: executor.map(double, [1]),
    ):
        with pytest.raises(RuntimeError, match="after shutdown") as caught:
            ask()
        assert isinstance(caught.value, ExecutorClosedError)
        assert isinstance(caught.value, ClosedError)


def test_shutdown_waits_for_what_is_under_way(daemon):
    before = threads()
    with PoolExecutor(daemon.endpoint) as executor:
        future = executor.submit(hold)
        (job_id,) = daemon.open_jobs(1)
        threading.Timer(0.1, daemon.finish, [job_id]).start()
    assert future.done()
    eventually(lambda: threads() <= before)


def test_shutdown_that_cancels_ends_although_jobs_are_stuck(daemon):
    executor = PoolExecutor(daemon.endpoint)
    futures = [executor.submit(hold) for _ in range(3)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    assert len(daemon.of(wire.Cancel)) == 3


def test_a_block_that_ctrl_c_ends_cancels_what_is_under_way(daemon):
    futures = []

    def loop():
        with PoolExecutor(daemon.endpoint) as executor:
            futures.extend(executor.submit(hold) for _ in range(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert all(future.cancelled() for future in futures)
    assert len(daemon.of(wire.Cancel)) == 3


@pytest.mark.parametrize("dropped", [False, True], ids=["shut down", "dropped"])
def test_an_executor_that_does_not_wait_still_resolves_what_is_under_way_and_leaves_no_thread(daemon, dropped):
    before = threads()
    executor = PoolExecutor(daemon.endpoint)
    future = executor.submit(hold)
    (job_id,) = daemon.open_jobs(1)
    if not dropped:
        executor.shutdown(wait=False)
    del executor
    gc.collect()
    assert not future.done()
    daemon.finish(job_id, value="late")
    assert future.result(WAIT_S) == "late"
    eventually(lambda: threads() <= before)


def test_shutdown_by_a_callback_does_not_wait_for_itself(daemon):
    executor = PoolExecutor(daemon.endpoint)
    ended = threading.Event()
    executor.submit(double, 1).add_done_callback(lambda _: (executor.shutdown(), ended.set()))
    assert ended.wait(WAIT_S)


def test_shutdown_frees_a_submit_that_waits_for_room(daemon):
    executor = PoolExecutor(daemon.endpoint, max_pending=1)
    future = executor.submit(hold)
    waiting = Waiting(executor.submit, double, 1)
    eventually(lambda: waiting_for_room(executor))
    executor.shutdown(wait=False)
    assert isinstance(waiting.end(), ExecutorClosedError)
    future.cancel()
    executor.shutdown()


def test_an_unused_executor_shuts_down():
    PoolExecutor("/nobody").shutdown()
    with PoolExecutor("/nobody"):
        pass


def test_a_client_that_is_given_is_used_and_left_open(daemon):
    with Client(daemon.endpoint, pool="mine") as client:
        with PoolExecutor(client=client) as executor:
            assert executor.submit(double, 1).result(WAIT_S) == 2
        assert client.run("result = 1").value == 1
        assert {submit.pool for submit in daemon.of(wire.Submit)} == {"mine"}
        with pytest.raises(ConfigError, match="endpoint"):
            PoolExecutor(daemon.endpoint, client=client)


def test_a_client_that_is_closed_under_the_executor_fails_its_futures(daemon):
    with Client(daemon.endpoint) as client:
        executor = PoolExecutor(client=client)
        future = executor.submit(hold)
        daemon.open_jobs(1)
        client.close()
        assert isinstance(future.exception(WAIT_S), ClosedError)
        with pytest.raises(ClosedError):
            executor.submit(double, 1)
        executor.shutdown()

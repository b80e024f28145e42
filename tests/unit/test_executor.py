"""PoolExecutor: what `concurrent.futures` promises, and its documented differences."""

import concurrent.futures as cf
import itertools
import pickle
import threading
import traceback

import pytest

from pool import Client, Limits, Outcome, PoolExecutor, errors, wire
from pool.client import JobOutcomeError
from pool.model import JobError, JobResult
from tests.support.waiting import eventually, in_child

WAIT_S = 60


def double(x, *, plus=0):
    return 2 * x + plus


def hold(*_):
    """The fake daemon does not run a function of this name."""


def bad(text):
    raise ValueError(text)


# ---- submit ----


def test_submit_gives_a_future_of_the_value(executor):
    future = executor.submit(double, 20, plus=2)
    assert isinstance(executor, cf.Executor)
    assert isinstance(future, cf.Future)
    assert future.result(WAIT_S) == 42
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.exception(WAIT_S) is None


def test_submit_code_takes_source_text_and_the_options_of_a_job(executor, daemon):
    future = executor.submit_code("def f(x):\n    return x + 1", entry="f", args=[1], job_id="mine", priority=3)
    assert future.result(WAIT_S) == 2
    assert future.job_id == "mine"
    assert daemon.of(wire.Submit)[0].priority == 3


def test_the_executors_limits_and_pool_hold_for_its_jobs(daemon):
    with PoolExecutor(daemon.endpoint, pool="big", limits=Limits(wall_s=3)) as executor:
        executor.submit(double, 1).result(WAIT_S)
        executor.submit_code("", pool="small").result(WAIT_S)
    first, second = daemon.of(wire.Submit)
    assert (first.pool, first.limits.wall_s) == ("big", 3)
    assert (second.pool, second.limits.wall_s) == ("small", 3)


def test_an_exception_of_the_job_comes_as_data_inside_job_failed_error(executor):
    future = executor.submit(bad, "the test says so")
    with pytest.raises(
        errors.JobFailedError, match=r"ValueError: the test says so \(outcome error\)\nTraceback"
    ) as caught:
        future.result(WAIT_S)
    error = future.exception(WAIT_S)
    assert error is caught.value
    assert isinstance(error, JobOutcomeError)
    assert error.result.error.message == "the test says so"
    assert (error.fields["outcome"], error.fields["type"]) == ("error", "ValueError")


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.MEMORY, Outcome.CRASH, Outcome.LOST, Outcome.CANCELLED])
def test_every_outcome_but_ok_is_raised_by_the_future(executor, daemon, outcome):
    future = executor.submit(hold)
    daemon.finish(*daemon.open_jobs(1), outcome=outcome)
    with pytest.raises(errors.JobFailedError, match=rf"the test says so \(outcome {outcome}\)") as caught:
        future.result(WAIT_S)
    assert caught.value.result.outcome is outcome


def test_the_error_survives_a_pickle(executor):
    error = executor.submit(bad, "x").exception(WAIT_S)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.result, again.fields) == (str(error), error.result, error.fields)


def test_a_refusal_by_the_daemon_is_raised_by_the_future(executor, daemon):
    daemon.on(wire.Submit, lambda call: call.refuse("backlog_full", "full"))
    assert isinstance(executor.submit(double, 1).exception(WAIT_S), errors.BusyError)


def test_a_request_that_is_wrong_is_raised_at_the_line_at_fault(executor, daemon):
    with pytest.raises(errors.ValueCodecError, match=r"args\[0\]"):
        executor.submit(double, object())
    lock = threading.Lock()
    with pytest.raises(errors.InvalidJobError, match="cannot be pickled"):
        executor.submit(lambda: lock)
    with pytest.raises(TypeError, match="submit_code"):
        executor.submit("result = 1")
    assert not daemon.of(wire.Submit)


def test_a_result_that_is_not_there_in_time_is_a_timeout_error(executor):
    future = executor.submit(hold)
    with pytest.raises(TimeoutError):
        future.result(0.02)
    with pytest.raises(cf.TimeoutError):
        future.exception(0.02)
    assert not future.done()


# ---- wait, as_completed, callbacks ----


def test_as_completed_yields_in_the_order_of_the_ends(executor, daemon):
    slow = executor.submit(hold)
    quick = [executor.submit(double, each) for each in range(3)]
    ended = cf.as_completed([slow, *quick], timeout=WAIT_S)
    assert {next(ended) for _ in quick} == set(quick)
    daemon.finish(slow.job_id, value="at last")
    assert next(ended).result() == "at last"


def test_wait_separates_done_and_not_done(executor):
    slow, quick = executor.submit(hold), executor.submit(double, 1)
    done, rest = cf.wait([slow, quick], timeout=WAIT_S, return_when=cf.FIRST_COMPLETED)
    assert (done, rest) == ({quick}, {slow})
    slow.cancel()
    assert cf.wait([slow, quick], timeout=WAIT_S).not_done == set()
    failed = executor.submit(bad, "x")
    assert cf.wait([failed], timeout=WAIT_S, return_when=cf.FIRST_EXCEPTION).done == {failed}


def test_a_callback_may_use_the_pool(daemon):
    with Client(daemon.endpoint) as client, PoolExecutor(client=client) as executor:
        seen, ended = [], threading.Event()

        def then(future):
            seen.append(client.run(double, args=[future.result()]).value)
            executor.submit(double, 10).add_done_callback(lambda last: (seen.append(last.result()), ended.set()))

        executor.submit(double, 1).add_done_callback(then)
        assert ended.wait(WAIT_S)
        assert seen == [4, 20]


def test_a_callback_that_waits_for_another_future_raises_instead_of_hanging(executor):
    told, ended = [], threading.Event()
    slow, values = executor.submit(hold), executor.map(hold, [1])

    def then(_):
        for wait in (slow.result, slow.exception, lambda _: next(values)):
            with pytest.raises(RuntimeError, match="waits for another future") as caught:
                wait(5)
            told.append(caught)
        ended.set()

    executor.submit(double, 1).add_done_callback(then)
    assert ended.wait(WAIT_S)
    assert len(told) == 3


def test_a_callback_that_raises_does_no_harm(executor):
    executor.submit(double, 1).add_done_callback(lambda _: bad("in a callback"))
    assert executor.submit(double, 2).result(WAIT_S) == 4


# ---- map ----


def test_map_gives_values_in_the_order_of_the_arguments(executor):
    assert list(executor.map(double, range(300))) == [2 * each for each in range(300)]
    assert list(executor.map(pow, [2, 3, 4], [3, 2])) == [8, 9]
    assert list(executor.map(double, [])) == []


def test_map_starts_at_once_and_is_never_more_than_its_buffer_ahead(executor, daemon):
    values = executor.map(double, itertools.count(), buffersize=5)
    daemon.wait_for(wire.Submit, 5)
    assert [next(values) for _ in range(10)] == [2 * each for each in range(10)]
    assert len(daemon.of(wire.Submit)) <= 15
    values.close()


def test_map_raises_a_failure_at_the_place_of_its_value_and_cancels_the_rest(executor, daemon):
    def third_fails(x):
        return x if x != 2 else bad("third")

    values = executor.map(third_fails, range(5))
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(errors.JobFailedError, match="third"):
        next(values)
    assert list(values) == []


def test_map_ends_with_a_timeout_error_and_cancels_what_is_left(executor, daemon):
    values = executor.map(hold, range(3), timeout=0.05)
    with pytest.raises(TimeoutError):
        next(values)
    daemon.wait_for(wire.Cancel, 3)


def test_map_waits_for_a_busy_pool(executor, daemon):
    refused = set()

    def busy_once(call):
        if call.message.job_id in refused:
            call.proceed()
        else:
            refused.add(call.message.job_id)
            call.refuse("backlog_full", "full", retry_after_s=0.0)

    daemon.on(wire.Submit, busy_once)
    assert list(executor.map(double, range(3))) == [0, 2, 4]
    assert len(daemon.of(wire.Submit)) == 6


def test_map_that_nobody_iterates_over_cancels_its_jobs(executor, daemon):
    values = executor.map(hold, range(3))
    daemon.open_jobs(3)
    del values
    eventually(lambda: not daemon.open_jobs())


def test_map_cancels_what_it_began_when_a_later_argument_cannot_be_carried(executor, daemon):
    with pytest.raises(errors.ValueCodecError):
        executor.map(hold, [1, 2, object()])
    daemon.wait_for(wire.Cancel, 2)


def test_map_pickles_its_function_once(executor):
    class Counted:
        pickled = 0

        def __reduce__(self):
            Counted.pickled += 1
            return int, ()

    counted = Counted()
    assert list(executor.map(lambda x: x + counted, range(3))) == [0, 1, 2]
    assert Counted.pickled == 1


# ---- faults and forks ----


def test_futures_fail_when_there_is_no_daemon(tmp_path):
    with Client(tmp_path / "s", timeout=0.3) as client, PoolExecutor(client=client) as executor:
        assert isinstance(executor.submit(double, 1).exception(WAIT_S), errors.DaemonUnreachableError)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_executor_works_in_a_forked_child_and_goes_on_in_the_parent(executor, daemon):
    future = executor.submit(hold)
    daemon.open_jobs(1)
    assert in_child(lambda: executor.submit(double, 2).result(WAIT_S) == 4 and executor.shutdown() is None) == 0
    daemon.finish(future.job_id, value="parent")
    assert future.result(WAIT_S) == "parent"


@pytest.mark.parametrize(
    "kind", [KeyError, ValueError, OSError, TimeoutError, UnicodeDecodeError, SyntaxError, Exception]
)
def test_a_built_in_exception_of_the_job_is_caught_by_its_own_type_and_as_a_failed_job(kind):
    error = errors.outcome_error(failed(kind.__name__))
    with pytest.raises(kind, match=f"{kind.__name__}: the cause") as caught:
        raise error
    assert isinstance(caught.value, JobOutcomeError)
    assert caught.value.result.error.type == kind.__name__
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, kind)
    assert (str(again), again.result) == (str(error), error.result)
    assert "the cause" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "name",
    ["StopIteration", "SystemExit", "KeyboardInterrupt", "ExceptionGroup", "my.KeyError", "print", "", "__doc__"],
)
def test_what_a_job_calls_its_exception_makes_no_other_type_than_a_built_in_error(name):
    assert type(errors.outcome_error(failed(name))) is JobOutcomeError


def failed(name):
    error = JobError(type=name, message="the cause")
    return JobResult(job_id="j", outcome=Outcome.ERROR, error=error, stdout="printed")


def test_a_key_error_of_the_job_is_a_key_error_of_the_caller(executor):
    with pytest.raises(KeyError, match="'b'"):
        executor.submit(lambda: {"a": 1}["b"]).result(WAIT_S)
    with pytest.raises(ZeroDivisionError):
        list(executor.map(lambda n: 1 / n, [1, 0]))


def test_a_future_tells_what_the_job_printed_and_used_however_it_ended(executor):
    good, bad_ = executor.submit(double, 1), executor.submit(bad, "the test says so")
    for future, ok in ((good, True), (bad_, False)):
        result = future.job_result(WAIT_S)
        assert result.ok is ok
        assert (future.job_id, future.stdout, future.stderr) == (result.job_id, result.stdout, result.stderr)
        assert (future.timings, future.usage) == (result.timings, result.usage)


def test_a_future_that_has_no_result_says_why_when_it_is_asked_what_the_job_printed(executor, daemon):
    future = executor.submit(hold)
    with pytest.raises(TimeoutError):
        future.job_result(0.01)
    future.cancel()
    with pytest.raises(cf.CancelledError):
        future.job_result(WAIT_S)
    daemon.on(wire.Submit, lambda call: call.refuse("draining"))
    refused = executor.submit(double, 1)
    with pytest.raises(errors.DrainingError):
        _ = refused.stdout


def test_an_executor_sends_what_it_allows_each_job_in_further_attempts(daemon):
    with Client(daemon.endpoint) as client, PoolExecutor(client=client, retries=2) as executor:
        executor.submit_code("result = 1").result()
        executor.submit_code("result = 1", retries=0).result()
    assert [each.retries for each in daemon.of(wire.Submit)] == [2, 0]
    with pytest.raises(errors.InvalidJobError, match="retries"):
        PoolExecutor(retries=11)

"""Many jobs at once: map, submit_many and results, with the fake daemon."""

import itertools
import signal
import threading

import pytest

from pool import Client, Limits, errors, wire
from pool import values as codec
from pool.client import Batch, BatchError, retry, waiting
from pool.client.pending import Request
from tests.support.waiting import Waiting, eventually
from tests.unit.fake_daemon import HOLD
from tests.unit.test_executor import hold

DOUBLE = "def main(x):\n    return x * 2"
MAIN = {"entry": "main"}


def values(results):
    return [(str(result.outcome), result.value) for result in results]


class Busy:
    """Refuses jobs while so many are open."""

    def __init__(self, daemon, room, retry_after_s=0.01):
        self.room, self.refusals, self.retry_after_s = room, 0, retry_after_s
        daemon.on(wire.Submit, self)

    def __call__(self, call):
        if len(call.daemon.open_jobs()) >= self.room:
            self.refusals += 1
            call.refuse("backlog_full", "The backlog is full", retry_after_s=self.retry_after_s)
        else:
            call.proceed()


def refusing(args):
    """A reaction that refuses jobs with these arguments."""

    def react(call):
        given, _ = wire_values(call)
        if given == args:
            call.refuse("limit_exceeded", "too much", limit="wall_s", asked=9, maximum=1)
        else:
            call.proceed()

    return react


def wire_values(call):
    args, kwargs = codec.decode(call.payload[2:])
    return tuple(args), kwargs


# ---- map ----


def test_map_gives_one_result_for_each_argument_list_in_their_order(client):
    results = list(client.map(DOUBLE, [[n] for n in range(300)], entry="main"))
    assert values(results) == [("ok", 2 * n) for n in range(300)]
    assert len({result.job_id for result in results}) == 300


def test_map_takes_a_callable_and_options_that_all_jobs_share(client, daemon):
    assert values(client.map(max, [(1, 2), (4, 3)], priority=7, limits=Limits(wall_s=3))) == [("ok", 2), ("ok", 4)]
    assert {(each.priority, each.limits.wall_s) for each in daemon.of(wire.Submit)} == {(7, 3.0)}


def test_map_of_nothing_gives_nothing(client, daemon):
    assert list(client.map(DOUBLE, [], entry="main")) == []
    assert daemon.received == []


def test_map_starts_at_once_and_is_never_more_than_its_window_ahead(client, daemon):
    taken = []

    def endless():
        for n in itertools.count():
            taken.append(n)
            yield [n]

    results = client.map(DOUBLE, endless(), entry="main", window=5)
    assert taken == [0, 1, 2, 3, 4]
    for n in range(50):
        assert next(results).value == 2 * n
        assert len(taken) == n + 6
    results.close()


def test_a_slow_job_delays_the_results_after_it_but_not_their_jobs(client, daemon):
    def react(call):
        if wire_values(call)[0] == (0,):
            call.answer(wire.Accepted(request=call.message.request, job_id=call.message.job_id))
            slow.append(call)
        else:
            call.proceed()

    slow, done = [], []
    daemon.on(wire.Submit, react)
    results = client.map(DOUBLE, [[n] for n in range(10)], entry="main", progress=lambda *at: done.append(at))
    eventually(lambda: len(daemon.of(wire.Submit)) == 10)
    daemon.do(lambda: daemon.by_default(slow[0]))
    assert values(results) == [("ok", 2 * n) for n in range(10)]
    assert done == [(n, 10) for n in range(1, 11)]


def test_a_job_that_is_refused_has_a_result_at_its_place_and_the_others_go_on(client, daemon):
    daemon.on(wire.Submit, refusing((3,)))
    results = list(client.map(DOUBLE, [[1], [2, {3: threading.Lock()}], 7, [3], ["four"]], entry="main"))
    assert [str(result.outcome) for result in results] == ["ok", "rejected", "rejected", "rejected", "ok"]
    assert [result.error and result.error.type for result in results] == [
        None, "ValueCodecError", "InvalidJobError", "LimitExceededError", None,
    ]  # fmt: skip
    assert "args[1]" in results[1].reason
    assert "give a list or tuple" in results[2].reason
    assert (results[3].reason, results[4].value) == ("too much", "fourfour")


def test_a_job_that_fails_is_a_result_among_the_others(client):
    results = list(client.map("def main(x):\n    return 1 / x", [[1], [0], [2]], entry="main"))
    assert [str(result.outcome) for result in results] == ["ok", "error", "ok"]
    assert results[1].error.type == "ZeroDivisionError"


def test_a_busy_pool_is_waited_for_and_no_job_is_lost_or_run_twice(client, daemon):
    busy = Busy(daemon, room=3)
    results = client.map(HOLD, [[] for _ in range(40)], window=10)
    eventually(lambda: busy.refusals)
    ending = Waiting(lambda: [end_one(daemon) for _ in range(40)])
    assert [str(result.outcome) for result in results] == ["ok"] * 40
    ending.end()
    assert len(daemon.jobs) == 40


def end_one(daemon):
    job_id = daemon.open_jobs(1)[0]
    daemon.finish(job_id)
    eventually(lambda: daemon.jobs[job_id].result is not None)


def test_a_refused_job_is_sent_again_as_soon_as_another_has_ended(client, daemon, monkeypatch):
    monkeypatch.setattr(waiting, "RETRY_MOST_S", 3600)
    busy = Busy(daemon, room=1, retry_after_s=3600)
    results = client.map(HOLD, [[] for _ in range(5)], timeout=60)
    eventually(lambda: busy.refusals == 4)
    ending = Waiting(lambda: [end_one(daemon) for _ in range(5)])
    assert [str(result.outcome) for result in results] == ["ok"] * 5
    ending.end()


def test_a_pool_that_stays_busy_ends_the_map_with_the_reason_when_its_time_is_over(client, daemon):
    Busy(daemon, room=0)
    with pytest.raises(errors.ResultTimeoutError, match="the pool was busy: The backlog is full") as caught:
        list(client.map(DOUBLE, [[1]], entry="main", timeout=3))
    assert isinstance(caught.value.__cause__, errors.BacklogFullError)


def test_the_timeout_names_the_refusal_also_while_the_job_is_sent_again():
    asked = []

    def ask():
        asked.append(request := Request(wire.Cancel(request=1, job_id="j")))
        if len(asked) == 1:
            request.set_exception(errors.BacklogFullError("full", retry_after_s=0))
        return request

    retrying = retry.Retry(0.3)
    retrying.start(0, ask)
    with pytest.raises(errors.ResultTimeoutError, match=r"1 job has not ended within 0\.3 s; the pool was busy: full"):
        retrying.next()
    assert len(asked) == 2


def test_map_cancels_what_is_left_when_its_time_is_over(client, daemon):
    with pytest.raises(errors.ResultTimeoutError, match=r"5 jobs have not ended within 0\.3 s"):
        list(client.map(hold, [[n] for n in range(5)], timeout=0.3))
    eventually(lambda: len(daemon.of(wire.Cancel)) == 5 and not daemon.open_jobs())


def test_map_that_is_left_early_cancels_what_is_left(client, daemon):
    results = client.map(hold, [[n] for n in range(5)])
    daemon.open_jobs(5)
    daemon.finish(daemon.of(wire.Submit)[0].job_id)
    assert next(results).ok
    results.close()
    eventually(lambda: not daemon.open_jobs())
    assert len(daemon.of(wire.Cancel)) == 4


@pytest.mark.parametrize("where", ["inputs", "progress"])
def test_an_error_of_the_caller_is_raised_and_cancels_what_is_left(client, daemon, where):
    def inputs():
        yield from ([n] for n in range(3))
        if where == "inputs":
            raise KeyError("mine")

    def progress(*_):
        raise KeyError("mine")

    def first_ends():
        daemon.wait_for(wire.Submit, 3)
        daemon.finish(daemon.of(wire.Submit)[0].job_id)

    ending = Waiting(first_ends)
    with pytest.raises(KeyError, match="mine"):
        list(client.map(hold, inputs(), progress=progress))
    ending.end()
    eventually(lambda: len(daemon.jobs) == 3 and not daemon.open_jobs())


def test_a_map_that_nobody_iterates_over_cancels_its_jobs(client, daemon):
    results = client.map(hold, [[n] for n in range(3)])
    daemon.open_jobs(3)
    del results
    eventually(lambda: not daemon.open_jobs())


def test_a_daemon_that_stops_ends_the_map(daemon):
    with Client(daemon.endpoint, timeout=2) as client:
        results = client.map(hold, [[n] for n in range(3)])
        daemon.open_jobs(3)
        daemon.stop()
        with pytest.raises(errors.DaemonUnreachableError):
            next(results)


def test_a_client_that_is_closed_ends_the_map(client, daemon):
    results = client.map(hold, [[1]])
    daemon.open_jobs(1)
    client.close()
    with pytest.raises(errors.ClosedError):
        next(results)


def test_progress_gets_the_count_of_ended_jobs_and_the_total_if_it_is_known(client):
    told = []
    list(client.map(DOUBLE, [[1], [2]], entry="main", progress=lambda *at: told.append((*at, threading.get_ident()))))
    list(client.map(DOUBLE, iter([[1]]), entry="main", progress=lambda *at: told.append((*at, threading.get_ident()))))
    me = threading.get_ident()
    assert told == [(1, 2, me), (2, 2, me), (1, None, me)]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"args": [1]}, "args"),
        ({"job_id": "x"}, "job_id"),
        ({"window": 0}, "window"),
        ({"window": "8"}, "window"),
        ({"timeout": -1}, "timeout"),
        ({"progress": 3}, "progress"),
    ],
)
def test_an_error_in_the_options_of_map_is_raised_at_once(client, daemon, options, field):
    with pytest.raises(errors.InvalidJobError, match=field):
        client.map(DOUBLE, [[1]], **MAIN, **options)
    assert daemon.received == []


# ---- submit_many and results ----


def test_jobs_that_are_submitted_together_give_their_ids_in_order_and_their_results_as_they_end(client, daemon):
    jobs = [{"code": DOUBLE, **MAIN, "args": [n], "job_id": f"j{n}"} for n in range(300)]
    told = []
    batch = client.submit_many(jobs, progress=lambda *at: told.append(at))
    assert batch == [f"j{n}" for n in range(300)]
    assert told == [(n, 300) for n in range(1, 301)]
    assert not any(each.watch for each in daemon.of(wire.Submit))
    told.clear()
    results = {result.job_id: result.value for result in client.results(batch, progress=lambda *at: told.append(at))}
    assert results == {f"j{n}": 2 * n for n in range(300)}
    assert told[-1] == (300, 300)


def test_results_come_as_the_jobs_end(client, daemon):
    batch = client.submit_many([{"code": HOLD} for _ in range(4)])
    results = client.results(batch)
    for number in (2, 0, 3, 1):
        daemon.finish(batch[number], value=number)
        assert next(results).value == number
    assert next(results, None) is None


def test_refused_jobs_are_named_and_the_others_are_in_the_pool(client, daemon):
    daemon.on(wire.Submit, refusing((3,)))
    jobs = [
        {"code": DOUBLE, **MAIN, "args": [1]},
        {"code": DOUBLE, **MAIN, "args": [3], "job_id": "refused-there"},
        {"code": DOUBLE, "entry": "no name", "job_id": "refused-here"},
        "no mapping",
        {"code": DOUBLE, **MAIN, "args": [5]},
        {"entry": "main"},
    ]
    batch = client.submit_many(jobs)
    assert len(batch) == 6
    assert batch[1:3] == ["refused-there", "refused-here"]
    assert set(batch.refused) == {*batch[1:4], batch[5]}
    assert "type str" in batch.refused[batch[3]].message
    assert "no 'code'" in batch.refused[batch[5]].message
    assert isinstance(batch.refused["refused-there"], errors.LimitExceededError)
    assert batch.refused["refused-there"].fields["maximum"] == 1
    results = {result.job_id: result for result in client.results(batch)}
    assert [str(results[job_id].outcome) for job_id in batch] == [
        "ok", "rejected", "rejected", "rejected", "ok", "rejected",
    ]  # fmt: skip
    assert results["refused-there"].error.type == "LimitExceededError"


def test_an_id_that_the_daemon_does_not_know_is_lost_and_the_others_are_not(client, daemon):
    batch = client.submit_many([{"code": DOUBLE, **MAIN, "args": [1]}])
    results = list(client.results(["nobody", *batch]))
    assert sorted((str(result.outcome), result.value) for result in results) == [("lost", None), ("ok", 2)]
    lost = next(result for result in results if not result.ok)
    assert (lost.job_id, lost.error.type) == ("nobody", "UnknownJobError")


def test_the_same_id_twice_has_its_result_twice(client, daemon):
    job = {"code": DOUBLE, **MAIN, "args": [1], "job_id": "same"}
    batch = client.submit_many([job, job])
    assert [result.value for result in client.results(batch)] == [2, 2]


def test_submit_many_waits_for_a_busy_pool_up_to_its_timeout(client, daemon):
    busy = Busy(daemon, room=2)
    submitting = Waiting(client.submit_many, [{"code": HOLD}] * 6, timeout=60)
    eventually(lambda: busy.refusals > 10)
    for _ in range(6):
        end_one(daemon)
    assert len(set(submitting.end())) == 6


def test_an_error_that_ends_submit_many_has_the_submitted_jobs(client, daemon):
    Busy(daemon, room=2)
    jobs = [{"code": HOLD, "job_id": f"j{n}"} for n in range(5)]
    with pytest.raises(BatchError, match=r"2 jobs were submitted and go on; then: 3 jobs have not") as caught:
        client.submit_many(jobs, timeout=3)
    assert caught.value.batch == ["j0", "j1"]
    assert isinstance(caught.value.__cause__, errors.ResultTimeoutError)
    assert not {"j0", "j1"} & {order.job_id for order in daemon.of(wire.Cancel)}


def test_an_error_of_the_inputs_ends_submit_many_with_the_submitted_jobs(client, daemon):
    def jobs():
        for n in range(200):
            yield {"code": DOUBLE, **MAIN, "args": [n], "job_id": f"j{n}"}
        raise OSError("the file ends here")

    with pytest.raises(BatchError, match="the file ends here") as caught:
        client.submit_many(jobs())
    batch = caught.value.batch
    assert 200 - 128 <= len(batch) <= 200
    assert batch == [f"j{n}" for n in range(len(batch))]
    assert len(list(client.results(batch, timeout=120))) == len(batch)


def test_a_progress_function_that_raises_loses_no_submitted_job(client, daemon):
    def progress(done, _):
        if done == 3:
            raise KeyError("mine")

    with pytest.raises(BatchError, match="mine") as caught:
        client.submit_many([{"code": HOLD, "job_id": f"j{n}"} for n in range(5)], progress=progress)
    cancelled = {cancel.job_id for cancel in daemon.of(wire.Cancel)}
    assert {*caught.value.batch, *cancelled} >= {"j0", "j1", "j2"}
    assert not cancelled & set(caught.value.batch)


def test_results_leaves_the_jobs_alone_when_its_time_is_over(client, daemon):
    batch = client.submit_many([{"code": HOLD}])
    with pytest.raises(errors.ResultTimeoutError):
        list(client.results(batch, timeout=0.1))
    assert not daemon.of(wire.Cancel)
    daemon.finish(batch[0], value=1)
    assert next(client.results(list(batch))).value == 1


def test_another_client_can_wait_for_a_batch(client, daemon):
    batch = client.submit_many([{"code": DOUBLE, **MAIN, "args": [n]} for n in range(5)])
    with Client(daemon.endpoint) as other:
        assert sorted(result.value for result in other.results(list(batch))) == [0, 2, 4, 6, 8]


def test_more_jobs_than_are_watched_at_a_time_have_all_their_results(client):
    batch = client.submit_many({"code": DOUBLE, **MAIN, "args": [n]} for n in range(1500))
    assert isinstance(batch, Batch)
    assert sorted(result.value for result in client.results(batch)) == [2 * n for n in range(1500)]


# ---- leaving a batch ----


def test_leaving_a_batch_by_an_exception_cancels_what_has_not_ended(client, daemon):
    jobs = [{"code": "result = 1", "job_id": "short"}, {"code": HOLD, "job_id": "long"}]
    with pytest.raises(ZeroDivisionError), client.submit_many(jobs) as batch:
        assert next(client.results(batch)).value / 0
    assert [cancel.job_id for cancel in daemon.of(wire.Cancel)] == ["long"]
    assert str(client.result("long").outcome) == "cancelled"


def test_a_batch_that_ends_without_an_exception_cancels_no_job(client, daemon):
    with client.submit_many([{"code": HOLD}]) as batch:
        pass
    assert daemon.open_jobs() == list(batch)


def interrupted(iterator):
    """What Ctrl-C does to a loop that waits for its next value."""
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        next(iterator)


def test_ctrl_c_while_the_results_of_a_batch_are_waited_for_cancels_it(client, daemon):
    batch = client.submit_many({"code": HOLD} for _ in range(3))
    interrupted(client.results(batch))
    assert {str(result.outcome) for result in client.results(batch)} == {"cancelled"}


def test_ctrl_c_leaves_jobs_alone_that_are_only_looked_at(client, daemon):
    batch = client.submit_many({"code": HOLD} for _ in range(3))
    interrupted(client.results(list(batch)))
    assert len(daemon.open_jobs()) == 3


def test_ctrl_c_while_jobs_are_handed_over_cancels_those_that_were_accepted(client, daemon):
    def jobs():
        yield {"code": HOLD, "job_id": "first"}
        daemon.wait_for(wire.Submit)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.submit_many(jobs())
    assert str(client.result("first").outcome) == "cancelled"

"""AsyncClient with the fake daemon: the same results as Client's, cancelled tasks, many jobs at once."""

import asyncio
import contextlib
import itertools
import threading

import pytest

from pool import AsyncClient, Client, JobResult, Outcome, OutputEvent, wire
from pool.errors import BatchError, BusyError, ClosedError, InvalidJobError, ResultTimeoutError, UnknownJobError
from tests.support.process import threads
from tests.unit.fake_daemon import HOLD

DOUBLE = "def main(x):\n    return x * 2"


@pytest.fixture
def client(daemon):
    it = AsyncClient(daemon.endpoint, timeout=60)
    yield it
    asyncio.run(it.close())


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the fake daemon is a thread
            await asyncio.sleep(0.005)


# ---- one job ----


async def test_run_gives_the_value(client):
    result = await client.run(DOUBLE, entry="main", args=[21])
    assert (result.outcome, result.value) == (Outcome.OK, 42)


async def test_a_job_that_was_submitted_is_asked_for_by_its_id(client):
    job_id = await client.submit("result = 1", job_id="mine")
    result = await client.result(job_id, timeout=60)
    assert (result.job_id, result.value) == ("mine", 1)


async def test_what_is_wrong_with_a_job_is_raised_before_it_is_sent(client, daemon):
    with pytest.raises(InvalidJobError, match="seed"):
        await client.run("x = 1", seed=-1)
    assert not daemon.received


async def test_the_errors_of_the_daemon_are_raised(client, daemon):
    daemon.on(wire.Submit, lambda call: call.refuse("busy", "the backlog is full"))
    with pytest.raises(BusyError, match="the backlog is full"):
        await client.run("x = 1")
    with pytest.raises(UnknownJobError):
        await client.result("nobody")


async def test_a_timeout_ends_the_wait_and_not_the_job(client, daemon):
    with pytest.raises(ResultTimeoutError, match="goes on"):
        await client.run(HOLD, timeout=0.05)
    await client.close()
    assert not daemon.of(wire.Cancel)


async def test_a_value_is_decoded_in_a_process_of_its_own_if_asked_for(daemon):
    async with AsyncClient(daemon.endpoint, timeout=60, decode="process") as client:
        assert (await client.run("result = [1, 2]")).value == [1, 2]


async def test_a_closed_client_says_so(client):
    await client.close()
    with pytest.raises(ClosedError):
        await client.run("x = 1")


async def test_close_fails_the_calls_that_wait(client, daemon):
    waiting = asyncio.create_task(client.run(HOLD))
    await until(lambda: daemon.of(wire.Submit))
    await client.close()
    with pytest.raises(ClosedError):
        await waiting


# ---- cancelling ----


async def test_cancelling_the_task_cancels_the_job(client, daemon):
    task = asyncio.create_task(client.run(HOLD, job_id="held"))
    await until(lambda: "held" in daemon.jobs)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await client.close()  # it waits for the daemon
    assert [each.job_id for each in daemon.of(wire.Cancel)] == ["held"]


async def test_asyncio_timeout_cancels_the_job(client, daemon):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.run(HOLD, job_id="held")
    await client.close()
    assert [each.job_id for each in daemon.of(wire.Cancel)] == ["held"]


async def test_a_failure_in_a_task_group_cancels_the_jobs_of_the_others(client, daemon):
    async def fail():
        await until(lambda: len(daemon.jobs) == 2)
        raise ValueError("of mine")

    async def together():
        async with asyncio.TaskGroup() as group:
            for each in (client.run(HOLD, job_id="a"), client.run(HOLD, job_id="b"), fail()):
                group.create_task(each)

    with pytest.raises(ExceptionGroup):
        await together()
    await client.close()
    assert sorted(each.job_id for each in daemon.of(wire.Cancel)) == ["a", "b"]


async def test_cancelling_a_task_that_waits_for_a_submitted_job_leaves_the_job_alone(client, daemon):
    task = asyncio.create_task(client.result(await client.submit(HOLD)))
    await until(lambda: daemon.of(wire.Watch))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await client.close()
    assert not daemon.of(wire.Cancel)


async def test_an_answer_that_comes_after_its_task_was_cancelled_disturbs_nobody(client, daemon):
    daemon.on(wire.Cancel, lambda call: (daemon.finish("held", value=1), call.proceed()))
    task = asyncio.create_task(client.run(HOLD, job_id="held"))
    await until(lambda: "held" in daemon.jobs)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await client.run("result = 2")).value == 2


# ---- many ----


def test_a_thousand_jobs_at_once_need_no_thread_each(daemon):
    seen = set()

    async def work():
        async with AsyncClient(daemon.endpoint, timeout=60) as client:
            running = [asyncio.create_task(client.run(HOLD, job_id=f"j{n}")) for n in range(1000)]
            await until(lambda: len(daemon.jobs) == 1000)
            seen.update(threads())
            for n in range(1000):
                daemon.finish(f"j{n}", value=n)
            assert [each.value for each in await asyncio.gather(*running)] == list(range(1000))

    before = threads()
    asyncio.run(work())
    assert len(seen - before) <= 1


async def test_map_gives_the_results_in_the_order_of_the_inputs(client):
    done = []
    inputs = ([n] for n in range(300))
    results = client.map(DOUBLE, inputs, entry="main", window=7, progress=lambda *n: done.append(n))
    assert [each.value async for each in results] == [2 * n for n in range(300)]
    assert done[-1] == (300, None)


async def test_a_map_of_endless_inputs_that_is_left_cancels_what_is_under_way(client, daemon):
    daemon.on(wire.Submit, hold_all_but_the_first(daemon))
    results = client.map("def hold(): pass", itertools.repeat([]), entry="hold", window=3)
    async with contextlib.aclosing(results):
        async for _ in results:
            break
    assert (await client.run("result = 'goes on'")).value == "goes on"
    await client.close()
    assert len(daemon.of(wire.Cancel)) == len(daemon.of(wire.Submit)) - 2


def hold_all_but_the_first(daemon):
    def react(call):
        first = len(daemon.of(wire.Submit)) == 1
        if first or call.payload[0] == b"result = 'goes on'":
            call.proceed()
        else:
            call.answer(wire.Accepted(request=call.message.request, job_id=call.message.job_id))

    return react


async def test_a_map_waits_for_a_busy_pool(client, daemon):
    def react(call):
        if len(daemon.of(wire.Submit)) % 2:
            call.refuse("busy", "later", retry_after_s=0.01)
        else:
            call.proceed()

    daemon.on(wire.Submit, react)
    results = client.map(DOUBLE, ([n] for n in range(9)), entry="main")
    assert [each.value async for each in results] == [2 * n for n in range(9)]


async def test_a_map_ends_at_its_deadline(client, daemon):
    daemon.on(wire.Submit, lambda call: call.refuse("busy", "full", retry_after_s=60.0))
    with pytest.raises(ResultTimeoutError, match=r"1 job has not ended within 0\.1 s"):
        await anext(client.map("def main(): pass", [[]], entry="main", timeout=0.1))


async def test_many_jobs_are_submitted_and_asked_for_as_they_end(client):
    batch = await client.submit_many([{"code": f"result = {n}"} for n in range(5)] + [{"code": "", "seed": -1}])
    results = [each async for each in client.results(batch)]
    assert sorted(each.value for each in results if each.ok) == list(range(5))
    assert [each.job_id for each in results if each.outcome is Outcome.REJECTED] == list(batch.refused)


async def test_a_submit_many_that_cannot_go_on_says_what_was_submitted(client):
    def jobs():
        yield {"code": "result = 1", "job_id": "one"}
        raise ValueError("no more")

    with pytest.raises(BatchError, match="no more"):
        await client.submit_many(jobs())


# ---- output ----


async def test_stream_gives_the_output_while_the_job_runs_and_then_the_result(client, daemon):
    await client.submit(HOLD, job_id="j")
    events = client.stream("j", timeout=120)
    first = asyncio.ensure_future(anext(events))
    await until(lambda: daemon.jobs["j"].watchers)
    daemon.print("j", "stdout", 0, b"one\n")
    assert await first == OutputEvent(stream="stdout", text="one\n", offset=0)
    daemon.finish("j", value=3, output=(b"one\ntwo\n", b"err"))
    *texts, result = [each async for each in events]
    assert texts == [
        OutputEvent(stream="stdout", text="two\n", offset=4),
        OutputEvent(stream="stderr", text="err", offset=0),
    ]
    assert isinstance(result, JobResult)
    assert result.value == 3


async def test_callbacks_get_the_output_on_the_event_loop(client, daemon):
    seen = []
    listen = {"on_stdout": lambda text: seen.append((text, threading.get_ident()))}
    running = asyncio.create_task(client.run(HOLD, job_id="j", **listen))
    await until(lambda: "j" in daemon.jobs and daemon.jobs["j"].watchers)
    daemon.print("j", "stdout", 0, b"one")
    await until(lambda: seen)
    daemon.finish("j", output=(b"one", b""))
    assert (await running).stdout == "one"
    assert seen == [("one", threading.get_ident())]


async def test_a_stream_ends_at_its_deadline_and_the_job_goes_on(client, daemon):
    await client.submit(HOLD, job_id="j")
    with pytest.raises(ResultTimeoutError, match="goes on"):
        await anext(client.stream("j", timeout=0.05))
    await client.close()
    assert not daemon.of(wire.Cancel)


def test_the_options_of_both_clients_are_the_same():
    names = [name for name in dir(Client) if not name.startswith("_") and name not in {"connection", "to_result"}]
    assert {each for each in names if not hasattr(AsyncClient, each)} == set()

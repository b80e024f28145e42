"""`map` with a chunksize: many calls in one child. With a real daemon and runner, whose workers are plain processes."""

import asyncio
import itertools
import threading

import numpy as np
import pytest

import pool.testing
from pool import AsyncClient, Client, Limits, Outcome, PoolExecutor, wire
from pool.client import AdminClient, chunks
from pool.client.pending import Delivery, JobFuture
from pool.client.results import to_result
from pool.errors import InvalidJobError
from tests.support.waiting import eventually

#: Says which call of its child it is.
COUNT = """
calls = 0

def main(n):
    global calls
    calls += 1
    print("call", n)
    return n, calls
"""
MAIN = {"entry": "main"}
LONG_S = 60.0


@pytest.fixture(scope="module")
def endpoint():
    with pool.testing.daemon(screen={"allow_names": ["open", "_exit"], "allow_modules": ["atexit", "os"]}) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(endpoint):
    with Client(endpoint, timeout=LONG_S) as client:
        yield client


def outcomes(results):
    return [str(result.outcome) for result in results]


# ---- one child for many calls ----


def test_the_calls_of_a_chunk_run_in_one_child_and_each_has_its_own_result(client):
    results = list(client.map(COUNT, [[n] for n in range(7)], chunksize=3, **MAIN))
    assert [result.value for result in results] == [(0, 1), (1, 2), (2, 3), (3, 1), (4, 2), (5, 3), (6, 1)]
    assert [result.stdout for result in results] == [f"call {n}\n" for n in range(7)]
    assert [result.stdout_bytes for result in results] == [7] * 7
    assert [len(list(group)) for _, group in itertools.groupby(result.job_id for result in results)] == [3, 3, 1]
    for result in results:
        times = result.timings
        parts = times.queue_ms + times.dispatch_ms + times.run_ms + times.collect_ms
        assert parts == pytest.approx(times.total_ms)
    assert all(result.worker and result.attempt == 1 and result.ok for result in results)


def test_a_chunk_takes_callables_keyword_arguments_and_arrays(client):
    def add(array, *, more):
        return array + more

    results = client.map(add, [[np.full(3, n)] for n in range(5)], chunksize=5, kwargs={"more": 10})
    assert [result.value.tolist() for result in results] == [[n + 10] * 3 for n in range(5)]


def test_arguments_are_those_of_the_time_at_which_they_were_given(client):
    def lists():
        array = np.zeros(2)
        for n in range(4):
            array[:] = n
            yield [array]

    results = client.map("def main(x): return x.sum()", lists(), chunksize=4, **MAIN)
    assert [result.value for result in results] == [0, 2, 4, 6]


def test_a_chunk_ends_before_the_call_that_makes_its_arguments_large(client):
    lists = [[bytes(400_000)] for _ in range(5)]
    results = list(client.map("def main(x): return len(x)", lists, chunksize=5, **MAIN))
    assert [result.value for result in results] == [400_000] * 5
    assert len({result.job_id for result in results}) == 3


def test_a_chunk_ends_with_the_call_that_makes_its_answer_large_and_nothing_is_lost(client):
    limits = Limits(result="1m", output="64k")
    results = list(client.map("def main(n): return bytes(700_000)", [[n] for n in range(5)],
                              chunksize=5, limits=limits, **MAIN))  # fmt: skip
    assert [len(result.value) for result in results] == [700_000] * 5
    assert len({result.job_id for result in results}) == 3


def test_each_call_finds_its_seed_and_its_directories_as_the_first_one_did(client):
    code = """
import os, random
def main(n):
    left = os.listdir(".") + os.listdir("out")
    open("out/mine", "w").write(str(n))
    os.makedirs("out/deep/er")
    os.chdir("/")
    return random.random(), sorted(left)
"""
    results = list(client.map(code, [[n] for n in range(3)], chunksize=3, seed=7, files={"a": b""}, **MAIN))
    assert len({result.job_id for result in results}) == 1
    assert len({str(result.value) for result in results}) == 1
    assert results[0].value[1] == ["a", "out"]
    assert [result.files for result in results] == [{"mine": b"%d" % n} for n in range(3)]


def test_each_call_has_its_own_output_limit(client):
    code = "def main(n): print('x' * n); return n"
    results = list(client.map(code, [[50], [500], [50]], chunksize=3, limits=Limits(output=100), **MAIN))
    assert [(result.stdout_bytes, len(result.stdout), result.truncated) for result in results] == [
        (51, 51, ()), (501, 100, ("stdout",)), (51, 51, ()),
    ]  # fmt: skip


def test_exit_handlers_run_after_the_last_call_of_the_child(client):
    code = """
import atexit
def main(n):
    if n == 0:
        atexit.register(print, "bye")
    return n
"""
    results = list(client.map(code, [[n] for n in range(3)], chunksize=3, **MAIN))
    assert [(result.value, result.stdout) for result in results] == [(0, ""), (1, ""), (2, "bye\n")]
    assert len({result.job_id for result in results}) == 1


def test_a_call_that_leaves_a_thread_is_the_last_one_of_its_child(client):
    code = """
import threading, time
def main(n):
    if n == 1:
        threading.Thread(target=lambda: (time.sleep(2), print("late"))).start()
    return n
"""
    results = list(client.map(code, [[n] for n in range(4)], chunksize=4, **MAIN))
    assert [(result.value, result.stdout) for result in results] == [(0, ""), (1, "late\n"), (2, ""), (3, "")]
    assert [len(list(group)) for _, group in itertools.groupby(result.job_id for result in results)] == [2, 2]


# ---- calls that end badly ----


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("raise ValueError(n)", "error"),
        ("import os; os._exit(3)", "crash"),
        ("import time; time.sleep(600)", "timeout"),
        ("return bytes(3_000_000)", "output"),
        ("return bytearray(3 << 30)", "memory"),
    ],
)
def test_a_call_that_ends_badly_has_that_outcome_alone_and_the_others_go_on_in_a_fresh_child(client, code, outcome):
    bad = COUNT.replace("    return n, calls", f"    if n == 2: {code}\n    return n, calls")
    limits = Limits(wall_s=5 if outcome == "timeout" else LONG_S, result="1m", memory="256m")
    results = list(client.map(bad, [[n] for n in range(5)], chunksize=5, limits=limits, **MAIN))
    assert outcomes(results) == ["ok", "ok", outcome, "ok", "ok"]
    assert [result.value for result in results] == [(0, 1), (1, 2), None, (3, 1), (4, 2)]
    assert [result.stdout for result in results] == [f"call {n}\n" for n in range(5)]
    assert "call 3 of 5" in client.result(results[0].job_id).reason
    assert client.result(results[0].job_id).value is None


def test_the_cpu_limit_is_that_of_each_call(client):
    code = """
import time
def main(n):
    end = time.process_time() + n
    while time.process_time() < end: pass
    return n
"""
    limits = Limits(cpu_s=1, wall_s=LONG_S)
    results = list(client.map(code, [[0.6], [0.6], [0.6], [100], [0.6]], chunksize=5, limits=limits, **MAIN))
    assert outcomes(results) == ["ok", "ok", "ok", "timeout", "ok"]
    assert 0.5 < results[2].usage.cpu_s < 1.5, "not that of the three calls together"


def test_a_call_that_cannot_be_sent_has_a_result_at_its_place_and_the_others_go_on(client):
    lists = [[1], [threading.Lock()], 7, [2]]
    results = list(client.map(COUNT, lists, chunksize=4, **MAIN))
    assert [result.value for result in results] == [(1, 1), None, None, (2, 2)]
    assert [result.error and result.error.type for result in results] == [
        None, "ValueCodecError", "InvalidJobError", None,
    ]  # fmt: skip


def test_a_chunk_of_which_nothing_can_be_sent_gives_its_refusals(client):
    results = list(client.map(COUNT, [[threading.Lock()], [threading.Lock()]], chunksize=2, **MAIN))
    assert outcomes(results) == ["rejected", "rejected"]


def test_a_chunk_that_the_pool_refuses_gives_each_call_the_refusal(client):
    results = list(client.map(COUNT, [[1], [2]], chunksize=2, limits=Limits(wall_s=10**7), **MAIN))
    assert [(str(each.outcome), each.error.type) for each in results] == [("rejected", "LimitExceededError")] * 2


def test_code_that_the_screen_refuses_is_refused_for_each_call_with_one_job(client):
    code = "import ctypes\ndef main(n): return ctypes.string_at(0)"
    results = list(client.map(code, [[n] for n in range(20)], chunksize=20, **MAIN))
    assert outcomes(results) == ["rejected"] * 20
    assert len({result.job_id for result in results}) == 1
    assert all(result.findings for result in results)


def test_cancelling_the_job_of_a_chunk_leaves_the_calls_that_have_ended(client, endpoint, tmp_path):
    started = tmp_path / "started"
    code = f"""
import time
def main(n):
    if n == 1:
        open({str(started)!r}, "w").close()
        time.sleep(600)
    return n
"""
    results = client.map(code, [[n] for n in range(3)], chunksize=3, **MAIN)
    eventually(started.exists, LONG_S)
    with AdminClient(endpoint, timeout=LONG_S) as admin:
        client.cancel(admin.mine()["jobs"][0]["id"])
    ended = list(results)
    assert outcomes(ended) == ["ok", "cancelled", "cancelled"]
    assert [result.value for result in ended] == [0, None, None]
    assert "had not begun" in ended[2].reason


def test_what_is_left_is_cancelled_when_the_iteration_ends_early(client, endpoint):
    code = "import time\ndef main(n): time.sleep(600 * (n > 1)); return n"
    results = client.map(code, [[n] for n in range(6)], chunksize=2, **MAIN)
    assert [next(results).value, next(results).value] == [0, 1]
    results.close()
    with AdminClient(endpoint, timeout=LONG_S) as admin:
        eventually(lambda: all(each["state"] == "done" for each in admin.mine()["jobs"]), LONG_S)


# ---- the executor and the async client ----


def test_the_executor_runs_chunks_and_raises_the_first_failure_at_its_place(endpoint):
    def inverse(n):
        return 1 / n

    with PoolExecutor(endpoint) as executor:
        assert list(executor.map(pow, [2, 3, 4], [2, 2, 2], chunksize=2)) == [4, 9, 16]
        values = executor.map(inverse, [1, 2, 0, 4], chunksize=4)
        assert [next(values), next(values)] == [1, 0.5]
        with pytest.raises(ZeroDivisionError):
            next(values)


def test_the_async_client_runs_chunks(endpoint):
    async def main(decode):
        async with AsyncClient(endpoint, timeout=LONG_S, decode=decode) as client:
            return [each.value async for each in client.map(COUNT, [[n] for n in range(5)], chunksize=3, **MAIN)]

    for decode in ("inline", "process"):
        assert asyncio.run(main(decode)) == [(0, 1), (1, 2), (2, 3), (3, 1), (4, 2)]


def test_progress_counts_calls(client):
    done = []
    lists = [[n] for n in range(5)]
    list(client.map(COUNT, lists, chunksize=3, progress=lambda *at: done.append(at), **MAIN))
    assert [len(done), done[-1]] == [2, (5, 5)]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"chunksize": 0}, "chunksize"),
        ({"chunksize": "two"}, "chunksize"),
        ({"chunksize": 2, "grade": "def grade(v): return v"}, "grade"),
        ({"chunksize": 2, "stdin": "text"}, "stdin"),
        ({"chunksize": 2, "entry": None}, "entry"),
    ],
)
def test_what_does_not_go_with_chunks_is_refused_before_anything_is_sent(client, options, named):
    with pytest.raises(InvalidJobError, match=named):
        client.map(COUNT, [[1]], **{**MAIN, **options})


def test_the_grades_of_an_executor_do_not_go_with_chunks(endpoint):
    with (
        PoolExecutor(endpoint, grade="def grade(v): return v") as executor,
        pytest.raises(InvalidJobError, match="grade"),
    ):
        executor.map(abs, [1], chunksize=2)


# ---- answers that are not what they should be ----


def answered(header, *payload):
    job = JobFuture()
    job.job_id = header.job_id
    job.set_result(Delivery(header, payload))
    return job


def results_of(count, job):
    chunk = chunks.Chunk([[b""]] * count)
    chunk.take(job)
    return chunk, [] if chunk.unfinished else list(chunk.results(to_result, None))


def call(**fields):
    return wire.Call(job_id="j", outcome="ok", sizes=(1, 0, 0), **fields)


def test_a_chunk_whose_worker_is_lost_is_lost_for_each_of_its_calls():
    lost = wire.Result(job_id="j", outcome=Outcome.LOST, reason="gone", worker="w", stdout_bytes=3)
    _, results = results_of(3, answered(lost, b"abc", b"", b""))
    assert [(str(each.outcome), each.reason, each.stdout, each.job_id) for each in results] == [
        ("lost", "gone", "", "j")
    ] * 3


def test_calls_of_a_worker_that_had_to_be_stopped_are_lost_and_those_that_waited_in_vain_timed_out():
    def outcome(**fields):
        late = wire.Result(job_id="j", outcome=Outcome.TIMEOUT, reason="late", **fields)
        return [str(each.outcome) for each in results_of(2, answered(late, b"", b"", b""))[1]]

    assert (outcome(worker="w"), outcome()) == (["lost"] * 2, ["timeout"] * 2)


def test_calls_that_have_not_begun_are_left_to_another_job():
    whole = wire.Result(job_id="j", outcome=Outcome.OK, calls=1)
    chunk, _ = results_of(3, answered(whole, b"x", b"", b"", wire.encode_calls([call()]), b""))
    assert (chunk.unfinished, len(chunk.arguments())) == (True, 2)


@pytest.mark.parametrize(
    "payload",
    [
        (b"x", b"", b""),
        (b"x", b"", b"", b"\xff", b""),
        (b"x", b"", b"", wire.encode_calls([call()])),
        (b"x", b"", b"", wire.encode_calls([call(), call()]), b"", b""),
        (b"", b"", b"", wire.encode_calls([call()]), b""),
        (b"x", b"", b"", wire.encode_calls([call()]), b"more"),
        (b"x", b"", b"", wire.encode_calls([wire.Call(job_id="j", outcome="lost", sizes=(1, 0, 0))]), b""),
    ],
)
def test_an_answer_that_is_not_that_of_a_chunk_is_an_error_of_each_call(payload):
    _, results = results_of(2, answered(wire.Result(job_id="j", outcome=Outcome.OK, calls=1), *payload))
    assert [(str(each.outcome), each.error.type) for each in results] == [("error", "InvalidError")] * 2


def test_the_figures_of_a_call_are_bounded_by_those_of_its_chunk_and_its_text_is_printable():
    whole = wire.Result(job_id="j", outcome=Outcome.ERROR, calls=1, run_ms=5.0, total_ms=7.0, collect_ms=2.0, cpu_s=1.0)
    given = wire.Call(job_id="k", outcome="error", reason="\x1b[2J", sizes=(0, 0, 0), cpu_s=1e8, max_rss_bytes=1 << 60,
                      started_ns=1, ended_ns=1 << 61)  # fmt: skip
    _, (result,) = results_of(1, answered(whole, b"", b"", b"", wire.encode_calls([given]), b""))
    assert (result.job_id, result.usage.cpu_s, result.usage.max_rss_bytes, result.timings.run_ms) == ("j", 1.0, 0, 5.0)
    assert result.reason == "\\x1b[2J"

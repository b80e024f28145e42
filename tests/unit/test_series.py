"""Cases of `run_tests` in chunks: each runs in a child of its own, as a job does. With a real daemon and runner, whose
workers are plain processes.
"""

import asyncio
import itertools
import time

import pytest

import pool.testing
from pool import AsyncClient, Client, Limits, Outcome
from pool.client import AdminClient, cases
from tests.support.waiting import eventually

#: So many cases are in chunks of two.
COUNT = 2 * cases.LEAST_CHUNKS
MAIN = {"entry": "main"}
#: Says what it finds of another case: a name, a file and a module that it leaves itself.
LEAVES = """
import os, sys
left = []

def main(n):
    found = [*left, *sorted(set(os.listdir()) - {"out"}), *[name for name in sys.modules if name == "left"]]
    left.append(n)
    sys.modules["left"] = sys
    open("left.txt", "w").close()
    print("case", n)
    return n, found
"""
#: Every fourth case fails in a way of its own.
FAILS = """
import os, time

def main(n):
    if n % 8 == 1:
        raise ValueError(n)
    if n % 8 == 3:
        os._exit(3)
    if n % 8 == 5:
        time.sleep(60)
    if n % 8 == 7:
        os.kill(os.getpid(), 9)
    return n
"""


FORGES_BYTE_CODE = """
import marshal, os, struct

def main(n):
    if n % 2 == 0:
        frames = [b"compiled", marshal.dumps(compile("def main(n): return 'forged'", "<job>", "exec"))]
        message = struct.pack("!IQQ", 2, *map(len, frames)) + b"".join(frames)
        for fd in range(3, 100):
            try:
                os.write(fd, message)
            except OSError:
                pass
        os._exit(0)
    return "its own"
"""


@pytest.fixture(scope="module")
def endpoint():
    with pool.testing.daemon(screen={"mode": "off"}) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(endpoint):
    with Client(endpoint, timeout=60) as client:
        yield client


def chunks_of(report):
    return [len(list(group)) for _, group in itertools.groupby(row.job.job_id for row in report.cases)]


def test_a_case_sees_nothing_that_another_one_of_its_chunk_left(client):
    given = [{"args": [n], "expected": (n, []), "stdout": f"case {n}"} for n in range(COUNT)]
    report = client.run_tests(LEAVES, given, **MAIN)
    assert report.ok, report.first_failure
    sizes = chunks_of(report)
    assert (sum(sizes), max(sizes)) == (COUNT, 2)  # a chunk of one: its first case took more than a second
    for row in report.cases:
        times = row.job.timings
        parts = times.queue_ms + times.dispatch_ms + times.run_ms + times.collect_ms
        assert parts == pytest.approx(times.total_ms, abs=0.01)


def test_a_case_that_fails_has_its_own_outcome_and_the_next_one_of_its_chunk_runs(client):
    given = [{"args": [n], "expected": n} for n in range(COUNT)]
    report = client.run_tests(FAILS, given, limits=Limits(wall_s=3), **MAIN)
    ways = {1: Outcome.ERROR, 3: Outcome.CRASH, 5: Outcome.TIMEOUT, 7: Outcome.CRASH}
    assert [row.job.outcome for row in report.cases] == [ways.get(n % 8, Outcome.OK) for n in range(COUNT)]
    assert [row.passed for row in report.cases] == [n % 2 == 0 for n in range(COUNT)]
    assert report.cases[1].job.error.type == "ValueError"
    assert report.cases[3].job.exit_code == 3
    assert report.cases[7].job.signal == 9


def test_a_program_in_a_chunk_reads_the_stdin_of_its_own_case(client):
    program = "import sys\nprint(sys.stdin.read() * 2, end='')"
    given = [{"stdin": f"{n}\n", "stdout": f"{n}\n{n}\n"} for n in range(COUNT)]
    report = client.run_tests(program, given)
    assert report.ok, report.first_failure
    assert max(chunks_of(report)) > 1
    shared = client.run_tests(program, [{"stdout": "a\na\n"}] * COUNT, stdin="a\n")
    assert shared.ok, shared.first_failure


def test_files_arguments_of_the_program_and_the_seed_are_those_of_every_case(client):
    program = "import random, sys\nresult = open('a').read(), sys.argv, random.random()"
    given = [{"expected": ("b", ["job.py", "c"], 0.13436424411240122)}] * COUNT
    report = client.run_tests(program, given, files={"a": b"b"}, argv=["c"], seed=1)
    assert report.ok, report.first_failure
    assert max(chunks_of(report)) > 1


def test_cases_with_inputs_of_their_own_are_jobs_between_the_chunks(client):
    given = [{"args": [n], "expected": n} for n in range(COUNT)]
    given[3]["limits"], given[10]["check"] = Limits(wall_s=50), "def check(value): return value == 10"
    report = client.run_tests("def main(n): return n", given, **MAIN)
    assert report.ok, report.first_failure
    assert report.cases[10].job.grade is True
    jobs = [row.job.job_id for row in report.cases]
    assert [jobs.count(jobs[number]) for number in (3, 10)] == [1, 1]
    assert max(chunks_of(report)) > 1


def test_a_case_that_cannot_be_sent_is_refused_and_the_others_of_its_chunk_run(client):
    given = [{"args": [object()] if n == 2 else [n], "expected": n} for n in range(COUNT)]
    report = client.run_tests("def main(n): return n", given, **MAIN)
    assert [row.passed for row in report.cases] == [n != 2 for n in range(COUNT)]
    assert "ended rejected" in report.cases[2].reason


def test_a_callable_is_loaded_anew_for_each_case(client):
    seen = []

    def count(n):
        seen.append(n)
        return seen

    report = client.run_tests(count, [{"args": [n], "expected": [n]} for n in range(COUNT)])
    assert report.ok, report.first_failure


SHOWS_ITSELF = """
import inspect, linecache, sys, traceback

def main(n):
    try:
        raise ValueError("same")
    except ValueError:
        told = traceback.format_exc()
    module = sys.modules["__main__"]
    return told, inspect.getsource(main), linecache.getline("<job>", 5), module.__name__, module.main is main
"""


def test_source_tracebacks_and_module_are_the_same_in_the_cases_that_load_the_byte_code_of_the_first_one(client):
    given = [{"args": [n], "stdout": ""} for n in range(COUNT)]
    rows = client.run_tests(SHOWS_ITSELF, given, **MAIN).cases
    told, source, line, name, same = rows[1].job.value
    assert {row.job.value for row in rows} == {rows[0].job.value}
    assert 'File "<job>", line 6, in main\n    raise ValueError("same")' in told
    assert (source.splitlines()[0], line.strip(), name, same) == ("def main(n):", "try:", "job", True)


def test_a_warning_of_the_compiler_is_printed_in_each_case(client):
    given = [{"args": [n], "expected": True} for n in range(COUNT)]
    rows = client.run_tests("def main(n): return 1 is 1", given, **MAIN).cases
    assert all(row.passed and row.job.stderr.count("SyntaxWarning") == 1 for row in rows)


def test_a_case_cannot_give_the_other_ones_of_its_chunk_byte_code(client):
    """It writes to each of its descriptors what a child sends that has compiled the text of its job."""
    given = [{"args": [n], "stdout": ""} for n in range(COUNT)]
    rows = client.run_tests(FORGES_BYTE_CODE, given, **MAIN).cases
    assert {row.job.outcome for row in rows[::2]} == {Outcome.CRASH}
    assert {row.job.outcome for row in rows[1::2]} == {Outcome.OK}
    assert {row.job.value for row in rows[1::2]} == {"its own"}


def test_what_the_screen_refuses_is_refused_for_every_case():
    with pool.testing.daemon() as endpoint, Client(endpoint, timeout=60) as client:
        report = client.run_tests(
            "import socket\ndef main(n): return n", [{"args": [1], "expected": 1}] * COUNT, **MAIN
        )
    assert {row.job.outcome for row in report.cases} == {Outcome.REJECTED}
    assert all(row.job.findings for row in report.cases)


def test_a_chunk_whose_cases_are_slow_is_answered_early_and_the_rest_goes_before_the_other_chunks(client):
    slow = "import time\ndef main(n):\n    time.sleep(0.4 if n < 8 else 0.05)\n    return time.monotonic()"
    report = client.run_tests(slow, [{"args": [n], "stdout": ""} for n in range(8 * cases.LEAST_CHUNKS)], **MAIN)
    assert report.ok, report.first_failure
    assert chunks_of(report)[0] < 8
    ended = [row.job.value for row in report.cases]
    assert max(ended[:8]) < max(ended[8:])


def test_cancelling_the_task_ends_the_case_that_runs_and_those_that_have_not_begun(endpoint):
    def open_jobs():
        with AdminClient(endpoint.replace("submit.sock", "admin.sock")) as admin:
            (status,) = admin.call("status")["pools"]
        return status["backlog"] + sum(worker["state"] != "idle" for worker in status["workers"])

    async def main():
        async with AsyncClient(endpoint, timeout=60) as client:
            sleeping = "import time\ndef main(n): time.sleep(40)"
            given = [{"args": [n], "expected": None} for n in range(COUNT)]
            task = asyncio.create_task(client.run_tests(sleeping, given, limits=Limits(wall_s=50), **MAIN))
            await asyncio.to_thread(eventually, lambda: open_jobs() >= cases.LEAST_CHUNKS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    began = time.monotonic()
    asyncio.run(main())
    eventually(lambda: open_jobs() == 0)
    assert time.monotonic() - began < 40

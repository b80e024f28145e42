"""Jobs with a grader, end to end: the daemon, its client, and workers that are plain processes."""

import signal

import pytest

from pool import AsyncClient, Limits, Outcome, PoolExecutor, wire
from pool.client import JobOutcomeError, job
from pool.core.events import Accept, DrainRequested, Refuse, ShutdownRequested
from pool.daemon import grading
from pool.daemon.job import Grader, Job
from pool.errors import InvalidJobError, TooLargeError, ValueCodecError
from tests.support.core import Core
from tests.support.daemons import DaemonProcess, module_daemon, pool_of

POOL = pool_of(2, limits={"wall_s": 30})
DOUBLE = "def main(x):\n    return x * 2"
CLOSENESS = "def grade(value, expected):\n    return abs(value - expected)"


daemon = module_daemon({"default": POOL, "strict": POOL | {"screen": "strict"}})


# ---- what comes of it ----


def test_the_grader_gets_the_value_and_its_own_arguments(client):
    result = client.run(DOUBLE, entry="main", args=[20], grade=CLOSENESS, grade_args=[42])
    assert (result.outcome, result.value, result.grade, result.grade_error) == (Outcome.OK, 40, 2, None)
    assert result.timings.grade_ms > 0


def test_a_callable_can_be_a_grader(client):
    expected = [1, 2, 3]
    result = client.run("result = [1, 2, 4]", grade=lambda value: value == expected)
    assert (result.value, result.grade) == ([1, 2, 4], False)


def test_a_job_without_a_grader_has_no_grade(client):
    result = client.run("result = 1")
    assert (result.grade, result.grade_error) == (None, None)


def test_a_job_that_fails_is_not_graded(client):
    result = client.run("raise ValueError('mine')", grade=CLOSENESS, grade_args=[1])
    assert (result.outcome, result.error.message, result.grade) == (Outcome.ERROR, "mine", None)
    assert result.grade_error.message == "the job was not graded: it ended error"


def test_a_grader_that_raises_leaves_the_job_its_outcome_and_value(client):
    result = client.run("result = 'text'", grade=CLOSENESS, grade_args=[1])
    assert (result.outcome, result.value, result.grade) == (Outcome.OK, "text", None)
    assert result.grade_error.type == "TypeError"
    assert "in grade" in result.grade_error.traceback


def test_a_grader_that_never_ends_is_killed_at_the_limit_of_the_job(client):
    result = client.run("result = 1", grade="def grade(value):\n    while True: pass", limits=Limits(wall_s=3))
    assert (result.outcome, result.value) == (Outcome.OK, 1)
    assert "the grader ended timeout: it ran past its wall limit of 3 s" in result.grade_error.message


def test_a_grader_whose_value_cannot_be_carried_says_so(client):
    result = client.run("result = 1", grade="def grade(value):\n    return object()")
    assert result.grade_error.type.endswith("ValueCodecError")


def test_a_grader_without_its_function_says_so(client):
    result = client.run("result = 1", grade="def score(value): ...")
    assert "the code defines no 'grade'; it defines: score" in result.grade_error.message


def test_the_screen_reads_the_grader_too(client):
    result = client.run("result = 1", grade="import subprocess\ndef grade(value): ...", pool="strict")
    assert (result.outcome, result.grade_error.type) == (Outcome.OK, "Rejected")
    assert "does not allow the module subprocess" in result.grade_error.message


def test_the_grader_runs_in_another_process_and_with_other_names(client):
    code = "import os, builtins\nbuiltins.leak = 1\nresult = os.getpid()"
    result = client.run(
        code, grade="import os, builtins\ndef grade(pid): return os.getpid() != pid, hasattr(builtins, 'leak')"
    )
    assert result.grade == (True, False)


def test_the_job_sees_nothing_of_the_grader(client):
    code = "import gc\nresult = [str(each) for each in gc.get_objects() if '-'.join(['very', 'secret']) in str(each)[:200]]"
    assert client.run(code, grade="def grade(value, secret): return secret", grade_args=["very-secret"]).value == []


# ---- ways to ask ----


def test_any_process_can_ask_for_a_graded_result_by_its_id(client, daemon):
    job_id = client.submit("result = 1", grade=lambda value: value + 1)
    with daemon.client(timeout=120) as other:
        assert other.result(job_id, timeout=60).grade == 2
        assert other.result(job_id).grade == 2


def test_the_jobs_of_a_map_are_graded(client):
    results = client.map(DOUBLE, ([n] for n in range(20)), entry="main", grade=CLOSENESS, grade_args=[10])
    assert [each.grade for each in results] == [abs(2 * n - 10) for n in range(20)]


def test_the_futures_of_an_executor_with_a_grader_have_the_grade(client):
    with PoolExecutor(client=client, grade="def grade(value, best): return value / best", grade_args=[4]) as executor:
        assert list(executor.map(abs, [-2, 4])) == [0.5, 1.0]
        with pytest.raises(JobOutcomeError, match="unsupported operand"):
            executor.submit(str, 1).result(60)


async def test_asyncio_jobs_are_graded(daemon):
    async with AsyncClient(daemon.endpoint, timeout=120) as client:
        assert (await client.run("result = 2", grade=lambda value: value**2)).grade == 4


def test_cancelling_a_job_that_is_being_graded_ends_the_grader_and_keeps_the_value(client, daemon):
    job_id = client.submit("result = 1", grade="import time\ndef grade(value): time.sleep(100)")
    daemon.until(lambda: any(each["id"].endswith("/grade") for each in daemon.call("jobs")["jobs"]))
    client.cancel(job_id)
    result = client.result(job_id, timeout=60)
    assert (result.outcome, result.value) == (Outcome.OK, 1)
    assert "the grader ended cancelled" in result.grade_error.message
    history = [each["what"] for each in daemon.call("history", id=job_id)["entries"]]
    assert len([each for each in history if "accepted" in each]) == 2
    assert not [each for each in daemon.call("jobs")["jobs"] if each["id"].endswith("/grade")]


def test_a_daemon_that_is_stopped_does_not_wait_for_a_grade_beyond_its_drain_timeout():
    with DaemonProcess({"default": POOL}, drain_timeout_s=0.1) as running, running.client(timeout=120) as client:
        job_id = client.submit("result = 1", grade="import time\ndef grade(value): time.sleep(100)")
        running.until(lambda: any(each["id"].endswith("/grade") for each in running.call("jobs")["jobs"]))
        assert job_id
        assert running.stop() == 0


def test_a_graded_job_that_waited_when_the_daemon_was_killed_is_graded_by_the_next_one(tmp_path):
    one = POOL | {"size": {"min": 1, "max": 1}}
    with DaemonProcess({"default": one}, home=tmp_path, durability="crash") as first:
        with first.client(timeout=120) as client:
            running_id = client.submit("import time\ntime.sleep(100)")
            job_id = client.submit(DOUBLE, entry="main", args=[20], grade=CLOSENESS, grade_args=[42])
        first.stop(signal.SIGKILL)
    with (
        DaemonProcess({"default": one}, home=tmp_path, durability="crash") as second,
        second.client(timeout=120) as client,
    ):
        client.cancel(running_id)  # its worker has outlived the first daemon
        result = client.result(job_id, timeout=60)
        assert (result.value, result.grade) == (40, 2)


# ---- bad input ----


def test_bad_graders_are_refused_before_anything_is_sent(client):
    with pytest.raises(InvalidJobError, match="grade: it is of type int"):
        client.run("result = 1", grade=3)
    with pytest.raises(InvalidJobError, match="grade_args: there is no grade"):
        client.run("result = 1", grade_args=[1])
    with pytest.raises(InvalidJobError, match="grade_args: it is of type int"):
        client.run("result = 1", grade=CLOSENESS, grade_args=3)
    with pytest.raises(ValueCodecError, match=r"grade_args\[0\]"):
        client.run("result = 1", grade=CLOSENESS, grade_args=[object()])
    with pytest.raises(TooLargeError):
        client.run("result = 1", grade=f"x = '{'y' * (1 << 20)}'")


def test_a_submission_that_lacks_the_frames_of_its_grader_is_refused():
    with pytest.raises(InvalidJobError, match="must end with the code of the grader"):
        grading.split(wire.Grader(arguments=3), [b"code", b"stdin"])


def test_the_frames_of_the_grader_are_not_those_of_the_job():
    message, frames = job.build("x = 1", {"grade": "def grade(value, n): ...", "grade_args": [7]}, pool="default")
    own, rest = grading.split(message.grade, frames[2:])
    assert list(own) == [b"x = 1", b""]
    assert rest[0] == b"def grade(value, n): ..."


def test_a_value_that_does_not_fit_beside_the_arguments_of_the_grader_is_not_given_to_it():
    whole = Job(
        key="1000/j", client="1000", pool="p", received_ns=0, run=None, payload=(), held_bytes=0,
        grader_payload=(b"",) * 600,
    )  # fmt: skip
    result = wire.Result(job_id="j", outcome=Outcome.OK)
    assert (
        grading.begin(whole, Grader(run=None, code="", frames=600), (result, (b"", b"", b"", *(b"v",) * 600))) is None
    )
    assert "too large to be given to the grader" in whole.ended[0].grade.reason


# ---- in the core ----


def test_the_second_part_of_a_job_is_accepted_by_a_full_and_by_a_draining_pool():
    core = Core(min_workers=1, max_workers=1, backlog_max=1)
    assert isinstance(core.submit("waits")[0], Accept)
    assert isinstance(core.submit("too many")[0], Refuse)
    assert isinstance(core.submit("part", follow_up=True)[0], Accept)
    core.handle(DrainRequested())
    assert isinstance(core.submit("another")[0], Refuse)
    assert isinstance(core.submit("another part", follow_up=True)[0], Accept)


def test_the_second_part_of_a_job_is_refused_by_a_pool_that_shuts_down():
    core = Core()
    core.handle(ShutdownRequested(deadline=100.0))
    assert isinstance(core.submit("part", follow_up=True)[0], Refuse)

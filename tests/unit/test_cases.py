"""`run_tests`: one candidate against many cases, with the fake daemon; and the judge by itself."""

import threading

import numpy as np
import pandas as pd
import pytest

from pool import AsyncClient, JobError, JobResult, Limits, Outcome, wire
from pool.client import cases
from pool.errors import InvalidJobError
from tests.unit.test_executor import hold

SQUARE = "def main(x): return x * x"
MAIN = {"entry": "main"}
HALF_RIGHT = [{"args": [n], "expected": n * n if n % 2 else -1, "name": f"square of {n}"} for n in range(5)]


def test_each_case_has_a_row_in_order_with_a_verdict_a_reason_and_its_job(client):
    report = client.run_tests(SQUARE, HALF_RIGHT, **MAIN)
    assert [(row.name, row.passed) for row in report.cases] == [(f"square of {n}", bool(n % 2)) for n in range(5)]
    assert (report.passed, report.ok, report.first_failure) == (2, False, report.cases[0])
    assert report.cases[2].reason == "its value is 4, expected is -1"
    assert [row.job.value for row in report.cases] == [0, 1, 4, 9, 16]
    assert len({row.job.job_id for row in report.cases}) == 5


def test_a_candidate_that_passes_all_cases_is_ok(client):
    report = client.run_tests(SQUARE, [{"args": [n], "expected": n * n} for n in range(300)], **MAIN)
    assert (report.ok, report.passed, report.first_failure) == (True, 300, None)


def test_without_cases_no_candidate_is_ok(client):
    used = iter([{"args": [2], "expected": 4}])
    assert client.run_tests(SQUARE, used, **MAIN).ok
    with pytest.raises(InvalidJobError, match="cases: there are none; give at least one"):
        client.run_tests(SQUARE, used, **MAIN)


def test_a_case_whose_job_fails_or_is_refused_has_that_as_its_reason_and_the_others_go_on(client):
    given = [{"args": [{}], "expected": 0}, {"args": [threading.Lock()], "expected": 0}, {"args": [2], "expected": 4}]
    bad, refused, good = client.run_tests(SQUARE, given, **MAIN).cases
    assert "ended error: TypeError" in bad.reason
    assert "ended rejected: ValueCodecError" in refused.reason
    assert (good.name, good.passed, good.reason) == ("case 2", True, "")


def test_the_first_failure_ends_the_run_and_the_rows_after_it_say_so(client, daemon):
    given = [{"args": [n], "expected": n * n if n < 3 else -1} for n in range(10_000)]
    report = client.run_tests(SQUARE, given, stop_on_first_failure=True, **MAIN)
    assert [row.passed for row in report.cases] == [True] * 3 + [False] * 9997
    assert {row.reason for row in report.cases[4:]} == {"not judged, for case 3 did not pass"}
    assert all(row.job is None for row in report.cases[4:])
    assert len(daemon.of(wire.Submit)) < 20


def test_when_the_time_is_over_what_is_left_is_cancelled_and_the_rows_say_so(client, daemon):
    report = client.run_tests(hold, [{"args": [n], "expected": 1} for n in range(3)], timeout=0.1)
    assert not report.ok
    assert all("not judged in time" in row.reason and row.job is None for row in report.cases)
    daemon.wait_for(wire.Cancel, 3)


def test_cases_have_their_own_inputs_and_limits_and_share_the_other_options(client, daemon):
    given = [
        {"args": [1], "expected": 1, "limits": Limits(wall_s=3), "stdin": "a", "argv": ["b"], "files": {"c": b""}},
        {"kwargs": {"x": 2}, "expected": 4},
    ]
    assert client.run_tests(SQUARE, given, limits=Limits(wall_s=9), priority=7, **MAIN).ok
    first, second = daemon.of(wire.Submit)
    assert (first.limits.wall_s, first.argv, first.files, second.limits.wall_s) == (3, ("b",), ("c",), 9)
    assert (first.priority, second.priority) == (7, 7)


def test_what_is_expected_is_not_sent(client, daemon):
    client.run_tests(SQUARE, [{"args": [1], "expected": "a secret", "stdout": "a secret"}], **MAIN)
    assert not any(b"a secret" in bytes(frame) for payload in daemon.payloads for frame in payload)


def test_a_check_is_the_grader_of_its_case(client, daemon):
    given = [{"args": [1], "check": "def check(value, most): return value <= most", "check_args": [1]}]
    client.run_tests(SQUARE, given, **MAIN)
    (submit,) = daemon.of(wire.Submit)
    assert (submit.grade.entry, submit.grade.arguments) == ("check", 1)


async def test_the_async_client_runs_tests(daemon):
    async with AsyncClient(daemon.endpoint, timeout=60) as client:
        assert (await client.run_tests(SQUARE, HALF_RIGHT, **MAIN)).passed == 2
        stopped = await client.run_tests(SQUARE, HALF_RIGHT, **MAIN, stop_on_first_failure=True)
    assert [row.job is None for row in stopped.cases] == [False] + [True] * 4


@pytest.mark.parametrize(
    ("case", "named"),
    [
        (7, r"cases\[1\]: it is"),
        ({"args": [1]}, r"cases\[1\]: nothing is expected"),
        ({"args": 1, "expected": 1}, r"cases\[1\]\.args: it is of type int; give a list or tuple, such as \[21\]"),
        ({"kwargs": [1], "expected": 1}, r"cases\[1\]\.kwargs: it is of type list; give a mapping"),
        ({"args": [1], "expect": 1}, r"cases\[1\]: a case has no 'expect'"),
        ({"expected": threading.Lock()}, r"cases\[1\]\.expected: no value can be equal to it"),
        ({"stdout": 7}, r"cases\[1\]\.stdout"),
        ({"check": 7}, r"cases\[1\]\.check"),
    ],
)
def test_a_case_that_no_candidate_could_pass_is_refused_before_anything_is_sent(client, daemon, case, named):
    with pytest.raises(InvalidJobError, match=named):
        client.run_tests(SQUARE, [{"args": [1], "expected": 1}, case], **MAIN)
    assert daemon.received == []


@pytest.mark.parametrize("options", [{"args": [1]}, {"job_id": "a"}, {"grade": "def grade(v): return v"}])
def test_what_the_cases_cannot_share_is_refused(client, options):
    with pytest.raises(InvalidJobError, match=f"{min(options)}: it cannot be shared"):
        client.run_tests(SQUARE, [], **MAIN, **options)


# ---- the judge ----


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (np.float64(3.0), 3.0),
        (3, np.int64(3)),
        (np.True_, True),
        ([1, (2, {"a": None})], [1, (2, {"a": None})]),
        (float("nan"), float("nan")),
        (np.arange(3), np.arange(3)),
        ([np.array([1.0, np.nan])], [np.array([1.0, np.nan])]),
        (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 2]})),
    ],
)
def test_equal_values_pass(value, expected):
    assert cases.same(value, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, 0),
        ([1, 2], (1, 2)),
        (np.arange(3), np.arange(4)),
        (np.ones(2), np.zeros(2)),
        (np.array([3]), 3),
        (np.float64(3.0), 4.0),
        (pd.NA, 1),
        ([np.ones(2)], [np.zeros(2)]),
        (pd.Series([1.0]), pd.Series([2.0])),
        ("4", 4),
    ],
)
def test_other_values_do_not_pass(value, expected):
    assert not cases.same(value, expected)


def ended(outcome=Outcome.OK, **fields):
    return JobResult(job_id="j", outcome=outcome, **fields)


@pytest.mark.parametrize(
    ("case", "result", "reason"),
    [
        ({"stdout": "a\nb"}, ended(stdout="a  \nb\n\n"), ""),
        ({"stdout": "a\nb"}, ended(stdout="a\n\nb"), "it printed"),
        ({"stdout": "a"}, ended(stdout="a", truncated=("stdout",)), "it printed"),
        ({"stdout": "a", "expected": 1}, ended(stdout="a", value=2), "its value is 2"),
        ({"expected": 1}, ended(Outcome.TIMEOUT, reason="too long", value=None), "ended timeout: too long"),
        (
            {"expected": 1},
            ended(Outcome.ERROR, error=JobError(type="E", message="m", traceback='  File "<job>", line 7, in f')),
            "ended error: E: m (line 7)",
        ),
        ({"check": "..."}, ended(grade=True), ""),
        ({"check": "..."}, ended(grade=np.True_), ""),
        ({"check": "..."}, ended(grade=np.False_), "its check returned"),
        ({"check": "..."}, ended(grade=1), "its check returned 1"),
        ({"check": "..."}, ended(grade_error=JobError(type="E", message="m")), "its check failed: E: m"),
    ],
)
def test_a_case_passes_if_all_that_it_expects_is_so(case, result, reason):
    found = cases.judge(case, result)
    assert reason in found if reason else not found

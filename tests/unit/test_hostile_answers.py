"""What a job gives neither stops nor slows its caller: the judge of `run_tests`, programs in Markdown, errors, file names."""

import re
import time

import pandas as pd
import pytest

from pool import JobResult, Outcome, wire
from pool.cli.job_options import write_files
from pool.client import cases, strategy
from pool.client.fences import without_fences
from pool.client.results import to_result

#: Far more than what a text of LONG characters takes, and far less than quadratic time: minutes to hours.
GENEROUS_S = 20
LONG = 1 << 20
HUGE = 10**9000


def done(**fields):
    return JobResult(**{"job_id": "j", "outcome": Outcome.OK, "reason": ""} | fields)


@pytest.mark.parametrize(
    "text",
    [" " * LONG + "x", "\t \x0b" * (LONG // 3) + "x", "\xa0" * LONG + "x\n" * 9, (" " * 999 + "x\n") * 999],
    ids=["spaces", "tabs", "no-break spaces", "many lines"],
)
def test_the_time_to_compare_an_output_grows_with_its_length_only(text):
    began = time.process_time()
    assert "it printed" in cases.judge({"stdout": "x"}, done(stdout=text))
    assert not cases.judge({"stdout": text}, done(stdout=text + "  \n \n"))
    assert time.process_time() - began < GENEROUS_S


def test_white_space_at_the_ends_of_lines_is_what_a_regular_expression_takes_for_it():
    """Of every character that is white space. The expression is right, and slow."""
    slow = re.compile(r"[^\S\n]+$", re.MULTILINE)
    for number in (*range(0x3001), 0xFEFF):
        text = f"a{chr(number)}\n{chr(number)}b{chr(number)} \n"
        assert cases._bare(text) == slow.sub("", text).rstrip(), hex(number)


@pytest.mark.parametrize("value", [HUGE, [HUGE], {1: (HUGE,)}, {HUGE}, -HUGE], ids=range(5))
def test_an_integer_that_python_does_not_write_fails_its_case_and_not_the_run(value):
    with pytest.raises(ValueError, match="4300 digits"):
        repr(value)
    reason = cases.judge({"expected": 4}, done(value=value))
    assert reason.startswith("its value is <")
    assert reason.endswith("expected is 4")


@pytest.mark.parametrize(
    "line", ["```" + "a" * LONG, "```" + " " * LONG, "~~~" + "~ " * LONG, "```" + " a" * LONG, "`" * LONG], ids=range(5)
)
@pytest.mark.parametrize("end", ["`", "`\nx", "\x00`"])
def test_a_long_line_that_is_no_fence_takes_no_quadratic_time(line, end):
    began = time.process_time()
    without_fences(line + end)
    assert time.process_time() - began < GENEROUS_S


def test_a_line_number_of_any_length_in_an_error_is_text():
    run = strategy.StrategyRun(pd.Series(range(1, 200)), strategy.Market())
    told = run.in_words("ValueError: no (line " + "9" * 5000 + ")", "x = 1", ran=True)
    assert "ValueError: no" in told


@pytest.mark.parametrize(
    "names", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b", "x"), ("../x",), ("/x",), ("a//b",), ("",), ("a\0",), (".",)]
)
def test_files_that_do_not_fit_into_one_directory_are_not_given_to_the_caller(names, tmp_path):
    header = wire.Result(job_id="j", outcome=Outcome.OK, files=names)
    result = to_result((header, [b"", b"", b"", *[b"content"] * len(names)]))
    assert (result.files, result.outcome, result.error.type) == ({}, Outcome.ERROR, "InvalidError")
    write_files(tmp_path, result.files)


def test_files_that_fit_are_given(tmp_path):
    names = ("a", "b/a", "b/c/d", "a b\n", "…")
    result = to_result(
        (wire.Result(job_id="j", outcome=Outcome.OK, files=names), [b"", b"", b"", *map(str.encode, names)])
    )
    assert result.ok
    write_files(tmp_path, result.files)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(names)


def test_a_result_that_the_client_refuses_has_no_grade():
    grade = wire.Grade(outcome=Outcome.OK, frames=2)
    frames = [b"", b"", b"", b"content", b"content", b"\x01", b"", b"\x63"]
    for names, expected in ((("a", "a/b"), None), (("a", "b"), 99)):
        result = to_result((wire.Result(job_id="j", outcome=Outcome.OK, files=names, grade=grade), frames))
        assert result.grade == expected
        assert (result.grade_error is None) == (expected is not None)

"""Grades are correct whatever the graded code does: real containers, a real daemon."""

import pytest

from pool import Limits, Outcome
from tests.hostile.payloads import forgery
from tests.support.daemons import pool_of

TEMPLATE = pool_of(
    2, preload=["numpy", "pandas"], recycle={"max_jobs": 1000}, limits={"wall_s": 30, "cpu_s": 30, "memory": "512m"}
)
#: What the grader knows and the graded code must not: the returns that positions earn, and a word to look for.
RETURNS = [0.01, -0.02, 0.03]
SECRET = "held-out"
POSITIONS = [1.0, 0.0, 0.0]
EARNED = 0.01
GRADE = """
import json, os, statistics
import numpy as np
import pandas as pd

def grade(positions, returns, secret):
    earned = pd.Series(positions, dtype=float).mul(pd.Series(returns)).sum()
    checks = [np.mean([1.0, 3.0]), pd.Series([1.0, 3.0]).mean(), statistics.mean([1.0, 3.0]), json.loads("2")]
    assert checks == [2.0] * 4 and os.listdir() == ["out"] and not os.listdir("out"), (checks, os.listdir())
    return round(float(earned), 9)
"""
ATTACKS = {
    "it patches numpy, pandas, statistics and json": """
import json, statistics
import numpy as np, pandas as pd
np.mean = statistics.mean = json.loads = lambda *_, **__: 99.0
pd.Series.mean = pd.Series.sum = pd.Series.mul = lambda *_, **__: 99.0
np.ndarray.__dict__
""",
    "it has functions with the grader's names": """
import builtins, sys
grade = lambda *_: 99.0
builtins.grade = builtins.sum = builtins.round = builtins.float = grade
sys.modules["__main__"].grade = grade
""",
    "it leaves modules and answers in files": """
import os, pathlib
for place in (".", "out", "/tmp", "/dev/shm", os.environ["TMPDIR"], os.environ["HOME"]):
    for name in ("numpy.py", "pandas.py", "json.py", "sitecustomize.py", "usercustomize.py", "grade.json", "job.py"):
        pathlib.Path(place, name).write_text("raise SystemExit(0)")
for path in pathlib.Path("out").iterdir():
    path.unlink()
""",
    "it writes an answer to every descriptor": """
import os
for number in range(256):
    try:
        os.write(number, b"WCP\\x02\\x81\\xa5grade\\xcb@X\\xc0\\x00\\x00\\x00\\x00\\x00" * 8)
    except OSError:
        pass
""",
    "it leaves processes that write on": """
import os, time
for _ in range(4):
    if os.fork() == 0:
        while True:
            for name in os.listdir("/proc/self/fd"):
                try:
                    os.write(int(name), b"99.0")
                    open("/tmp/grade", "w").write("99.0")
                except OSError:
                    pass
            time.sleep(0.001)
""",
    "it replaces what its own answer is made with": """
from pool import values, wire
from runner import answer, channel, program
values.encode = values.decode = lambda *_, **__: [b"\\xcb@X\\xc0\\x00\\x00\\x00\\x00\\x00"]
channel.send = program.run = answer.answer = lambda *_, **__: 99.0
""",
}
#: Looks for a word, which it builds so that no constant of it has it.
SEARCH = """
import gc, os

def texts():
    yield from [repr(each)[:2000] for each in gc.get_objects() if type(each) in (str, list, tuple, dict)]
    yield repr(dict(os.environ))
    yield from (name for _, _, names in os.walk("/tmp") for name in names)
    for number in os.listdir("/proc/self/fd"):
        yield os.readlink("/proc/self/fd/" + number) if os.path.lexists("/proc/self/fd/" + number) else ""

parts = ["held", "out"]
result = [text[:200] for text in texts() if "-".join(parts) in text]
"""


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_grade_stays_true(client, attack):
    code = f"result = {POSITIONS}\n{ATTACKS[attack]}"
    for _ in range(2):  # also for the next job of a worker
        result = client.run(code, grade=GRADE, grade_args=[RETURNS, SECRET], limits=Limits(wall_s=10))
        # The job may return any value; either it is graded correctly or it has no grade.
        assert result.grade == (EARNED if result.value == POSITIONS else None), result
        assert (result.grade is None) == (result.grade_error is not None), result
    honest = client.run(f"result = {POSITIONS}", grade=GRADE, grade_args=[RETURNS, SECRET])
    assert (honest.grade, honest.grade_error) == (EARNED, None)


@pytest.mark.parametrize("forged", forgery.FORGERIES, ids=lambda each: each.title)
def test_a_forged_answer_is_graded_for_what_it_says_or_not_at_all(client, forged):
    result = client.run(
        forgery.CODE + forged.code,
        grade="def grade(value, secret): return [value, secret]",
        grade_args=[SECRET],
        limits=Limits(wall_s=5, cpu_s=2),
    )
    assert result.grade == ([result.value, SECRET] if result.outcome is Outcome.OK else None), result


def test_the_graded_code_cannot_find_what_the_grader_knows(client):
    result = client.run(SEARCH, grade="def grade(found, secret): return len(found)", grade_args=[SECRET])
    assert (result.value, result.grade) == ([], 0), result
    itself = client.run(f"known = ['{SECRET}']\n{SEARCH}")
    assert itself.value, "the search finds what is there"

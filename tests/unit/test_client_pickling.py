"""A function in a process that has no file of it, as in the sandbox."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types

import cloudpickle
import pytest

from pool.client.pickling import pickled

SOURCE = """
def ratio(x):
    # nobody divides by this
    return 1 / x


class Strategy:
    def __init__(self):
        self.steps = [lambda x: ratio(x)]

    def score(self, x):
        return self.steps[0](x)
"""
#: What a job's process does with a pickle, without its isolation.
ELSEWHERE = """
import sys, traceback, cloudpickle
target = cloudpickle.loads(sys.stdin.buffer.read())
try:
    target(0)
except ZeroDivisionError:
    traceback.print_exc(file=sys.stdout)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The user's own code, whose file is gone by the time it runs."""
    file = tmp_path / "a_strategy.py"
    file.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("a_strategy")
    del sys.modules["a_strategy"]


@pytest.fixture(params=["kept", "replaced"])
def file_names(request, monkeypatch):
    """What cloudpickle does with the file name of code: 3.1.2 keeps it, 3.1.3 writes a constant."""
    table, reduce = cloudpickle.Pickler.dispatch_table, cloudpickle.Pickler.dispatch_table[types.CodeType]

    def reduced(code):
        made, arguments = reduce(code)
        now = made(*arguments).co_filename
        name = code.co_filename if request.param == "kept" else "<made up by the library>"
        return made, tuple(name if each == now else each for each in arguments)

    monkeypatch.setitem(table, types.CodeType, reduced)


def traceback_elsewhere(target, file):
    pickle = pickled(target)
    file.unlink()
    return run_elsewhere(pickle)


def run_elsewhere(pickle):
    command = [sys.executable, "-c", ELSEWHERE]
    return subprocess.run(command, input=pickle, capture_output=True, check=True, timeout=60).stdout.decode()


def test_a_traceback_shows_the_lines_of_functions_that_came_by_value(module, tmp_path, file_names):
    told = traceback_elsewhere(module.Strategy().score, file := tmp_path / "a_strategy.py")
    for name, line in (
        ("score", "return self.steps[0](x)"),
        ("<lambda>", "self.steps = [lambda x: ratio(x)]"),
        ("ratio", "return 1 / x"),
    ):
        number = next(at for at, each in enumerate(SOURCE.splitlines(), 1) if line in each)
        assert f'File "{file}", line {number}, in {name}\n    {line}\n' in told


def test_lines_of_what_is_not_called_stay_at_home(module):
    assert b"nobody divides" not in pickled(module.ratio)
    assert b"self.steps" not in pickled(module.ratio)


def test_a_function_whose_source_nobody_has_goes_without(file_names):
    space = {}
    exec(compile("def main(x): return 1 / x", "<made up>", "exec"), space)
    assert 'File "<made up>", line 1, in main\nZeroDivisionError' in run_elsewhere(pickled(space["main"]))

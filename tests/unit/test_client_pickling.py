"""Pickled callables, run in a process that has neither their modules nor their files."""

import importlib
import inspect
import pickle
import subprocess
import sys
import textwrap
import threading
import types
from functools import partial
from pathlib import Path

import cloudpickle
import pytest

from pool.client.pickling import is_users, pickled
from pool.errors import InvalidJobError

HELPERS = """
    import threading
    LOCK = None
    FACTOR = 3
    def triple(x):
        return x * FACTOR
    class Box:
        def __init__(self, x):
            self.x = x
"""
STRATEGY = """
    import math
    import enum
    import numpy as np
    import helpers_of_a_user
    from helpers_of_a_user import Box, triple
    class Side(enum.Enum):
        LONG = 1
    def score(x):
        box = Box(triple(x))
        return helpers_of_a_user.triple(box.x) + int(math.sqrt(4)) + int(np.ones(2).sum()) + Side.LONG.value
"""


@pytest.fixture
def strategy(tmp_path, monkeypatch):
    """A module of the user that uses another one, and is used by it."""
    (tmp_path / "helpers_of_a_user.py").write_text(textwrap.dedent(HELPERS))
    (tmp_path / "strategy_of_a_user.py").write_text(textwrap.dedent(STRATEGY))
    monkeypatch.syspath_prepend(tmp_path)
    import strategy_of_a_user

    strategy_of_a_user.helpers_of_a_user.back = strategy_of_a_user
    yield strategy_of_a_user
    for name in ("strategy_of_a_user", "helpers_of_a_user"):
        sys.modules.pop(name, None)


def elsewhere(frame, argument):
    """What the pickled callable returns, or its traceback, in a process that knows none of the user's modules."""
    program = (
        "import sys, traceback, cloudpickle\n"
        "target = cloudpickle.loads(sys.stdin.buffer.read())\n"
        "try: print(target(int(sys.argv[1])))\n"
        "except ZeroDivisionError: traceback.print_exc(file=sys.stdout)\n"
    )
    command = [sys.executable, "-I", "-c", program, str(argument)]
    return subprocess.run(command, input=frame, capture_output=True, check=False)


def test_a_function_of_the_users_own_modules_runs_where_they_do_not_exist(strategy):
    done = elsewhere(pickled(strategy.score), 2)
    assert done.stdout == b"23\n", done.stderr


def test_pickling_by_value_does_not_change_other_pickles_of_the_process(strategy):
    pickled(strategy.score)
    assert not cloudpickle.list_registry_pickle_by_value()
    assert cloudpickle.loads(cloudpickle.dumps(strategy.score)) is strategy.score
    assert pickle.loads(pickle.dumps(strategy.Box)) is strategy.Box


@pytest.mark.parametrize(
    ("module", "users"),
    [
        ("json", False),
        ("numpy.linalg", False),
        ("builtins", False),
        ("__main__", False),
        ("pool.model", True),
        ("", False),
    ],
)
def test_libraries_are_pickled_by_name(module, users):
    assert is_users(module) is users


def test_a_test_module_is_the_users_own():
    assert is_users(__name__)


def test_callables_of_every_kind_can_be_pickled():
    class Adder:
        def __init__(self, n):
            self.n = n

        def __call__(self, x):
            return x + self.n

        def add(self, x):
            return x + self.n

    for target in (lambda x: x + 1, partial(int.__add__, 1), Adder(1), Adder(1).add):
        done = elsewhere(pickled(target), 41)
        assert done.stdout == b"42\n", done.stderr


@pytest.mark.parametrize("thing", [threading.Lock(), sys.stdout, (each for each in ())])
def test_a_callable_that_refers_to_something_unpicklable_is_refused(thing):
    with pytest.raises(
        InvalidJobError, match=r"code: .* cannot be pickled: .*; what a function refers to goes with it"
    ):
        pickled(lambda: thing)


# ---- tracebacks ----

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


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The user's own code."""
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


def test_a_traceback_shows_the_lines_of_functions_that_were_pickled_by_value(module, tmp_path, file_names):
    frame = pickled(module.Strategy().score)
    (file := tmp_path / "a_strategy.py").unlink()
    traceback = elsewhere(frame, 0).stdout.decode()
    for name, line in (
        ("score", "return self.steps[0](x)"),
        ("<lambda>", "self.steps = [lambda x: ratio(x)]"),
        ("ratio", "return 1 / x"),
    ):
        number = next(at for at, each in enumerate(SOURCE.splitlines(), 1) if line in each)
        assert f'File "{file}", line {number}, in {name}\n    {line}\n' in traceback


def test_what_is_used_of_the_inside_of_cloudpickle_is_there_as_in_3_1():
    hint = (
        f"pool/client/pickling.py uses these functions as they are in cloudpickle 3.1.0 to 3.1.3. {cloudpickle.__version__} "
        "has changed them: adapt _Pickler there, or exclude this version in pyproject.toml"
    )
    for function, parameters in (
        (getattr(cloudpickle.Pickler, "_dynamic_function_reduce", None), ["self", "func"]),
        (getattr(cloudpickle.cloudpickle, "_dynamic_class_reduce", None), ["obj"]),
        (cloudpickle.Pickler.dispatch_table.get(types.CodeType), ["obj"]),
    ):
        assert function is not None, hint
        assert list(inspect.signature(function).parameters) == parameters, hint


def test_comments_and_other_functions_are_not_sent_with_a_function(module):
    assert b"nobody divides" not in pickled(module.ratio)
    assert b"self.steps" not in pickled(module.ratio)


def test_a_function_without_source_is_pickled_without_lines(file_names):
    space = {}
    exec(compile("def main(x): return 1 / x", "<made up>", "exec"), space)
    assert (
        'File "<made up>", line 1, in main\nZeroDivisionError' in elsewhere(pickled(space["main"]), 0).stdout.decode()
    )


DECORATED = """
    import functools, pickle
    @functools.lru_cache
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)
    @functools.singledispatch
    def show(x):
        return "object"
    @show.register
    def _(x: int):
        return "int"
    @show.register(list)
    def _(x):
        return [show(each) for each in x]
    class Box:
        def __init__(self, x):
            self.x = x
        def times(self, y):
            return self.x * y
        @functools.lru_cache
        def cached(self, y):
            return self.x * y
        @functools.cached_property
        def double(self):
            return 2 * self.x
        @functools.singledispatchmethod
        def kind(self, y):
            return "object"
        @kind.register
        def _(self, y: int):
            return "int"
        @classmethod
        def name(cls, y):
            return cls.__name__, y
    box = Box(3)
    def doubled(y):
        return box.double * y
    def copied(y):
        return type(pickle.loads(pickle.dumps(box))) is Box
    def local():
        class Local:
            def __init__(self, x, y):
                self.sum = x + y
        return Local
    def nested():
        import decorated_of_a_user as module
        def inner(y):
            return module.fib(y)
        return inner
    partial = functools.partial(lambda kind, x, y: kind(x, y).sum, local(), 1)
"""
EXPECTED = {
    "fib": "832040", "show": "'int'", "box.times": "90", "box.cached": "90", "doubled": "180", "box.kind": "'int'",
    "Box.name": "('Box', 30)", "copied": "True", "partial": "31", "nested()": "832040",
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_a_callable_travels_however_it_is_decorated(name, tmp_path, monkeypatch):
    (tmp_path / "decorated_of_a_user.py").write_text(textwrap.dedent(DECORATED))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("decorated_of_a_user")
    try:
        frame = pickled(eval(name, vars(module)))
    finally:
        del sys.modules["decorated_of_a_user"]
    done = elsewhere(frame, 30)
    assert done.stdout.decode() == f"{eval(EXPECTED[name])}\n", done.stderr


class _Held:
    def __init__(self, lock):
        self.inner = {"a": [1, lock]}


def test_what_cannot_travel_is_named_with_its_path_inside_the_callable():
    held = _Held(threading.Lock())
    path = "the attribute 'inner', the value of 'a', the item 1 (_thread.lock)"
    with pytest.raises(InvalidJobError) as caught:
        pickled(lambda: held)
    assert f"the variable 'held' of its closure, {path}" in str(caught.value)
    with pytest.raises(InvalidJobError) as caught:
        pickled(partial(print, held))
    assert f"the item 0, {path}" in str(caught.value)


def test_what_a_callable_takes_of_this_project_travels_by_value_or_is_refused_by_name():
    from pool.model import Limits, Outcome

    done = elsewhere(pickled(lambda x: Limits(wall_s=x).wall_s), 2)
    assert done.stdout == b"2.0\n", done.stderr
    with pytest.raises(InvalidJobError, match="the variable 'Outcome' of its closure"):
        pickled(lambda: Outcome.OK)


def _library(place, name, *, metadata):
    (place / name).mkdir(parents=True)
    (place / name / "__init__.py").write_text("def twice(x): return 2 * x\n")
    if metadata:
        info = place / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{name}/__init__.py,,\n{name}-1.0.dist-info/METADATA,,\n")


@pytest.mark.parametrize(
    ("directory", "metadata", "by_name"),
    [
        ("target", True, True),  # pip install --target, on PYTHONPATH
        ("conda/lib/python3.11/site-packages", False, True),
        ("usr/lib/python3/dist-packages", False, True),
        ("project", False, False),
    ],
)
def test_an_installed_library_travels_by_name_wherever_it_lies(tmp_path, monkeypatch, directory, metadata, by_name):
    name = f"library_in_{directory.partition('/')[0]}"
    _library(tmp_path / directory, name, metadata=metadata)
    monkeypatch.syspath_prepend(tmp_path / directory)
    library = importlib.import_module(name)
    try:
        frame = pickled(library.twice)
    finally:
        del sys.modules[name]
    monkeypatch.undo()
    done = elsewhere(frame, 4)
    assert (b"ModuleNotFoundError" in done.stderr) == by_name
    assert (done.stdout == b"8\n") != by_name


def test_numpy_in_a_directory_of_pythonpath_is_not_pickled_with_a_function_that_uses_it(tmp_path):
    import numpy as np

    home = Path(np.__file__).parents[1]
    for each in [home / "numpy", *home.glob("numpy-*.dist-info"), *home.glob("numpy.libs")]:
        (tmp_path / each.name).symlink_to(each)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy\n"
        "from pool.client.pickling import pickled\n"
        "assert numpy.__file__.startswith(sys.argv[1])\n"
        "sys.stdout.buffer.write(pickled(lambda x: float(numpy.ones(x).sum())))\n"
    )
    made = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=True)
    assert elsewhere(made.stdout, 3).stdout == b"3.0\n"

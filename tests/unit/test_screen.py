"""The screen: each rule refuses what it is meant for, and accepts similar harmless code."""

import ast
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import pool
from pool.config import loads
from pool.errors import ConfigError
from pool.screen import MAX_FINDINGS, RULES, Policy, check, examine
from pool.screen.policy import Modules
from pool.screen.rules import table
from pool.screen.vocabulary import STANDARD
from tests.support.process import python


def rules(code: str, screen: Policy | str = "standard") -> set[str]:
    return {found.rule for found in check(code, screen=screen)}


# ---- each rule, and a neighbour ----

NEIGHBOURS = [
    ("S101", "import os", "import numpy as np, math, collections.abc, urllib.parse"),
    ("S101", "import urllib.request", "from urllib import parse"),
    ("S101", "from os import path", "from concurrent.futures import ThreadPoolExecutor"),
    ("S102", "from .own import x", "from math import pi"),
    ("S103", "from io import *", "from math import *"),
    ("S104", "from random import _os", "from random import Random"),
    ("S104", "import numpy._core", "import numpy.linalg"),
    ("S201", "eval('1')", "import ast\nast.literal_eval('1')"),
    ("S201", "class A:\n    x = compile('1', '', 'eval')", "class A:\n    def compile(self): ...\nA().compile()"),
    ("S202", "open('/etc/passwd')", "open('data.csv')\nopen('out/x', 'w')\nopen(f'out/{1}.txt')\nopen('/dev/stdin')\nopen(0)"),
    ("S202", "open('../x')", "open('a..b')"),
    ("S202", "open(f'/proc/{1}')", "open('out/%d' % 1)"),
    ("S202", "open('~/x')", "open('a' + '.txt')"),
    ("S202", "def f(name):\n    open(name)", "with open('x') as file: pass"),
    ("S202", "name = '/etc/passwd'\nopen(name)", "name = 'data.csv'\ndef f():\n    return open(name)\nwith open(name) as file: pass"),
    ("S202", "name = 'x'\nname = input()\nopen(name)", "if 1:\n    name = 'x'\nelse:\n    name = 'out/y'\nopen(name, 'w')"),
    ("S202", "name = 'x'\nname += '/../../etc/passwd'\nopen(name)", "a = b = 'x'\nopen(b)"),
    ("S202", "name = 'x'\ndef f(name): open(name)", "name = 'x'\ndef f(other): open(name)"),
    ("S202", "name = 'x'\nfor name in ['/etc/passwd']: open(name)", "name = 'x'\nfor i in range(2): open(name)"),
    ("S202", "name = 'x'\nmatch '/etc/passwd':\n    case name: open(name)", "name = 'x'\nmatch 1:\n    case other: open(name)"),
    ("S202", "name = 'x'\n(name := '/etc/passwd')\nopen(name)", "name: str = 'y'\nopen(name)"),
    ("S202", "a = 'x'\nb = a\na = b\nopen(b)", "a = open('x')\na.close()"),
    ("S202", "open(9)", "open(1, 'w')"),
    ("S202", "open()", "open('x', encoding='utf-8')"),
    ("S202", "open('/x')", "def f(open, close):\n    return close - open"),
    ("S202", "def f():\n    return open", "def f(bar):\n    open = bar['open']\n    return [open for _ in bar]"),
    ("S202", "print(open)\nopen = 1", "open, close = 100.0, 101.5\nprint(close - open)\ndef f():\n    return open"),
    ("S203", "breakpoint()", "name = input()"),
    ("S203", "@input\ndef f(): ...", "from functools import cache\n@cache\ndef f(): ..."),
    ("S204", "globals()['x']", "def f(a):\n    return locals()"),
    ("S204", "locals()", "def f(a):\n    return '{a}'.format(**vars())"),
    ("S204", "import math\nvars(math)", "def f(a):\n    return vars(a)"),
    ("S205", "def f(a, n):\n    return getattr(a, n)", "def f(a):\n    return getattr(a, 'size', 0)"),
    ("S205", "getattr(1, '__cla' + 'ss__')", "def f(a, n):\n    return getattr(a, 'do_' + n)()"),
    ("S205", "def f(a, n):\n    return getattr(a, f'_{n}')", "def f(a, n):\n    return getattr(a, f'on_{n}')"),
    ("S205", "def f(a, n):\n    return getattr(a, 'gi_' + n)", "def f(a, n):\n    return getattr(a, 'go_%s' % n)"),
    ("S205", "g = getattr", "class A:\n    def get(self, n):\n        return getattr(self, n)"),
    ("S205", "import math\nsetattr(math, n, 1)", "def f(a, **k):\n    for n in k:\n        setattr(a, n, k[n])"),
    ("S205", "from operator import attrgetter\nattrgetter('a.__class__')", "from operator import attrgetter\nattrgetter('a.b')"),
    ("S206", "__builtins__", "print(__name__, __doc__)\n__version__ = '1'\nprint(__version__)"),
    ("S206", "__loader__", "__mine__ = 1\nprint(__mine__)"),
    ("S207", "class A:\n    def __class_getitem__(cls, x): ...", "class A:\n    def __getitem__(self, x): ..."),
    ("S208", "class A(metaclass=f()): ...", "from abc import ABCMeta\nclass A(metaclass=ABCMeta): ..."),
    ("S301", "x.__subclasses__()", "class A:\n    def __init__(self):\n        super().__init__()\nA.__name__"),
    ("S301", "().__class__", "class A:\n    def __repr__(self):\n        return self.__class__.__name__"),
    ("S301", "import math\nmath.__dict__", "class A:\n    def __eq__(self, o):\n        return self.__dict__ == o.__dict__"),
    ("S301", "x.__blue__", "class A:\n    def __blue__(self): ...\nA().__blue__()"),
    ("S301", "class A:\n    def __globals__(self): ...\nf.__globals__", "class A:\n    __slots__ = ('a',)\nA.__slots__"),
    ("S301", "object.__getattribute__(x, 'a')", "class A:\n    def __getattribute__(self, n):\n        return object.__getattribute__(self, n)"),
    ("S302", "g.gi_frame", "gi_frame = 1\nx.frame, x.f_max"),
    ("S303", "import random\nrandom._inst", "class A:\n    def f(self):\n        return self._inst"),
    ("S304", "import sys\nsys.modules", "import sys\nn = int(sys.stdin.readline()); sys.setrecursionlimit(9999); sys.exit(0)"),
    ("S304", "import sys as s\ns.settrace(print)", "from sys import stdin, argv, maxsize"),
    ("S104", "from sys import modules", "import sys\nsys.stdout = open('out/x', 'w')"),
    ("S304", "import gc\ngc.get_objects()", "import gc\ngc.disable(); gc.collect(); gc.enable()"),
    ("S104", "from gc import get_referrers", "import atexit\natexit.register(print, 'end')"),
    ("S205", "import sys\ngetattr(sys, 'modules')", "import sys\ngetattr(sys, 'stdin')"),
    ("S205", "import numpy as np\ngetattr(np, 'f2py')", "import numpy as np\ngetattr(np, 'sum')"),
    ("S304", "import warnings\nwarnings.sys", "import numpy as np\nnp.random.default_rng(1), np.trace, np.select"),
    ("S304", "import numpy as np\nnp.f2py", "f2 = 1\nimport numpy as np\nnp.float64"),
    ("S304", "import six\nsix.exec_('1')", "import six\nsix.print_(six.PY3)"),
    ("S304", "import six\nsix.moves.cPickle.loads(b'')", "from six.moves import range, zip\nrange(3)"),
    ("S104", "from six.moves import urllib", "import six\nsix.moves.input"),
    ("S304", "import numpy as np\nnp.rec.fromfile('x')", "import numpy as np\nnp.rec.array([1])"),
    ("S304", "import urllib.parse\nurllib.request", "import urllib.parse\nurllib.parse.quote('a')"),
    ("S304", "import urllib.parse\nx = urllib", "import urllib.parse as u\nx = u"),
    ("S305", "import pandas as pd\npd.DataFrame().to_pickle('x')", "import pandas as pd\npd.DataFrame().to_dict()"),
    ("S306", "match x:\n    case NameError(obj=o): ...", "match x:\n    case Point(obj=o): ..."),
    ("S401", "'{0.__class__}'.format(1)", "'{0.name} {x[a]:>{w}} {{}}'.format(1)"),
    ("S401", "t = '{a.b.gi_frame}'", "t = '{\"a\": [1, 2], \"__init__\": 1}'"),
    ("S402", "x['__builtins__']", "if __name__ == '__main__':\n    '''__builtins__'''"),
    ("S402", "x['__globals' '__']", "x['__init__'], x['globals']"),
    ("S402", "x['__glo' + 'bals__']", "x['glo' + 'bals']"),
    ("S402", "x[b'__globals__'.decode()]", "x[b'globals'.decode()]"),
    ("S403", "df.query('@a.b > 1')", "df.query('x > @a and y.str.len() > 2')"),
    ("S403", "df.eval(f'b = @{name}.c')", "df.query(f'a > {limit} and @{name} < 3')"),
    ("S103", "from operator import *", "from itertools import *"),
    ("S103", "from typing import *\ndef f(): return get_type_hints(f)", "from typing import *\ndef f(x: List[int]) -> Optional[int]: ..."),
    ("S103", "from string import *\nx = Formatter", "from string import *\nprint(ascii_lowercase)"),
    ("S304", "import logging\nlogging.io.open", "import pandas as pd\npd.pandas.DataFrame"),
    ("S404", "def f(x: 'g()'): ...", "def f(x: 'np.ndarray', y: 'float (0, 1)') -> 'list[int]': ..."),
    ("S405", "import pandas as pd\npd.read_csv('https://a.b/c')", "import io, pandas as pd\npd.read_csv(io.StringIO('a'))"),
    ("S501", "#" * 262_145, "#" * 262_144),
    ("S502", "x = " + "-" * 100_000 + "1", "x = " + "-" * 50 + "1"),
    ("S503", "x = 1\0", r"x = '\0'"),
    ("S503", "x = '\udc80'", r"x = '\udc80'"),
    ("S504", "# coding: rot13", "# -*- coding: latin-1 -*-"),
    ("S504", "\n# vim: fileencoding=utf-7", "x = 1\n# vim: fileencoding=utf-7"),
    ("S505", "x = '\u202e'", "x = '\u05d0'"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "refused", "honest"), NEIGHBOURS)
def test_a_rule_refuses_what_it_is_meant_for_and_not_similar_harmless_code(rule, refused, honest):
    assert rule in rules(refused)
    assert check(honest) == []


STRICT = [
    ("S101", "import asyncio", "import numpy, pandas, math"),
    ("S103", "from math import *", "from math import sin"),
    ("S203", "input()", "def f(input):\n    return input"),
    ("S204", "def f(a):\n    return locals()", "def f(dir):\n    return dir"),
    ("S205", "getattr(a, 'size')", "a.size"),
    ("S205", "hasattr(a, 'size')", "isinstance(a, int)"),
    ("S208", "class M(type): ...\nclass A(metaclass=M): ...", "import abc\nclass A(metaclass=abc.ABCMeta): ..."),
    ("S209", "type('A', (), {})", "type(a)"),
    ("S301", "self.__dict__", "self.__class__.__name__"),
    ("S303", "a._hidden", "class A:\n    def __init__(self):\n        self._mine = 1\n    def f(self):\n        return self._mine"),
    ("S303", "match a:\n    case P(_x=1): ...", "match a:\n    case P(x=1): ..."),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "refused", "honest"), STRICT)
def test_strict_refuses_more_and_not_similar_harmless_code(rule, refused, honest):
    assert rule in rules(refused, "strict")
    assert rule not in rules(refused)
    assert check(honest, screen="strict") == []


def test_every_rule_is_tested():
    assert {rule for rule, *_ in (*NEIGHBOURS, *STRICT)} | {"S210"} == set(RULES)


# ---- findings ----


def test_a_finding_says_where_why_and_what_to_do_instead():
    (found,) = check("x = 1\ny = 'é' + f(eval)\n")
    assert (found.rule, found.line, found.column) == ("S201", 2, 13)
    assert found.reason == "eval runs text as code"
    assert "ast.literal_eval" in found.remedy
    assert str(found).startswith("2:13 S201 eval runs text as code; ")


def test_an_attribute_is_reported_where_its_own_name_stands():
    assert [(f.line, f.column) for f in check("x = (a\n     .b.__globals__)")] == [(2, 9)]


def test_findings_are_in_the_order_of_the_text_and_at_most_a_hundred():
    found = check("def f():\n    import os\n" + "eval; open\n" * 200)
    assert len(found) == MAX_FINDINGS
    assert [(f.line, f.column) for f in found] == sorted((f.line, f.column) for f in found)
    assert found[0].rule == "S101"


def test_a_finding_about_hostile_text_is_short_and_printable():
    code = f"import {'a' * 5000}\nx = '{{0.__\x1b\u2028__}}'"
    findings = check(code)
    assert len({found.line for found in findings}) == 2
    for found in findings:
        assert len(found.reason) < 200
        assert found.reason.isprintable()


@pytest.mark.parametrize(
    "code", ["x = (", "def f(:", "(" * 10_000, "x = " + "9" * 10_000, "\tx\n y", "\ufeff\ufeffx = 1"]
)
def test_what_is_no_python_stays_a_syntax_error(code):
    with pytest.raises(SyntaxError):
        check(code)


@pytest.mark.parametrize("code", ["\ufeffimport socket", "\ufeffimport socket".encode()])
def test_a_byte_order_mark_is_passed_over(code):
    assert [(found.line, found.column) for found in check(code)] == [(1, 8)]


def test_bytes_are_utf_8_whatever_a_cookie_claims():
    assert check("x = 'é'".encode()) == []
    assert [f.rule for f in check(b"# coding: latin-1\nx = '\xe9'")] == ["S503"]


def test_the_place_of_a_nul_is_told():
    assert [(f.line, f.column) for f in check("a = 1\nb = \0")] == [(2, 5)]


# ---- nothing is executed ----


def test_nothing_of_the_code_is_executed(tmp_path):
    mark = tmp_path / "mark"
    touch = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    code = (
        f"@{touch}\nclass A(metaclass={touch}):\n    x: {touch} = {touch}\n"
        f"def f(a={touch}) -> {touch}: ...\nx = f'''{{{touch}}}'''\n"
    )
    assert "S201" in rules(code)
    assert not mark.exists()


def test_a_check_gives_no_warnings_and_examine_those_of_compile():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert check(r"x = '\d'") == []
        assert not seen
        examine(r"x = '\d'", Policy())
        assert len(seen) == 1


def test_constants_that_would_not_fit_into_memory_are_not_folded():
    reading = examine("x = 9**9**9\ny = 'a' * 10**10\nz = (1,) * 10**9", Policy())
    assert reading.findings == ()
    compile(reading.program, "<job>", "exec")


# ---- what a child compiles ----


def test_what_examine_returns_compiles_to_the_program():
    reading = examine("from __future__ import annotations\n'doc'\nx = 6 * 7\n", Policy())
    space: dict[str, object] = {}
    exec(compile(reading.program, "<job>", "exec", dont_inherit=True), space)
    assert isinstance(reading.program, ast.Module)
    assert space["x"] == 42


@pytest.mark.parametrize("code", ["eval('1')", "x\0", "x = (", "y" * 1_000_000])
def test_a_screen_that_is_off_refuses_nothing(code):
    assert examine(code, Policy(mode="off")) == type(examine("", Policy(mode="off")))(code, ())


def test_a_syntax_error_carries_the_file_name_of_the_job():
    with pytest.raises(SyntaxError) as caught:
        examine("x = (", Policy(), filename="<job>")
    assert caught.value.filename == "<job>"


# ---- what is behind the modules that are allowed ----


def behind(module: str) -> set[tuple[str, str]]:
    """All modules by public names from this one, through what the screen lets through: path and real name."""
    modules, found, waiting = Modules(Policy()), set(), [(module, import_module(module))]
    while waiting:
        path, at = waiting.pop()
        for name, value in vars(at).items():
            below = f"{path}.{name}"
            seen = isinstance(value, ModuleType) and not name.startswith("_") and below.count(".") < 4
            if seen and modules.allows(below) and not modules.denies_member(below):
                found.add((below, value.__name__))
                waiting.append((below, value))
    return found


@pytest.mark.parametrize(
    "module", sorted(name for name in STANDARD if name.partition(".")[0] in sys.stdlib_module_names)
)
def test_no_public_name_of_an_allowed_module_leads_to_one_that_is_not(module):
    if find_spec(module) is None:
        pytest.skip("not in this version of Python")
    modules = Modules(Policy())
    assert {path for path, real in behind(module) if not modules.allows(real)} == set()


# ---- policy ----


def test_a_pool_can_allow_modules_and_all_below_them():
    allowed = Policy(allow_modules=("os.path", "yaml"))
    assert (
        rules(
            "from os import path\nimport os.path as p, yaml.nodes\np.join('a')\nimport os.path\nos.path.join", allowed
        )
        == set()
    )
    assert rules("import os.path\nos.system('x')", allowed) == {"S304"}
    assert rules("import os.path\nx = os", allowed) == {"S304"}
    assert rules("import os", allowed) == {"S101"}


def test_a_library_that_a_pool_allows_keeps_its_refused_parts_until_they_are_named():
    code = "import numpy as np\nnp.f2py.x; np.load"
    assert rules(code, Policy(allow_modules=("numpy",))) == {"S304"}
    assert rules("import numpy.f2py", Policy(allow_modules=("numpy",))) == {"S101"}
    assert rules("import numpy\nnumpy.x.os", Policy(allow_modules=("numpy",))) == {"S304"}
    assert rules(code, Policy(allow_modules=("numpy.f2py", "numpy.load"))) == set()


def test_a_module_that_is_allowed_may_be_reached_through_another():
    assert rules("import warnings\nwarnings.sys.maxsize", Policy(allow_modules=("sys",))) == set()


def test_a_pool_can_deny_modules_and_what_is_below_them():
    denied = Policy(allow_modules=("yaml",), deny_modules=("pandas", "numpy.random", "yaml"))
    assert rules("import pandas as pd", denied) == {"S101"}
    assert rules("import yaml", denied) == {"S101"}
    assert rules("import numpy.random", denied) == {"S101"}
    assert rules("import numpy as np\nnp.random.rand()", denied) == {"S304"}
    assert rules("import numpy as np\nnp.sum", denied) == set()


def test_a_pool_can_allow_names():
    allowed = Policy(allow_names=("open", "load", "__subclasses__", "_inst"))
    assert rules("import random, numpy\nopen('x'); numpy.load; A.__subclasses__(); random._inst", allowed) == set()
    assert rules("from numpy import load\ngetattr(A, '__subclasses__')", allowed) == set()


def test_a_pool_can_deny_names():
    denied = Policy(deny_names=("print", "to_csv", "sqrt"))
    assert rules("print(1)", denied) == {"S210"}
    assert rules("df.to_csv('x')", denied) == {"S210"}
    assert rules("from math import sqrt", denied) == {"S210"}
    assert rules("def f(print):\n    return print", denied) == set()


def test_a_policy_travels_as_json():
    policy = Policy(mode="strict", allow_modules=("scipy",), deny_names=("print",))
    assert Policy.from_json(policy.to_json()) == policy
    assert Policy.from_json("{}") == Policy()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"mode": "lax"}', '{"allow_modules": "os"}', '{"deny_names": [1]}', '{"x": 1}', "[" * 100_000]
)
def test_a_policy_that_is_none_is_refused(text):
    with pytest.raises(ConfigError):
        Policy.from_json(text)


# ---- as a user has it ----


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("import requests", "a job has no network; give it the data as arguments, files or data sets"),
        (
            "from urllib.request import urlopen",
            "a job has no network; give it the data as arguments, files or data sets",
        ),
        ("import tkinter.ttk", "a job has no screen and no keyboard; return the values"),
        ("import subprocess", "`allow: [subprocess], screen: {allow_modules: [subprocess]}`"),
        (
            "import lightgbm",
            "add `screen: {allow_modules: [lightgbm]}` to the pool, whose image or the job's files must have it",
        ),
    ],
)
def test_the_remedy_for_a_module_that_needs_more_than_the_screen_says_what(code, remedy):
    (found,) = check(code)
    assert found.rule == "S101"
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("code", "reason", "setting"),
    [
        (
            "import matplotlib",
            "this pool does not allow the module matplotlib",
            "screen: {allow_modules: [matplotlib]}",
        ),
        ("from os import path", "this pool does not allow the module os", "screen: {allow_modules: [os]}"),
        (
            "open('/x')",
            "this pool refuses open() of what is not seen to be in the work directory",
            "screen: {allow_names: [open]}",
        ),
        ("import random; random._inst", "_inst is private", "screen: {allow_names: [_inst]}"),
        (
            "import numpy; numpy.load('x.npz')",
            "numpy.load is a part of its module that a job may not use",
            "screen: {allow_modules: [numpy.load]}",
        ),
        (
            "from numpy import load",
            "numpy.load is a part of its module that is private or that a job may not use",
            "screen: {allow_modules: [numpy.load]}",
        ),
    ],
)
def test_a_setting_that_a_remedy_names_lets_the_code_pass(code, reason, setting):
    (found,) = check(code)
    assert found.reason == reason
    assert f"add `{setting}` to the pool" in found.remedy
    pool_settings = loads(f"pools: {{default: {{{setting}}}}}").pools["default"]
    assert check(code, screen=Policy(**pool_settings.screen.model_dump())) == []


def test_the_documentation_has_the_rules_as_they_are():
    assert table() in (Path(__file__).parents[2] / "docs" / "screen.md").read_text(encoding="utf-8")


def test_pool_check_is_the_screen_and_needs_no_socket_library():
    assert [found.rule for found in pool.check("import os", screen="strict")] == ["S101"]
    code = "import sys, pool; pool.check('import os'); print({'zmq', 'msgspec', 'docker', 'numpy'} & set(sys.modules))"
    assert python("-c", code, check=True).stdout == "set()\n"

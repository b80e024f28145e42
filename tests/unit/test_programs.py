"""A job's program runs as `python job.py` runs it: what it sees of the interpreter, and how it ends.

The same programs run in a plain interpreter where the outcome can be compared. Workers are plain processes here;
tests/docker/test_programs.py has what depends on the container.
"""

import re

import pytest

from pool.errors import InvalidJobError
from pool.model import Limits, Outcome
from tests.support.daemons import module_daemon, pool_of
from tests.support.process import python

POOL = pool_of(1, screen="off", limits={"wall_s": 20})
daemon = module_daemon({"default": POOL, "screened": POOL | {"screen": "standard"}})


def plainly(tmp_path, code, *argv, stdin="", files=None):
    """The same program in a plain interpreter."""
    (tmp_path / "job.py").write_text(code)
    (tmp_path / "out").mkdir()
    for name, content in (files or {}).items():
        (tmp_path / name).write_bytes(content)
    return python("job.py", *argv, cwd=tmp_path, input=stdin)


PROGRAMS = {
    "unittest finds its tests": """
import sys, unittest
class T(unittest.TestCase):
    def test_one(self): self.assertEqual(1, 1)
if __name__ == "__main__":
    unittest.main(testRunner=unittest.TextTestRunner(stream=open("/dev/null", "w")), exit=False)
    print(len(unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])._tests))
""",
    "unittest fails": """
import unittest
class T(unittest.TestCase):
    def test_one(self): self.fail()
unittest.main()
""",
    "doctest": 'def f():\n    """\n    >>> f()\n    1\n    """\n    return 1\nimport doctest; print(doctest.testmod())\n',
    "loader": "print(type(__loader__).__name__, __loader__.get_source('__main__'), __loader__.is_package('__main__'))",
    "data beside the program": "open('d.txt', 'w').write('x')\nimport pkgutil; print(pkgutil.get_data('__main__', 'd.txt'))",
    "getsource": "import inspect\ndef f(): return 1\nclass C:\n    x = 1\nprint(inspect.getsource(f), inspect.getsource(C))\n",
    "pickle of its own classes": "import pickle\nclass C: pass\nc = pickle.loads(pickle.dumps(C()))\nprint(type(c) is C, C.__module__)\n",
    "dataclasses and hints": """
from __future__ import annotations
import dataclasses, typing
@dataclasses.dataclass
class P:
    x: int
    y: P | None = None
print(dataclasses.asdict(P(1, P(2))), typing.get_type_hints(P))
""",
    "multiprocessing": """
import multiprocessing as mp
def square(x): return x * x
if __name__ == "__main__":
    with mp.get_context("fork").Pool(2) as pool: print(pool.map(square, range(4)))
""",
    "arguments": "import argparse, sys\np = argparse.ArgumentParser(); p.add_argument('--n', type=int, default=3)\nprint(p.parse_args(), p.prog, sys.argv)\n",
    "fileinput": "import fileinput\nprint([line for line in fileinput.input()])\n",
    "its own file": "import os, pathlib\nprint(open(__file__).read() == pathlib.Path('job.py').read_text(), os.path.basename(__file__))\n",
    "path": "import os, sys\nprint(os.path.samefile(sys.path[0], '.'), sys.modules['__main__'].__name__, vars() is vars(sys.modules['__main__']))\n",
    "destructors": "class A:\n    def __del__(self): print('gone')\na = A()\nprint('end')\n",
    "exit handlers": "import atexit\natexit.register(print, 'first registered')\natexit.register(print, 'second')\nprint('end')\n",
    "exit handlers after an exception": "import atexit\natexit.register(print, 'called')\n1 / 0\n",
    "exit in an exit handler": "import atexit, sys\natexit.register(sys.exit, 3)\nprint('end')\n",
    "exit in a thread": "import sys, threading\nt = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()\nprint('end')\n",
    "exit with an object": "import sys\nsys.exit([1, 2])\n",
    "exit with a text": "import sys\nsys.exit('no input')\n",
    "threads are joined": "import threading, time\ndef work():\n    time.sleep(0.3); print('thread done')\nthreading.Thread(target=work).start()\nprint('end')\n",
    "replaces its main module": "import sys, types\nsys.modules['__main__'] = types.ModuleType('__main__')\nprint('end')\n",
    "logging at the end": "import logging, logging.handlers\nh = logging.handlers.MemoryHandler(100, target=logging.FileHandler('out/log'))\nlogging.getLogger().addHandler(h)\nlogging.getLogger().warning('kept')\nprint('end')\n",
    "recursion": """
import sys
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
print(depth(990), sys.getrecursionlimit())
sys.setrecursionlimit(100)
print(depth(90), sys.getrecursionlimit())
try: depth(101)
except RecursionError: print("too deep")
for limit in 0, -1, "many", 2**31 - 1:
    try: sys.setrecursionlimit(limit)
    except (TypeError, ValueError) as error: print(error)
""",
    "recursion as deep as it can be": """
depth = 0
def deeper():
    global depth
    depth += 1
    deeper()
try: deeper()
except RecursionError: print(depth)
""",
    "exception in a destructor": """
class A:
    def __del__(self):
        raise ValueError(self)
    def __repr__(self): return "A"
a = A()
del a
A()
print("end")
""",
    "destructors in the order of the names": """
class A:
    def __init__(self, name): self.name = name
    def __del__(self): print("end of", self.name)
a = A("a"); _b = A("b"); c = [A("c")]
""",
    "destructors in the order in which the objects were made": """
class R:
    def __init__(self, name, other=None): self.name, self.other = name, other
    def __del__(self): print("end of", self.name, self.other and self.other.name)
many = [R(1), R(2)]
first = R(3)
second = R(4, first)
z, y = R(5), R(6)
z.other, y.other = y, z
class C: attribute = R(7)
""",
    "destructors while the collector is off": """
import gc
gc.disable()
class R:
    def __init__(self, name): self.name = name
    def __del__(self): print("end of", self.name)
many = [R(1), R(2)]
first = R(3)
""",
    "destructors of what a signal's handler holds": """
import signal
class R:
    def __del__(self): print("gone")
def handler(*_): return a
signal.signal(signal.SIGUSR1, handler)
a = R()
""",
    "no destructors of what a hook holds": """
import sys
class R:
    def __del__(self): print("gone")
sys.excepthook = lambda *_: None
a = R()
print("end")
""",
    "a module that another one holds": """
open('m.py', 'w').write('class R:\\n    def __init__(self, name): self.name = name\\n    def __del__(self): print(self.name, kept)\\nkept, _first, last = 1, R("first"), R("last")\\n')
import m, threading
threading.held = m
mine = m.R("mine")
""",
    "an exit handler after others were removed": "import atexit\natexit.register(print, 1)\natexit._clear()\natexit.register(print, 2)\n",
    "the defaults of decimal": "import decimal\ndecimal.DefaultContext.prec = 50\nprint(decimal.Decimal(1) / 3)\n",
    "the recursion limit in threads": """
import sys, threading
def deepest(n):
    try: return deepest(n + 1)
    except RecursionError: return n
sys.setrecursionlimit(300)
thread = threading.Thread(target=lambda: print(deepest(0)))
thread.start()
thread.join()
print(sys.setrecursionlimit, deepest(0))
""",
    "a destructor that needs a module, a function and a list": """
import math
log = []
def tell(text): print(text, math.pi, log)
class A:
    def __del__(self):
        log.append(1)
        tell("end")
a = A()
""",
    "a generator that is not at its end": "def g():\n    try: yield 1\n    finally: print('closed')\nx = g()\nnext(x)\n",
    "a destructor in a module of its own": "open('m.py', 'w').write('class A:\\n    def __del__(self): print(len(\"ab\"))\\na = A()\\n')\nimport m\nprint('end')\n",
    "output of a library in C": "import ctypes\nprint('a', flush=True)\nctypes.CDLL(None).printf(b'not flushed')\n",
    "finalizers": "import weakref\nclass A: pass\na, b = A(), A()\nweakref.finalize(a, print, 'a')\nweakref.finalize(b, print, 'b')\n",
    "import of itself": "import importlib\nprint(__name__, importlib.import_module('job').__name__ if __name__ == '__main__' else '')\n",
    "an interrupt": "print('x')\nraise KeyboardInterrupt\n",
    "SIGINT": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('no')\n",
    "SIGINT, ignored": "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nos.kill(os.getpid(), signal.SIGINT)\nprint('x')\n",
    "a timer's handler": "import signal, time\nsignal.signal(signal.SIGALRM, lambda *a: print('alarm'))\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\nsignal.pause()\nprint('end')\n",
    "a wrong command line": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--n', required=True)\np.parse_args()\n",
    "input at the end of stdin": "try: input('name? ')\nexcept EOFError as error: print(error)\ninput()\n",
    "a hook for threads": "import threading\nthreading.excepthook = lambda a: print(a.exc_type, a.thread.name)\nt = threading.Thread(target=lambda: 1 / 0, name='T')\nt.start()\nt.join()\n",
    "temporary files": "import os, tempfile\nwith tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile(dir=d) as f: print(os.listdir(d) == [os.path.basename(f.name)])\nprint(os.path.exists(d))\n",
    "runpy": "import runpy\nopen('m.py', 'w').write('a = 1\\nprint(__name__)')\nprint(runpy.run_path('m.py')['a'], runpy.run_module('m')['a'])\n",
    "resources of a package": "import importlib.resources as r, os\nos.mkdir('pk')\nopen('pk/__init__.py', 'w').close()\nopen('pk/d', 'w').write('hi')\nprint(r.files('pk').joinpath('d').read_text())\n",
    "context variables": "import contextvars\nv = contextvars.ContextVar('v', default=1)\nprint(contextvars.copy_context().run(lambda: (v.set(5), v.get())[1]), v.get())\n",
    "tracemalloc": "import tracemalloc\ntracemalloc.start()\nx = [0] * 10000\nprint([s.traceback[0].lineno for s in tracemalloc.take_snapshot().statistics('lineno') if s.size > 70000])\n",
    "exception in an exit handler": "import atexit\n@atexit.register\ndef last():\n    raise ValueError('late')\nprint('end')\n",
    "exception in a thread": "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='W')\nt.start()\nt.join()\nprint('end')\n",
    "the last exception": "import atexit, sys\n@atexit.register\ndef end(): print(sys.last_type, sys.last_value, sys.last_traceback.tb_lineno)\n1 / 0\n",
    "an object of a function that failed": "class A:\n    def __del__(self): print('gone')\ndef f():\n    a = A()\n    1 / 0\nf()\n",
    "hook for exceptions": "import sys\nsys.excepthook = lambda kind, error, trace: print(kind.__name__, error, trace.tb_lineno)\n1 / 0\n",
    "names of the streams": "import sys\nprint([(s.name, s.mode, s.newlines) for s in (sys.stdin, sys.stdout, sys.stderr)], sys.stdin)\n",
    "handling of what is not UTF-8": "import sys\nprint(sys.stdin.errors, sys.stdout.errors, sys.stderr.errors)\n",
    "the main thread": "import os, threading\nt = threading.main_thread()\nprint(t.native_id == os.getpid(), t.ident == threading.get_ident())\n",
    "the stack": "import inspect, sys\ndef f(): return [each.function for each in inspect.stack()]\nprint(f(), sys._getframe().f_back, sys.getprofile())\n",
    "frames that are not there": "import sys\ntry: sys._getframe(1)\nexcept ValueError as error: print(error)\n",
    "a logger's caller": "import logging, sys\nlogging.basicConfig(format='%(funcName)s %(lineno)d', stream=sys.stdout)\nlogging.error('x', stacklevel=5)\n",
    "pickles of the main module of multiprocessing": "import multiprocessing, sys\nprint(sys.modules['__mp_main__'] is sys.modules['__main__'])\n",
    "source of the whole program": "import inspect, sys\nprint(inspect.getsource(sys.modules['__main__']))",
    "second stream": "import os\nf = os.fdopen(1, 'w', closefd=False)\nf.write('second\\n')\n",
    "wrapped stdout": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, write_through=False)\nprint('wrapped')\n",
}


def _no_address(text):
    return re.sub("0x[0-9a-f]+", "0x", text)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_and_ends_as_in_a_plain_interpreter(client, name, tmp_path):
    plain, result = plainly(tmp_path, PROGRAMS[name]), client.run(PROGRAMS[name])
    assert result.stdout == plain.stdout, (plain.stderr, result.error)
    if name.startswith(("exit with", "exit in a thread", "exception in")):
        assert _no_address(result.stderr) == _no_address(plain.stderr).replace(str(tmp_path / "job.py"), "<job>")
    ended = -result.signal if result.signal else result.exit_code or int(not result.ok)
    assert ended == plain.returncode
    assert result.ok == (plain.returncode == 0)


#: What is told on stderr, with the error of the result after it.
TOLD = {
    "the last line has no end": "print(undefined)",
    "an error of the compiler": "x = 1\nreturn x\n",
    "another error of the compiler": "def f(a, a): pass\n",
    "an error of the parser": "x = (1,\ny = 2\n",
    "endless recursion": "def f(n): return f(n + 1)\nf(0)\n",
    "recursion through the interpreter": "class A:\n    def __repr__(self): return repr(self)\nA().__repr__()\n",
    "an exception that is derived from KeyboardInterrupt": "class K(KeyboardInterrupt): pass\nraise K('x')\n",
    "a hook that is None": "import sys\nsys.excepthook = None\n1 / 0\n",
    "a hook that raises": "import sys\ndef hook(*a): raise ValueError('in the hook')\nsys.excepthook = hook\n1 / 0\n",
    "a recursion limit that is no int": "import sys\nsys.setrecursionlimit(1e6)\n",
    "an error with a recursion limit of 9": "import sys\nsys.setrecursionlimit(9)\nvalue = 1\nvaleu\n",
    "a recursion limit that is too low": "import sys\ndef f(n): return f(n - 1) if n else sys.setrecursionlimit(10)\nf(50)\n",
    "a coroutine that is never awaited": "async def f(): pass\nkept = f()\n",
    "a socket that is never closed": "import os, socket, warnings\nwarnings.simplefilter('always')\na, b = socket.socketpair()\nos.dup2(a.detach(), 77)\nb.close()\nc = socket.socket(fileno=77)\n",
    "a hook that is missing": "import sys\ndel sys.excepthook\n1 / 0\n",
    "the stack": "import traceback\ndef f(): traceback.print_stack()\nf()\n",
    "the stack in a log": "import logging\ndef f(): logging.warning('x', stack_info=True)\nf()\n",
    "a message that does not fit its arguments": "import logging\nlogging.warning('%d', 'x')\n",
    "a warning about what is not there": "import warnings\nwarnings.warn('x', stacklevel=9)\nwarnings.warn('y')\n",
    "the stack as faulthandler shows it": "import faulthandler\ndef f(): faulthandler.dump_traceback(all_threads=False)\nf()\n",
}


@pytest.mark.parametrize("name", TOLD)
def test_what_a_program_tells_of_its_errors_and_its_stack_is_what_a_plain_interpreter_tells(client, name, tmp_path):
    plain, result = plainly(tmp_path, TOLD[name]), client.run(TOLD[name])
    told = result.stderr + (result.error.traceback if result.error else "")
    assert _no_address(told) == _no_address(plain.stderr).replace(str(tmp_path / "job.py"), "<job>")
    assert (result.exit_code or int(not result.ok)) == plain.returncode


@pytest.mark.parametrize("name", [name for name in TOLD if name.startswith(("an error", "another error"))])
def test_a_syntax_error_is_told_in_the_same_way_where_the_screen_has_parsed_the_program(client, name, tmp_path):
    plain = plainly(tmp_path, TOLD[name]).stderr.replace(str(tmp_path / "job.py"), "<job>")
    assert client.run(TOLD[name], pool="screened").error.traceback == plain


HOOKS = {
    "sys.exit": ("import sys\nsys.excepthook = lambda *_: sys.exit(5)\n1 / 0\n", ""),
    "sys.exit(0)": ("import sys\nsys.excepthook = lambda *_: sys.exit(0)\n1 / 0\n", ""),
    "the interpreter's own": (
        "import sys\nown = sys.excepthook\nsys.excepthook = lambda *a: own(*a)\nvalue = 1\nvaleu\n",
        "Did you mean: 'value'?",
    ),
    "an exit with a text": ("class E(SystemExit):\n    def __str__(self): return 'mine'\nraise E('code')\n", "code"),
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_or_an_exit_decides_what_is_told_and_how_the_program_ends(client, name, tmp_path):
    code, words = HOOKS[name]
    plain, result = plainly(tmp_path, code), client.run(code)
    assert result.stderr == plain.stderr.replace(str(tmp_path / "job.py"), "<job>")
    assert words in result.stderr
    assert (result.exit_code or int(not result.ok), result.ok) == (plain.returncode, plain.returncode == 0)


def test_the_error_for_a_method_as_entry_says_how_to_call_it(client):
    code = "class Solution:\n    def two(self, x): return 2 * x"
    assert "define a function that does" in client.run(code, entry="Solution.two", args=[1]).error.message
    code += "\ndef main(*args): return Solution().two(*args)"
    assert client.run(code, entry="main", args=[1]).value == 2


def test_the_error_for_a_missing_entry_names_the_functions_of_the_code_and_no_imported_ones(client):
    code = "from typing import *\nfrom textwrap import dedent\ndef solve(): return 1\nhelp_me = lambda: 2"
    assert client.run(code, entry="main").error.message == "the code defines no 'main'; it defines: help_me, solve"


def test_the_stack_of_an_entry_begins_with_it(client):
    code = (
        "import inspect\ndef inner(): return [each.function for each in inspect.stack()]\ndef main(): return inner()\n"
    )
    assert client.run(code, entry="main").value == ["inner", "main"]
    assert (
        client.run(f"{code}class C:\n    def __call__(self): return inner()\nc = C()\n", entry="c").value[0] == "inner"
    )
    chunk = client.map(code, [[], []], entry="main", chunksize=2)
    assert [each.value for each in chunk] == [["inner", "main"]] * 2


def test_a_helper_can_import_the_program(client):
    files = {"helper.py": b"def get():\n    import job\n    return job.X\n"}
    assert (
        client.run("X = 5\nif __name__ == '__main__':\n    import helper\n    result = helper.get()", files=files).value
        == 5
    )


def test_a_data_base_that_was_left_open_is_closed(client):
    code = "import sqlite3\nd = sqlite3.connect('out/d')\nd.execute('create table t (a)')\nd.execute('insert into t values (1)')"
    assert list(client.run(code).files) == ["d"]


FILES = {
    "a text file": "f = open('out/x', 'w')\nf.write('kept')\n",
    "a file behind a name in a list": "held = [open('out/x', 'wb')]\nheld[0].write(b'kept')\n",
    "a csv writer": "import csv\nw = csv.writer(open('out/x', 'w'))\nw.writerow([1, 2])\n",
    "a compressed file": "import gzip\nf = gzip.open('out/x', 'wt')\nf.write('kept')\n",
    "an archive": "import zipfile\nz = zipfile.ZipFile('out/x', 'w')\nz.writestr('a', 'kept')\n",
    "a log handler": "import logging\nlogging.basicConfig(filename='out/x')\nlogging.warning('kept')\n",
    "a file that an exit handler writes": "import atexit\n@atexit.register\ndef end(): open('out/x', 'w').write('kept')\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("entry", [None, "main"])
def test_files_that_were_left_open_are_written_out(client, name, entry, tmp_path):
    code = FILES[name]
    if entry:
        inside = "".join(f"    {line}\n" for line in code.splitlines())
        code = f"held = []\ndef main():\n{inside}    held.append(locals())\n"
    result = client.run(code, entry=entry)
    assert result.ok, result.error
    plainly(tmp_path, FILES[name])
    expected = (tmp_path / "out" / "x").read_bytes()
    assert len(result.files["x"]) == len(expected)


def test_lines_of_stdin_end_as_they_were_sent(client, tmp_path):
    code = "import sys\nprint([input(), *sys.stdin])"
    assert client.run(code, stdin="a\r\nb\r\nc").stdout == plainly(tmp_path, code, stdin="a\r\nb\r\nc").stdout


WATCHED = {
    "asyncio's reader": """
import asyncio, sys
async def main():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(await reader.read())
asyncio.run(main())
""",
    "a selector": """
import selectors, sys
with selectors.DefaultSelector() as selector:
    selector.register(sys.stdin, selectors.EVENT_READ)
    print(len(selector.select()), sys.stdin.read().split(), sys.stdin.seekable())
""",
}


@pytest.mark.parametrize("stdin", ["", "a\nb\n", "a" * (1 << 16)])
@pytest.mark.parametrize("name", WATCHED)
def test_a_program_can_wait_for_its_stdin(client, name, stdin, tmp_path):
    result = client.run(WATCHED[name], stdin=stdin)
    assert (result.outcome, result.stdout) == (Outcome.OK, plainly(tmp_path, WATCHED[name], stdin=stdin).stdout), result


def test_a_clean_exit_keeps_the_value(client):
    result = client.run("import sys\nresult = {'score': 12}\nsys.exit(0)")
    assert (result.outcome, result.value, result.exit_code) == (Outcome.OK, {"score": 12}, 0)


def test_arguments_follow_the_name_of_the_program(client):
    assert client.run("import sys\nresult = sys.argv", argv=["--n", "3", "é"]).value == ["job.py", "--n", "3", "é"]
    assert client.run("import sys\nresult = sys.argv").value == ["job.py"]


@pytest.mark.parametrize("argv", ["--n 3", [3], [None], ["a\0b"], ["x" * 9000], ["x"] * 300, {"a": "b"}, ["\ud800"]])
def test_arguments_that_no_program_can_get_are_refused_by_name(client, argv):
    with pytest.raises(InvalidJobError, match="argv"):
        client.run("pass", argv=argv)


def test_files_that_were_sent_along_can_be_imported(client):
    files = {"helper.py": b"def double(x): return 2 * x\n"}
    assert client.run("import helper\nresult = helper.double(21)", files=files).value == 42
    assert client.run("import helper\ndef main(): return helper.double(21)", entry="main", files=files).value == 42


PACKAGE = {
    "package/__init__.py": b"A = 1\n",
    "package/part.py": b"from . import A\nfrom .deep.x import B\nC = A + B\n",
    "package/deep/__init__.py": b"",
    "package/deep/x.py": b"from .. import A\nB = 10 * A\n",
    "package/data/d.txt": b"data",
    "space/module.py": b"D = 4\n",
    "email/__init__.py": b"E = 5\n",
}


def test_packages_that_were_sent_along_can_be_imported(client):
    code = """
import email, importlib.resources, os, package.part, space.module
data = importlib.resources.files("package").joinpath("data/d.txt").read_text()
result = package.part.C, package.part.__package__, space.module.D, email.E, data, sorted(set(os.listdir("package")) - {"__pycache__"})
"""
    expected = (11, "package", 4, 5, "data", ["__init__.py", "data", "deep", "part.py"])
    assert client.run(code, files=PACKAGE).value == expected
    assert client.run("import email.message\nresult = 1").value == 1


@pytest.mark.parametrize(
    "name", ["json", "random", "statistics", "traceback", "threading", "msgspec", "struct", "pool", "runner"]
)
def test_a_file_named_like_a_module_is_imported_instead_of_it(client, name):
    code = f"import {name}\nprint({name}.MINE)\nresult = [{name}.MINE]\nopen('out/x', 'w').write('y')\n1 / result[0]"
    result = client.run(code, files={f"{name}.py": b"MINE = 0\n"})
    assert (result.stdout, result.error.type, result.files) == ("0\n", "ZeroDivisionError", {"x": b"y"})
    assert client.run("import json\nresult = json.dumps(1)").value == "1"


def test_an_exit_handler_that_never_ends_is_ended_at_the_deadline_and_the_value_is_kept(client):
    for body in (
        "while True: pass",
        "import time\n    time.sleep(60)",
        "import signal\n    while True: signal.pause()",
    ):
        code = f"import atexit\n@atexit.register\ndef end():\n    {body}\nresult = {{'score': 12}}\n"
        result = client.run(code, limits=Limits(wall_s=2))
        assert (result.outcome, result.value) == (Outcome.OK, {"score": 12}), result
        assert "exit handlers" in result.reason
        assert "2 s" in result.reason


def test_a_thread_that_never_ends_is_ended_at_the_deadline_and_the_value_is_kept(client):
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nresult = bytes(300_000)"
    result = client.run(code, limits=Limits(wall_s=2))
    assert (result.outcome, len(result.value)) == (Outcome.OK, 300_000)


def test_an_exit_handler_that_ends_the_process_decides_its_status(client):
    good = client.run("import atexit, os\natexit.register(os._exit, 0)\nresult = 5")
    assert (good.outcome, good.value) == (Outcome.OK, 5)
    bad = client.run("import atexit, os\natexit.register(os._exit, 7)\nresult = 5")
    assert (bad.outcome, bad.exit_code) == (Outcome.CRASH, 7)


def test_the_value_is_the_one_before_the_exit_handlers_and_the_files_are_those_after_them(client):
    code = "import atexit\nresult = [1]\natexit.register(result.append, 2)\natexit.register(lambda: open('out/x', 'w').write('late'))"
    result = client.run(code)
    assert (result.value, result.files) == ([1], {"x": b"late"})


def test_files_and_value_share_one_limit_also_with_exit_handlers(client):
    code = "import atexit\natexit.register(lambda: open('out/x', 'wb').write(bytes(700_000)))\nresult = bytes(400_000)"
    result = client.run(code, limits=Limits(result="1m"))
    assert (result.outcome, result.value, result.files) == (Outcome.OUTPUT, None, {})


LIMITS = {
    "tmp": ("open('x', 'wb').write(bytes(10_000_000))", {"tmp": "1m"}),
    "nofile": ("held = [open('/dev/null') for _ in range(100_000)]", {}),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_an_error_by_a_limit_names_the_limit(client, limit):
    code, limits = LIMITS[limit]
    result = client.run(
        f"import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{code}", limits=Limits(**limits)
    )
    assert (result.outcome, result.error.limit) == (Outcome.ERROR, limit), result


FENCED = "Here is the strategy:\n\n```python\ndef main():\n    return 6 * 7\n```\n\nIt returns 42.\n"


def test_code_in_markdown_fences_fails_with_a_hint_and_runs_where_they_are_stripped(client):
    for code in (FENCED, "```python\nresult = 42\n```", "```\nresult = 42"):
        failed = client.run(code)
        assert (failed.outcome, failed.error.type) == (Outcome.ERROR, "SyntaxError")
        assert "strip_fences=True" in failed.error.message
    assert client.run(FENCED, entry="main", strip_fences=True).value == 42
    assert [each.value for each in client.map(FENCED, [[]], entry="main", strip_fences=True)] == [42]
    assert "strip_fences" not in client.run("x = (").error.message


HINTS = {
    "never called": ("def main():\n    return 1\n", "entry='main'"),
    "the last line": ("x = 20\nx + 22\n", "variable result"),
    "called": ("def main():\n    print(1)\nmain()\n", ""),
    "called under a condition": ("def main():\n    print(1)\nif __name__ == '__main__':\n    main()\n", ""),
    "a call at the end": ("print(42)\n", ""),
    "part of a statement": ("x = (\n1\n)\n", ""),
    "a text at the end": ("x = 1\n'''\nnotes\n'''\n", ""),
    "a result": ("def main(): return 1\nresult = 2\n", ""),
    "a result of None": ("def main(): return 1\nresult = None\n", ""),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("name", HINTS)
def test_a_script_without_a_value_is_ok_and_its_reason_says_what_was_forgotten(client, name):
    code, words = HINTS[name]
    result = client.run(code)
    assert result.outcome is Outcome.OK
    assert words in result.reason
    assert bool(result.reason) == bool(words)


MISSPELLED = [
    "pritn(1)",
    "import math\nmath.sqrtt(2)",
    "def main():\n    value = 1\n    return valeu\nmain()",
    "class A:\n    total = 1\nA().totl",
    "try:\n    pritn(1)\nexcept NameError as error:\n    raise ValueError('another') from error",
    "error = AttributeError('of its own')\nerror.add_note('a note')\nraise error",
    "nothing_is_like_this",
]


@pytest.mark.parametrize("code", MISSPELLED)
def test_a_misspelled_name_is_told_with_the_suggestion_of_a_plain_interpreter(client, code, tmp_path):
    told = client.run(code).error.traceback
    assert told.splitlines()[-1] == plainly(tmp_path, code).stderr.splitlines()[-1]


def test_misspelled_names_in_many_threads_take_nothing_from_stderr(client):
    code = """
import sys, threading
threads = [threading.Thread(target=lambda: pritn(1)) for _ in range(20)]
for each in threads: each.start()
for each in threads: each.join()
threading.Thread(target=lambda: [print("a line", file=sys.stderr) for _ in range(500)]).start()
pritn(1)
"""
    result = client.run(code)
    assert result.error.type == "NameError"
    assert result.stderr.count("NameError: name 'pritn' is not defined") >= 20
    assert result.stderr.count("a line\n") == 500


REPLACED = {
    "os": "import os\nos.getpid = lambda: 1\nos.listdir = os.scandir = os.open = os.read = os.fstat = os.close = None\n",
    "inspect": "import inspect\ninspect.iscoroutine = inspect.isfunction = None\n",
}


@pytest.mark.parametrize("name", REPLACED)
def test_a_program_that_leaves_functions_replaced_keeps_its_value_and_its_files(client, name):
    result = client.run(f"open('out/a', 'w').write('kept')\nresult = 5\n{REPLACED[name]}")
    assert (result.outcome, result.value, result.files) == (Outcome.OK, 5, {"a": b"kept"})

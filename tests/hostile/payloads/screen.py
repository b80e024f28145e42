"""Ways around a screen that reads source, by the number of the catalogue (class A). Only data.

Each code, run as a script where nothing holds it, leaves in `result` what it gained: mostly the id of its own process,
asked for in a way that the screen is meant to see. `expected` is what the standard screen makes of it: REJ is refused,
INERT cannot be seen without refusing honest code, and has to gain nothing beyond the job's own sandbox. With the screen
off, all of them have to be INERT. Where `gains` is False, the code ends in an error or kills its process wherever it
runs, and there is no `result` to look at.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Payload:
    number: str
    title: str
    code: str
    expected: Literal["REJ", "INERT"] = "REJ"
    gains: bool = True
    python: tuple[int, int] = (3, 11)  #: the first version that can parse it
    needs: str = ""  #: a module that has to be there
    rule: str = ""  #: the rule that is meant for it, where it is one


def _p(number: str, title: str, code: str, rule: str = "", **more: object) -> Payload:
    return Payload(number, title, code.strip("\n") + "\n", rule=rule, **more)  # type: ignore[arg-type]


_WALK = "[c for c in {}.__subclasses__() if c.__name__ == '_wrap_close'][0]"

PAYLOADS = (
    # ---- objects and their classes ----
    _p("A1", "subclass walk from a tuple", "result = len(().__class__.__base__.__subclasses__())", "S301"),
    _p("A1", "subclass walk from object", "result = len(object.__subclasses__())", "S301"),
    _p("A1", "mro walk from a text", "result = len(''.__class__.__mro__[-1].__subclasses__())", "S301"),
    _p("A1", "mro called", "result = len(str.mro()[-1].__subclasses__())", "S301"),
    _p("A1", "walk to os by its class", f"result = {_WALK.format('object')}.__init__.__globals__['getpid']()", "S301"),
    _p("A1", "globals of a method", "class C:\n    def f(self): ...\nresult = str(C.f.__globals__)[:40]", "S301"),
    _p("A1", "self of a builtin", "result = print.__self__.__import__('os').getpid()", "S301"),
    _p("A1", "walk in a default", "def f(x=().__class__.__base__.__subclasses__()): return len(x)\nresult = f()", "S301"),
    # ---- names put together ----
    _p("A2", "getattr, two texts", "result = str(getattr((), '__cl' + 'ass__'))", "S205"),
    _p("A2", "getattr, chr", "u = chr(95) * 2\nresult = str(getattr((), u + 'class' + u))", "S205"),
    _p("A2", "getattr, bytes", "result = str(getattr((), bytes([95, 95]).decode() + 'class__'))", "S205"),
    _p("A2", "getattr, reversed text", "result = str(getattr((), '__ssalc__'[::-1]))", "S205"),
    _p("A2", "getattr, join", "result = str(getattr((), ''.join(['__', 'class', '__'])))", "S205"),
    _p("A2", "getattr, f-string", "c = 'class'\nresult = str(getattr((), f'__{c}__'))", "S205"),
    _p("A2", "getattr, percent", "result = str(getattr((), '%sclass%s' % ('__', '__')))", "S205"),
    _p("A2", "getattr, escapes", r"result = str(getattr((), '\x5f\x5fclass\u005f\N{LOW LINE}'))", "S205"),
    _p("A2", "getattr under another name", "g = getattr\nresult = str(g((), '__class__'))", "S205"),
    _p("A2", "getattr through map", "result = str(list(map(getattr, [()], ['__class__']))[0])", "S205"),
    _p("A2", "vars of a class, name split", "result = str(vars(type)['__subcl' + 'asses__'](int))", "S402"),
    _p("A2", "getattr on a parameter named self", """
def f(self, name):
    return getattr(self, name)
u = chr(95) * 2
result = str(f((), u + 'class' + u))
""", expected="INERT"),
    # ---- format strings ----
    _p("A3", "format", "result = '{0.__class__}'.format(3)", "S401"),
    _p("A3", "format of a variable", "t = '{x.__init__.__globals__}'\nclass C:\n    def __init__(self): ...\nresult = t.format(x=C())[:40]", "S401"),
    _p("A3", "format_map", "result = '{x.__class__.__mro__}'.format_map({'x': 1})", "S401"),
    _p("A3", "format, nested in the spec", "result = '{0:{1.__class__}}'.format('a', '')", "S401", gains=False),
    _p("A3", "format, index after attribute", "result = '{0.__class__.__mro__[1]}'.format(1)", "S401"),
    _p("A3", "string.Formatter", "import string\nresult = str(string.Formatter().get_field('0.__class__', (1,), {}))", "S304"),
    _p("A3", "UserString.format", "from collections import UserString\nresult = str(UserString('{0.__class__}').format(1))", "S401"),
    _p("A3", "str.format as a function", "result = str.format('{0.__class__}', 1)", "S401"),
    _p("A3", "format, template put together", "u = chr(95) * 2\nresult = ('{0.' + u + 'class' + u + '}').format(1)", expected="INERT"),
    _p("A4", "f-string", "result = f'{().__class__}'", "S301"),
    _p("A4", "f-string in its spec", "result = f'{\"a\":{().__class__.__name__[0:0]}}' + '!'", "S301"),
    _p("A4", "f-string with !r and a walrus", "result = f'{(e := eval)(\"1+1\")!r}'", "S201"),
    _p("A4", "t-string", "result = str(t'{().__class__}')", "S301", python=(3, 14)),
    # ---- syntax that calls ----
    _p("A5", "decorator", "@exec\n@'result = 40 + 2'.format\nclass C: ...", "S201", gains=False),
    _p("A5", "decorator on input", "@input\nclass C: ...\nresult = C", "S203", gains=False),
    _p("A5", "decorator, compile chain", "@(lambda f: eval('40 + 2'))\ndef result(): ...", "S201"),
    _p("A6", "default argument", "def f(x=__import__('os').getpid()): return x\nresult = f()", "S201"),
    _p("A6", "annotation", "def f(x: exec('a = 7')): ...\nresult = a", "S201"),
    _p("A6", "class body", "class C:\n    x = eval('6 * 7')\nresult = C.x", "S201"),
    _p("A6", "metaclass keyword", "class C(metaclass=lambda *a: eval('6 * 7')): ...\nresult = C", "S208"),
    _p("A7", "match on __class__", "match ():\n    case object(__class__=c):\n        result = str(c)", "S301"),
    _p("A7", "match on a frame", """
def g():
    yield
match g():
    case object(gi_frame=f):
        result = str(f)
""", "S302"),
    _p("A7", "match on the object of an error", """
try:
    ''.nothing
except AttributeError as error:
    match error:
        case AttributeError(obj=x):
            result = repr(x)
""", "S306"),
    _p("A7", "__match_args__", "class C:\n    __match_args__ = ('__cl' 'ass__',)\nmatch C():\n    case C(c):\n        result = str(c)", "S402"),
    _p("A9", "except* and the group", "try:\n    raise ExceptionGroup('g', [ValueError(1)])\nexcept* ValueError as g:\n    result = repr(g)", expected="INERT"),
    _p("A9", "the object of an error", "try:\n    ''.nothing\nexcept AttributeError as error:\n    result = repr(error.obj)", expected="INERT"),
    _p("A10", "positional-only guard name", "def f(getattr, /, eval=7):\n    return eval\nresult = f(1)", expected="INERT"),
    _p("A10", "guard name bound too late", "def f():\n    return eval('6 * 7')\nresult = f()\neval = None", "S201"),
    # ---- frames ----
    _p("A11", "frame of a generator", "def g():\n    yield\nresult = str(g().gi_frame.f_globals)[:40]", "S302"),
    _p("A11", "frame of a coroutine", "async def c(): ...\nx = c()\nresult = str(x.cr_frame.f_builtins)[:40]\nx.close()", "S302"),
    _p("A11", "frame of an async generator", "async def a():\n    yield\nresult = str(a().ag_frame.f_globals)[:40]", "S302"),
    _p("A11", "frame of an error", "try:\n    1 / 0\nexcept Exception as e:\n    result = str(e.__traceback__.tb_frame.f_globals)[:40]", "S302"),
    _p("A11", "frame by getattr", "g = (i for i in ())\nresult = str(getattr(g, 'gi_fr' 'ame'))", "S205"),
    _p("A11", "code of a function", "def f(): ...\nresult = f.__code__.co_code.hex()", "S301"),
    _p("A12", "sys._getframe", "import sys\nresult = str(sys._getframe().f_globals)[:40]", "S302"),
    _p("A12", "inspect.stack", "import inspect\nresult = str(inspect.stack())[:40]", "S101"),
    _p("A12", "traceback.extract_stack", "import traceback\nresult = str(traceback.extract_stack())", "S304"),
    # ---- builtins and class machinery ----
    _p("A14", "__builtins__", "b = __builtins__\nresult = str(b)[:40]", "S206"),
    _p("A14", "__builtins__ of a module", "import random\nresult = random.__builtins__['eval']('6 * 7')", "S301"),
    _p("A14", "__dict__ of a module", "import random\nresult = random.__dict__['_os'].getpid()", "S301"),
    _p("A14", "globals", "result = globals()['__built' + 'ins__'] is not None", "S204"),
    _p("A14", "locals of the module", "result = bool(locals())", "S204"),
    _p("A15", "__class_getitem__", "class C:\n    __class_getitem__ = eval\nresult = C['6 * 7']", "S207"),
    _p("A15", "__init_subclass__", "class C:\n    def __init_subclass__(cls): cls.x = 7\nclass D(C): ...\nresult = D.x", "S207"),
    _p("A15", "__prepare__", "class M(type):\n    @classmethod\n    def __prepare__(m, *a): return {'x': 7}\nclass C(metaclass=M): ...\nresult = C.x", "S207"),
    _p("A15", "type makes a class", "C = type('C', (), {'__getitem__': lambda s, x: x})\nresult = C()[7]", expected="INERT"),
    _p("A16", "attrgetter", "import operator\nresult = str(operator.attrgetter('__class__.__base__')(()))", "S205"),
    _p("A16", "attrgetter under another name", "from operator import attrgetter as a\nresult = str(a('__class__')(()))", "S205"),
    _p("A16", "methodcaller", "import operator\nresult = len(operator.methodcaller('__subclasses__')(object))", "S205"),
    _p("A16", "reduce over getattr", "import functools\nresult = str(functools.reduce(getattr, ['__class__', '__base__'], ()))", "S205"),
    _p("A16", "partial of getattr", "from functools import partial\nresult = str(partial(getattr, ())('__class__'))", "S205"),
    _p("A16", "__getattribute__", "result = str(object.__getattribute__((), '__class__'))", "S301"),
    # ---- text, encodings ----
    _p("A18", "rot13 cookie", "# coding: rot13\nresult = 7", "S504"),
    _p("A18", "utf-7 cookie on line 2", "#!python\n# -*- coding: utf-7 -*-\nresult = 7", "S504"),
    _p("A18", "form feed before an import", "\x0cimport os; result = os.getpid()", "S101"),
    _p("A18", "carriage return ends a comment", "x = 1  # harmless\rimport os\rresult = os.getpid()", "S101"),
    _p("A18", "NUL", "result = 7\0", "S503", gains=False),
    _p("A40", "compatibility letters", "result = \uff45\uff56\uff41\uff4c('6 * 7')", "S201"),
    _p("A40", "compatibility letters in an attribute", "result = str(().__\uff43lass__)", "S301"),
    _p("A40", "bidi control", "ok = 'x\u202e\u2066'\nresult = ok", "S505"),
    _p("A40", "lone surrogate", "result = '\ud800'", "S503", gains=False),
    # ---- imports ----
    _p("A19", "meta_path", "import sys\nsys.meta_path.insert(0, None)\nresult = sys.meta_path[0] is None", "S304"),
    _p("A19", "modules", "from sys import modules\nresult = modules['os'].getpid()", "S104"),
    _p("A20", "import os", "import os\nresult = os.getpid()", "S101"),
    _p("A20", "import in a function", "def f():\n    import posix as p\n    return p.getpid()\nresult = f()", "S101"),
    _p("A20", "__import__", "result = __import__('os').getpid()", "S201"),
    _p("A20", "importlib", "from importlib import import_module as i\nresult = i('os').getpid()", "S101"),
    _p("A20", "runpy", "import runpy\nresult = runpy.run_module('this', alter_sys=False)['s'][:3]", "S101"),
    _p("A20", "relative import", "from . import os\nresult = os", "S102", gains=False),
    _p("A20", "help", "help('os')\nresult = 7", "S203", gains=False),
    _p("A21", "__loader__", "result = __loader__.load_module('posix').getpid()", "S206", gains=False),
    _p("A21", "__spec__ of a module", "import math\nresult = str(math.__spec__)", "S301"),
    _p("A22", "os behind random", "import random\nresult = random._os.getpid()", "S303"),
    _p("A22", "sys behind warnings", "import warnings\nresult = str(warnings.sys.modules['os'].getpid())", "S304"),
    _p("A22", "sys taken from warnings", "from warnings import sys as s\nresult = s.maxsize", "S104"),
    _p("A22", "os behind threading behind queue", "import queue as q\nresult = q.threading._os.getpid()", "S303"),
    _p("A22", "builtins behind enum, under another name", "import enum\nresult = enum.bltns.eval('6 * 7')", "S304"),
    _p("A22", "io behind logging", "import logging\nresult = logging.io.open('/proc/self/stat').read()[:20]", "S304"),
    _p("A22", "f2py", "import numpy as np\nresult = np.f2py.__name__", "S304", needs="numpy"),
    _p("A22", "os behind pandas", "import pandas\nresult = pandas.compat.sys.modules['os'].getpid()", "S304", needs="pandas"),
    _p("A22", "a module under another name", "import random\nr = random\nresult = r._os.getpid()", expected="INERT"),
    _p("A23", "ctypes", "import ctypes\nresult = ctypes.CDLL(None).getpid()", "S101"),
    _p("A23", "ctypes of numpy", "import numpy\nresult = numpy.ctypeslib.ctypes.CDLL(None).getpid()", "S304", needs="numpy"),
    _p("A24", "pickle", "import pickle\nresult = pickle.loads(b'cos\\ngetpid\\n(tR.')", "S101"),
    _p("A24", "marshal", "import marshal\nresult = marshal.loads(b'i\\x07\\0\\0\\0')", "S101"),
    _p("A24", "pickle of numpy", "import numpy as np\nresult = bool(np.load)", "S304", needs="numpy"),
    # ---- aliases ----
    _p("A26", "eval in a list", "result = [eval][0]('6 * 7')", "S201"),
    _p("A26", "exec in a dict", "d = {'e': exec}\nd['e']('y = 7')\nresult = y", "S201"),
    _p("A26", "eval by a walrus", "result = (e := eval)('6 * 7')", "S201"),
    _p("A26", "eval as an argument", "result = list(map(eval, ['6 * 7']))[0]", "S201"),
    _p("A26", "open", "result = open('/proc/self/stat').read()[:20]", "S202"),
    _p("A26", "io.open", "import io\nresult = io.open('/proc/self/stat').read()[:20]", "S304"),
    _p("A26", "breakpoint", "breakpoint()\nresult = 7", "S203", gains=False),
    _p("A27", "name in a comprehension", "result = [eval('6 * 7') for x in (1,)][0]", "S201"),
    _p("A27", "name bound in its own iterable", "result = [open for open in [open]][0].__name__", "S202"),
    _p("A27", "bound and deleted", "eval = 1\ndel eval\nresult = eval('6 * 7')", "S201"),
    _p("A27", "global in a function", "def f():\n    global eval\n    return eval('6 * 7')\nresult = f()", "S201"),
    _p("A27", "bound under a condition", "if 0:\n    eval = None\nresult = eval('6 * 7')", "S201"),
    _p("A27", "bound in a class", "class C:\n    if 0:\n        eval = 1\n    x = eval('6 * 7')\nresult = C.x", "S201"),
    # ---- libraries ----
    _p("A29", "subprocess of asyncio", "import asyncio\nresult = asyncio.base_events.subprocess.__name__", "S304"),
    _p("A30", "query reaches a module", "import pandas as pd\nd = pd.DataFrame({'a': [1]})\nresult = len(d.query('@pd.compat.sys.maxsize > a'))", "S403", needs="pandas"),
    _p("A30", "pd.eval", "import pandas as pd\nresult = pd.eval('6 * 7')", "S304", needs="pandas"),
    _p("A26", "text run by numpy's tests", "import numpy.testing as t\nseen = {}\nt.runstring('result = 6 * 7', seen)\nresult = seen['result']", "S304", needs="numpy"),
    _p("A30", "read_pickle", "import pandas as pd\nresult = bool(pd.read_pickle)", "S305", needs="pandas"),
    _p("A30", "address", "import pandas as pd\nresult = pd.read_csv('http://192.0.2.1/x.csv')", "S405", gains=False, needs="pandas"),
    _p("A32", "sqlite", "import sqlite3\nresult = sqlite3.connect(':memory:').execute('select 7').fetchone()[0]", "S101"),
    _p("A33", "audit hook", "import sys\nresult = sys.addaudithook(print) is None", "S304"),
    # ---- ends and floods ----
    _p("A34", "a result that is only printed", "print('{\"outcome\": \"ok\", \"value\": 7}')\nresult = 7", expected="INERT"),
    _p("A35", "SystemExit", "raise SystemExit(0)", expected="INERT", gains=False),
    _p("A35", "os._exit", "import os\nos._exit(0)", "S101", gains=False),
    _p("A38", "many unary operators", "result = " + "-" * 100_000 + "1", "S502", gains=False),
    _p("A38", "many binary operators", "result = " + "+".join(["1"] * 50_000), "S502", gains=False),
    _p("A38", "deep attributes", "x = 1\nresult = x" + ".real" * 20_000, "S502", gains=False),
    _p("A39", "a megabyte", "a = 1\n" * 170_000 + "result = 7", "S501"),
    # ---- lazy evaluation ----
    _p("A41", "bound of a type parameter", "class C[T: eval('6 * 7')]: ...\nresult = C.__type_params__[0].__bound__", "S201", python=(3, 12)),
    _p("A41", "lazy type alias", "type T = eval('6 * 7')\nresult = T.__value__", "S201", python=(3, 12)),
    _p("A42", "get_type_hints", "import typing\ndef f(x: 'eval(\"int\")'): ...\nresult = str(typing.get_type_hints(f))", "S304"),
    _p("A42", "ForwardRef", "from typing import ForwardRef\nresult = str(ForwardRef('int'))", "S104"),
    _p("A42", "annotation that singledispatch evaluates", """
from functools import singledispatch
@singledispatch
def f(x): ...
@f.register
def g(x: 'eval("int")'): ...
result = len(f.registry) > 1
""", "S404"),
)  # fmt: skip

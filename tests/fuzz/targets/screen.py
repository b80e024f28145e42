"""Programs of clients, read in a child and by `pool-admin check`: an input is a byte for the mode and
whether it comes as bytes or as text, and the source.

That nothing of it runs is watched by the interpreter's own audit events, while the screen looks at it.
"""

import ast
import sys
import unicodedata
from collections.abc import Callable, Iterable
from encodings import aliases
from functools import cache
from pathlib import Path
from random import Random

from pool.screen import MAX_FINDINGS, RULES, Policy, check
from tests.fuzz.mutate import bend_text
from tests.fuzz.target import Target
from tests.hostile.payloads.screen import PAYLOADS

_ROOT = Path(__file__).parents[3]
_MODES = ("standard", "strict")
_LONGEST = 2000
_WORDS = tuple(
    rb"""
    eval exec open compile getattr setattr vars type super object __import__ __builtins__ __class__ __subclasses__
    __globals__ __getattribute__ .__class__ ._os .f_back .gi_frame .__code__ .format .format_map '{0.__class__}'
    f'{x!r:{y}}' import from as os sys numpy np np.f2py pandas random ctypes importlib . .. * ** , : ; := -> ( ) [ ]
    { } = == @ ~ lambda def class async await yield return raise try: except except* finally: with match case _ if
    elif else: for while global nonlocal del assert pass self x args *args **kwargs 0 1 -1 1e999 0x_f 1j '' b'' r'\'
    \N{LOW} \x5f chr(95)*2 '__'+'class__' # #coding:rot13
    """.split()
)


_WATCHED = frozenset(["exec", "import", "open", "os", "socket", "subprocess", "ctypes", "shutil"])


class _Auditor:
    """Hooks cannot be taken out again, so there is one, which looks only while it is armed."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._armed = False
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[object, ...]) -> None:
        if self._armed and event.partition(".")[0] in _WATCHED:
            self.seen.append(f"{event} {args!r:.200}")

    def during(self, work: Callable[[], object]) -> object:
        self.seen.clear()
        self._armed = True
        try:
            return work()
        except SyntaxError:
            return None
        finally:
            self._armed = False


@cache
def _auditor() -> _Auditor:
    """Once all is loaded that the parser loads late: what it asks about letters, and encodings."""
    assert unicodedata.unidata_version
    for name in set(aliases.aliases.values()):
        try:
            "".encode(name)
        except (LookupError, ValueError, TypeError):
            continue
    return _Auditor()


def one(data: bytes) -> None:
    policy = Policy(mode=_MODES[data[0] % 2 if data else 0])  # type: ignore[arg-type]
    code = data[1:].decode(errors="surrogateescape") if data[:1] and data[0] & 2 else data[1:]
    auditor = _auditor()
    found = auditor.during(lambda: check(code, screen=policy))
    assert all(_is_harmless(event) for event in auditor.seen), auditor.seen
    assert found == auditor.during(lambda: check(code, screen=policy))
    if isinstance(found, list):
        assert len(found) <= MAX_FINDINGS
        assert all(each.rule in RULES and each.line >= 1 and each.column >= 1 for each in found)


def _is_harmless(event: str) -> bool:
    """An encoding that a cookie names is looked up. For the text of a SyntaxError, CPython looks for a file of its name."""
    return "'encodings." in event or event == "open ('<job>', 'rb', 0)"


def mutate(data: bytes, random: Random) -> bytes:
    """As text; now and then with a payload in it, or one level deeper."""
    mode, code = data[:1] or b"\0", data[1:]
    match random.randrange(12):
        case 0:
            return mode + code + b"\n" + random.choice(PAYLOADS).code.encode(errors="surrogatepass")
        case 1:
            return mode + b"def f(x):\n" + b"".join(b"    " + line for line in code.splitlines(keepends=True))
        case 2:
            left, right = random.choice(((b"(", b")"), (b"[", b"]"), (b"f'{", b"}'"), (b"lambda: ", b""), (b"-", b"")))
            deep = random.choice((1, 30, 100, 300))
            return mode + left * deep + code.strip()[:200] + right * deep
        case 3:
            return bytes([random.randrange(4)]) + code
    return mode + bend_text(code, random, _WORDS)


def seeds() -> Iterable[bytes]:
    """Payloads, several in one program: half of them in each mode."""
    codes = [payload.code.encode(errors="surrogatepass") for payload in PAYLOADS if len(payload.code) < _LONGEST]
    for at in range(0, len(codes), 8):
        yield bytes([at // 8 % 4]) + b"\n".join(codes[at : at + 8])
    yield b"\0match x:\n    case C(y=[1, *z], **k) if (w := z): pass\n    case {'a': int(n) | None as n}: ...\n"
    yield b"\1async def f(a, /, b=1, *c: int, d, **e) -> 'x':\n    async with a as b, c: yield await d\n    async for x in y: del x\n"
    yield b"\0try:\n    pass\nexcept* E as e:\n    raise e from None\nelse: pass\nfinally: pass\n"
    yield b"\1# -*- coding: rot13 -*-\nx = f'{a!r:>{w}}' + rb'\\x00'\n"
    yield "\0\uff45val('é')\u202e\n".encode()


def found() -> Iterable[bytes]:
    """What stands on its own in the checkout's own programs."""
    for path in sorted([*_ROOT.glob("examples/*.py"), *_ROOT.glob("pool/**/*.py")]):
        text = path.read_bytes()
        lines = text.splitlines(keepends=True)
        for node in ast.parse(text).body:
            piece = b"".join(lines[node.lineno - 1 : node.end_lineno])
            if 200 < len(piece) <= _LONGEST:
                yield b"\0" + piece


TARGET = Target(
    contract="SyntaxError or findings, the same each time; nothing is executed", one=one, mutate=mutate, seeds=seeds,
    found=found, words=_WORDS, inputs=100_000, max_len=2048, base_bytes=1 << 20, per_byte=4000,
)  # fmt: skip

"""Runs the code of a job: a script, a function of it, or a callable that was pickled by its client.

Called in the child only. Once the job's code has begun, it may have changed anything in here.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import marshal
import re
import sys
import warnings
from codecs import BOM_UTF8
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import CodeType, CoroutineType, FunctionType, ModuleType
from typing import Any, cast

from msgspec import Struct

from pool import screen, values, wire
from pool.outcome import Finding
from pool.screen import Policy
from runner import fault, frames
from runner.channel import MAX_CODE_BYTES, Frame
from runner.fault import FILENAME
from runner.interpreter import new_module, restoring

UNSCREENED = Policy(mode="off")
_FENCE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)
_MAIN = re.compile(r"\bmain\b")
_PICKLED = Finding(
    rule="S506",
    line=1,
    column=1,
    reason="a pickled callable cannot be read",
    remedy="submit source text, or have the pool set screen: standard",
)


class EntryError(Exception):
    """The job's entry cannot be called."""


class RejectedError(Exception):
    """The screen refuses the code."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(f"{findings[0]}" if len(findings) == 1 else f"{findings[0]}; and {len(findings) - 1} more")
        self.findings = findings


class Setting(Struct, frozen=True):
    """What every job of a worker finds."""

    datasets: Mapping[str, object]
    policy: Policy
    output: str  #: the directory whose files the client gets


def run(job: wire.Run, code: bytes, arguments: Sequence[Frame], setting: Setting) -> tuple[object, int | None]:
    """Value and exit code. Raises whatever the job raises, except an exit with status 0.

    This function is short, because a MemoryError passes through its handler: CPython 3.11 makes an integer of the place
    at which that raises it again, and from 257 on needs memory for it. Without any it tries for ever.
    """
    try:
        value = restoring(_call, job, code, arguments, setting)
        return restoring(_run_coroutine, value) if isinstance(value, CoroutineType) else value, None
    except SystemExit as end:
        if fault.exit_code(end) != 0:
            raise
        return namespace().get("result") if job.entry is None and not job.pickled else None, 0


def _run_coroutine(value: Coroutine[object, object, object]) -> object:
    import asyncio  # few jobs need it, and it takes long

    return asyncio.run(value)


def share(job: wire.Run, code: bytes, setting: Setting) -> bytes:
    """Compile the text before anything of the job is used. Returns its byte code for other children; empty if none."""
    current.compiled, made = _to_share(code, setting.policy if job.screened else UNSCREENED)
    return made


def namespace() -> dict[str, object]:
    """The names of the job's module."""
    return vars(current.module)


def take_module() -> ModuleType:
    """The job's module, which nothing in this one refers to any more."""
    module, current.module, current.target = current.module, ModuleType("__main__"), None
    return module


class _Current:
    """Of the job of this child."""

    def __init__(self) -> None:
        self.module = ModuleType("__main__")
        self.target: Callable[..., object] | None = None  #: what each call of a chunk calls
        self.compiled: CodeType | None = None  #: the job's text, if that was compiled beforehand
        self.byte_code: bytes | bytearray = b""  #: the same from another child, if that has compiled it


current = _Current()


def why_no_value(job: wire.Run, code: bytes) -> str:
    """For a script that set no `result`: "not called", "not returned", or "" where nothing looks like a slip."""
    with contextlib.suppress(BaseException):  # the job may have replaced what is used here, or left no memory
        if not job.pickled and job.entry is None and "result" not in namespace():
            return _slip(code.decode("utf-8-sig"))
    return ""


def _slip(source: str) -> str:
    if type(namespace().get("main")) is FunctionType and len(_MAIN.findall(source)) == 1:
        return "not called"
    lines = source.rstrip().splitlines()
    return "not returned" if lines and _is_expression(lines[-1]) else ""


def _is_expression(line: str) -> bool:
    """Whether the line is a value and no call, which may have done something."""
    try:
        value = ast.parse(line, mode="eval").body
    except SyntaxError:
        return False
    return not line[:1].isspace() and not isinstance(value, ast.Call | ast.Constant | ast.Await | ast.Yield)


def _call(job: wire.Run, code: bytes, arguments: Sequence[Frame], setting: Setting) -> object:
    """The code is loaded once for all calls of a chunk. In one function, for it is on the way of each job."""
    own = arguments[: len(arguments) - job.graded]
    decoded: Any = values.decode(own) if own else ((), {})
    args, kwargs = decoded
    if job.graded:  # the first argument of a grader is a value that another job made, as data
        args = (values.decode(arguments[len(own) :]), *args)
    if job.calls and current.target is not None:
        frames.hide_callers()
        return current.target(*args, **kwargs)
    policy = setting.policy if job.screened else UNSCREENED
    if job.pickled:
        if policy.strict:
            raise RejectedError([_PICKLED])
        vars(builtins)["datasets"] = setting.datasets  # for functions of all modules that came along
        target = _unpickle(job, code)
    else:
        module = _load(
            code.removeprefix(BOM_UTF8).decode(), policy, script=job.entry is None, datasets=setting.datasets
        )
        if job.entry is None:
            return module.__dict__.get("result")
        target = cast("Callable[..., object]", module.__dict__.get(job.entry))
        if not callable(target):
            raise _no_entry(module, job.entry)
    if job.calls:
        current.target = target
    frames.hide_callers()
    return target(*args, **kwargs)


def _unpickle(job: wire.Run, code: bytes) -> Callable[..., object]:
    """Pickles are loaded here, inside the sandbox, and nowhere else."""
    import cloudpickle

    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if job.python != here:
        raise EntryError(
            f"the function was pickled by Python {job.python}, this worker runs {here}, and byte code does not travel "
            f"between versions; submit source text, or run `pool-admin image build --python {job.python}`"
        )
    current.module = sys.modules["__main__"]
    target = cloudpickle.loads(code)
    _show_names(target, vars(current.module))
    return cast("Callable[..., object]", target)


def _show_names(target: object, names: dict[str, object]) -> None:
    """Put what a function of `__main__` refers to into that module, where pickle and typing look for it."""
    while not isinstance(target, FunctionType):
        inner = (
            getattr(target, "__func__", None) or getattr(target, "func", None) or getattr(target, "__wrapped__", None)
        )
        if inner is None:
            return
        target = inner
    if target.__module__ == "__main__":
        names.update({name: value for name, value in target.__globals__.items() if name not in names})
        names.setdefault(target.__name__, target)


def _load(source: str, policy: Policy, *, script: bool, datasets: Mapping[str, object]) -> ModuleType:
    """Execute the source as the module `__main__`. With an entry it is named `job`, as if it were imported."""
    module = current.module = new_module("__main__" if script else "job", source)
    compiled = current.compiled or _compiled(source, policy, current.byte_code)
    module.__dict__["datasets"] = datasets
    frames.forget_depth()
    frames.hide_callers()
    sys.modules["__main__"] = sys.modules["__mp_main__"] = sys.modules[module.__name__] = module
    exec(compiled, module.__dict__)  # noqa: S102 - the job's code
    return module


def _compiled(source: str, policy: Policy, given: bytes | bytearray = b"") -> CodeType:
    """The code of a text. `given`: its byte code, if there is one. Raises RejectedError or SyntaxError."""
    if given:
        try:
            code = marshal.loads(given)  # noqa: S302 - in the sandbox of the job whose text it is
            if type(code) is CodeType:
                return code
        except Exception:  # noqa: BLE001, S110
            pass
    try:
        program = source if policy.mode == "off" else _screened(source, policy)
        return compile(program, FILENAME, "exec", dont_inherit=True)
    except SyntaxError as error:
        _show_line(error, source)
        if _FENCE.search(source):
            error.msg += "; the code is in Markdown: submit what is between the fences, or give strip_fences=True"
        raise


def _show_line(error: SyntaxError, source: str) -> None:
    """The compiler, other than the parser, reads the line from the file, which is not there."""
    lines = source.splitlines(keepends=True)
    if error.text is None and error.lineno is not None and 0 < error.lineno <= len(lines):
        error.text = lines[error.lineno - 1]


def _screened(source: str, policy: Policy) -> ast.Module | str:
    reading = screen.examine(source, policy, filename=FILENAME)
    if reading.findings:
        raise RejectedError(reading.findings)
    return reading.program


def _to_share(code: bytes, policy: Policy) -> tuple[CodeType | None, bytes]:
    """The compiled text, and its byte code for other children; None and nothing for a text that each has to compile.

    That is one that is refused, is no Python, or of which Python prints a warning; and byte code may be too large.
    """
    with contextlib.suppress(BaseException), warnings.catch_warnings():
        warnings.simplefilter("error")
        made = _compiled(code.removeprefix(BOM_UTF8).decode(), policy)
        byte_code = marshal.dumps(made)
        return made, byte_code if len(byte_code) <= MAX_CODE_BYTES else b""
    return None, b""


def _no_entry(module: ModuleType, name: str) -> EntryError:
    if name in module.__dict__:
        kind = type(module.__dict__[name]).__name__
        return EntryError(f"{name!r} is a {kind}, not a function; name a function as entry")
    functions = sorted(  # and not those that a star import has brought
        key
        for key, value in module.__dict__.items()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__
    )
    defined = f"the code defines no {name!r}; it defines: {', '.join(functions[:20]) or 'no function'}"
    if "." in name:
        defined += (
            "; to call a method, define a function that does, such as def main(*args): return Name().method(*args)"
        )
    return EntryError(defined)

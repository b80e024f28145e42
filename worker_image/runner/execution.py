"""Runs the code of one job and turns whatever comes of it into frames. Called in the child, and nowhere else.

Everything here may be subverted by the job once its code has begun; nothing here is trusted by the runner.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import linecache
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NamedTuple, cast

from pool import screen, values, wire
from pool.errors import ValueCodecError
from pool.model import Finding, Outcome
from pool.screen import Policy
from runner import outbox
from runner.report import Report

FILENAME = "<job>"
_MESSAGE_CHARS = 16_384
_TRACEBACK_CHARS = 65_536


UNSCREENED = Policy(mode="off")
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
    """The screen has something against the code."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(f"{findings[0]}" if len(findings) == 1 else f"{findings[0]}; and {len(findings) - 1} more")
        self.findings = findings


@dataclass(frozen=True, slots=True)
class Setting:
    """What a job finds, whatever it is."""

    datasets: Mapping[str, object]
    policy: Policy
    output: Path  #: the directory whose files its client gets


class Ending(NamedTuple):
    """How a job ended, and the frames of what it gives: names and contents of its files, and its value."""

    outcome: Outcome
    ended_ns: int
    exit_code: int | None = None
    error: bytes = b""
    files: Sequence[bytes | memoryview] = ()
    value: Sequence[bytes | memoryview] = ()


def execute(
    job: wire.Run, code: bytes, arguments: Sequence[bytes | bytearray], setting: Setting
) -> list[bytes | memoryview]:
    """Run the job; the frames of its answer: [report, error, *file names and contents, *value]."""
    started_ns = time.monotonic_ns()
    ending = _ending(job, code, arguments, setting)
    flush()
    ending = _with_files(ending, job, setting)
    report = Report(
        outcome=ending.outcome,
        started_ns=started_ns,
        ended_ns=ending.ended_ns,
        exit_code=ending.exit_code,
        files=len(ending.files) // 2,
    )
    return [report.pack(), ending.error, *ending.files, *ending.value]


def _ending(job: wire.Run, code: bytes, arguments: Sequence[bytes | bytearray], setting: Setting) -> Ending:
    ended_ns = 0
    try:
        value, exit_code = _run(job, code, arguments, setting)
        ended_ns = time.monotonic_ns()
        return Ending(Outcome.OK, ended_ns, exit_code, value=values.encode(value, max_bytes=job.result))
    except RejectedError as raised:
        return Ending(Outcome.REJECTED, time.monotonic_ns(), error=_rejection(raised))
    except MemoryError as raised:
        return Ending(Outcome.MEMORY, time.monotonic_ns(), error=_fault(raised))
    except ValueCodecError as raised:
        return Ending(_uncarried(raised), ended_ns or time.monotonic_ns(), error=_fault(raised))
    except BaseException as raised:  # noqa: BLE001 - a job may raise anything at all, and all of it is its result
        return Ending(Outcome.ERROR, time.monotonic_ns(), _exit_code(raised), error=_fault(raised))


def _uncarried(raised: ValueCodecError) -> Outcome:
    """Over a limit, or of a kind that cannot be carried."""
    return Outcome.OUTPUT if "limit" in raised.fields else Outcome.ERROR


def _with_files(ending: Ending, job: wire.Run, setting: Setting) -> Ending:
    """What it left in its output directory, also when it failed; the limit is on files and value together."""
    if ending.outcome not in {Outcome.OK, Outcome.ERROR}:
        return ending
    left = job.result - sum(memoryview(frame).nbytes for frame in ending.value)
    try:
        return ending._replace(files=outbox.collect(setting.output, max_bytes=left))
    except ValueCodecError as raised:
        if ending.outcome is Outcome.ERROR:
            return ending
        return Ending(_uncarried(raised), ending.ended_ns, error=_fault(raised))


def failure(raised: BaseException) -> list[bytes | memoryview]:
    """The frames of a job that could not even begin."""
    now = time.monotonic_ns()
    return [Report(outcome=Outcome.ERROR, started_ns=now, ended_ns=now).pack(), _fault(raised)]


def flush() -> None:
    """Push out what was printed; a job that closed or replaced its streams is no error."""
    for stream in (sys.stdout, sys.__stdout__, sys.stderr, sys.__stderr__):
        with contextlib.suppress(Exception):  # the stream may be any object by now
            stream.flush()  # type: ignore[union-attr]


def _run(
    job: wire.Run, code: bytes, arguments: Sequence[bytes | bytearray], setting: Setting
) -> tuple[object, int | None]:
    """Value and exit code. A plain `sys.exit()` or `sys.exit(0)` is an end like any other."""
    try:
        args, kwargs = _arguments(arguments)
        return _finish(_call(job, code, args, kwargs, setting)), None
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
        return None, 0


def _arguments(frames: Sequence[bytes | bytearray]) -> tuple[Sequence[object], dict[str, object]]:
    if not frames:
        return (), {}
    args, kwargs = cast("tuple[Sequence[object], dict[str, object]]", values.decode(frames))
    return args, kwargs


def _call(job: wire.Run, code: bytes, args: Sequence[object], kwargs: Mapping[str, object], setting: Setting) -> object:
    policy = setting.policy if job.screened else UNSCREENED
    if job.pickled:
        if policy.strict:
            raise RejectedError([_PICKLED])
        return _unpickle(job, code)(*args, **kwargs)  # type: ignore[operator]
    module = _load(code.decode(), policy, script=job.entry is None, datasets=setting.datasets)
    if job.entry is None:
        return module.__dict__.get("result")
    return _entry(module, job.entry)(*args, **kwargs)  # type: ignore[operator]


def _unpickle(job: wire.Run, code: bytes) -> object:
    """A pickle is loaded here, inside the sandbox, and nowhere else."""
    import cloudpickle

    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if job.python != here:
        raise EntryError(
            f"the function was pickled by Python {job.python}, this worker runs {here}, and byte code does not travel "
            "between versions; submit source text, or build the worker image with the loop's Python"
        )
    return cloudpickle.loads(code)


def _load(source: str, policy: Policy, *, script: bool, datasets: Mapping[str, object]) -> ModuleType:
    """Execute the source as a module: `__main__` for a script, `job` for code that has an entry."""
    linecache.cache[FILENAME] = (len(source), None, source.splitlines(keepends=True), FILENAME)
    reading = screen.examine(source, policy, filename=FILENAME)
    if reading.findings:
        raise RejectedError(reading.findings)
    module = ModuleType("__main__" if script else "job")
    module.__dict__["datasets"] = datasets
    module.__file__ = FILENAME
    sys.modules[module.__name__] = module
    exec(compile(reading.program, FILENAME, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - what we are for
    return module


def _entry(module: ModuleType, name: str) -> object:
    entry = module.__dict__.get(name)
    if callable(entry):
        return entry
    if name in module.__dict__:
        raise EntryError(f"{name!r} is a {type(entry).__name__}, not a function; name a function as entry")
    functions = sorted(key for key, value in module.__dict__.items() if inspect.isfunction(value))
    raise EntryError(f"the code defines no {name!r}; it defines: {', '.join(functions[:20]) or 'no function'}")


def _finish(value: object) -> object:
    """A coroutine is run to its end; everything else is the value as it is."""
    return asyncio.run(value) if inspect.iscoroutine(value) else value


def _rejection(raised: RejectedError) -> bytes:
    complaints = tuple(
        wire.Complaint(rule=each.rule, line=each.line, column=each.column, reason=each.reason, remedy=each.remedy)
        for each in raised.findings
    )
    return wire.encode_fault(wire.Fault(type="Rejected", message=_message(raised), findings=complaints))


def _exit_code(raised: BaseException) -> int | None:
    if not isinstance(raised, SystemExit):
        return None
    return raised.code & 0xFF if isinstance(raised.code, int) else 1


def _fault(raised: BaseException) -> bytes:
    return wire.encode_fault(
        wire.Fault(type=_type_name(raised), message=_message(raised), traceback=_traceback(raised))
    )


def _type_name(raised: BaseException) -> str:
    kind = type(raised)
    return _clean(
        kind.__qualname__
        if kind.__module__ in {"builtins", "job", "__main__", __name__}
        else f"{kind.__module__}.{kind.__qualname__}",
        512,
    )


def _message(raised: BaseException) -> str:
    try:
        return _clean(str(raised), _MESSAGE_CHARS)
    except Exception as error:  # noqa: BLE001 - __str__ is the job's
        return f"<its __str__ raised {type(error).__name__}>"


def _traceback(raised: BaseException) -> str:
    """As Python prints it, from the job's own first line on."""
    try:
        lines = traceback.format_exception(type(raised), raised, _own_frames(raised.__traceback__), limit=50)
        return _clean("".join(lines), _TRACEBACK_CHARS)
    except Exception as error:  # noqa: BLE001 - formatting calls into the job's objects
        return f"<its traceback could not be formatted: {type(error).__name__}>"


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    at = trace
    while at is not None and at.tb_frame.f_code.co_filename != FILENAME:
        at = at.tb_next
    return at


def _clean(text: str, most: int) -> str:
    """At most `most` characters that UTF-8 can carry; the middle of a longer text goes, for both ends matter."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n... {len(text) - most} characters left out ...\n{text[-(most // 2) :]}"

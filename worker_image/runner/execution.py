"""Runs the code of one job and turns whatever comes of it into frames. Called in the child, and nowhere else.

Everything here may be subverted by the job once its code has begun; nothing here is trusted by the runner.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import inspect
import io
import linecache
import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic_ns  # by name: a job may put a clock of its own into the module
from types import ModuleType
from typing import NamedTuple, NoReturn, cast

from pool import screen, values, wire
from pool.errors import ValueCodecError
from pool.model import Finding, Outcome
from pool.screen import Policy
from runner import fault, outbox
from runner.fault import FILENAME
from runner.report import ABOUT, Report

UNSCREENED = Policy(mode="off")
#: Whatever a job does to the builtins, what comes after it has them. No name in this is looked up when it is called.
_mend_builtins = partial(vars(builtins).update, dict(vars(builtins)))
#: The words for a job that has taken all its memory take memory themselves: so much comes on top of its limit.
ROOM_BYTES = 4 << 20
_trace, _profile = sys.settrace, sys.setprofile
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
    about: str = ""  #: what its error is about, if that is known
    error: bytes = b""
    files: Sequence[bytes | memoryview] = ()
    value: Sequence[bytes | memoryview] = ()


def execute(
    job: wire.Run, code: bytes, arguments: Sequence[bytes | bytearray], setting: Setting
) -> list[bytes | memoryview]:
    """Run the job; the frames of its answer: [report, error, *file names and contents, *value]."""
    owner, started_ns = os.getpid(), monotonic_ns()
    try:
        ending = _ending(job, code, arguments, setting)
        flush()
        if os.getpid() != owner:
            _leave(ending)
        _have_a_descriptor()
        ending = _with_files(ending, job, setting)
    except BaseException as raised:  # noqa: BLE001 - the job has broken what is used here, or left it no memory
        ending = _untold(raised)
    report = Report(
        outcome=ending.outcome,
        started_ns=started_ns,
        ended_ns=ending.ended_ns,
        exit_code=ending.exit_code,
        about=ending.about,
        files=len(ending.files) // 2,
    )
    return [report.pack(), ending.error, *ending.files, *ending.value]


def _ending(job: wire.Run, code: bytes, arguments: Sequence[bytes | bytearray], setting: Setting) -> Ending:
    ended_ns, room = 0, _room()
    if room is None:  # its arguments and files have taken it all
        return Ending(Outcome.MEMORY, monotonic_ns())
    try:
        value, exit_code = _run(job, code, arguments, setting)
        ended_ns = monotonic_ns()
        return Ending(Outcome.OK, ended_ns, exit_code, value=values.encode(value, max_bytes=job.result))
    except RejectedError as raised:
        return Ending(Outcome.REJECTED, monotonic_ns(), error=_rejection(raised))
    except MemoryError as raised:
        room.close()
        return Ending(Outcome.MEMORY, monotonic_ns(), error=fault.encoded(raised))
    except BaseException as raised:  # noqa: BLE001 - a job may raise anything at all, and all of it is its result
        if ended_ns and isinstance(raised, ValueCodecError):
            return _uncarried(raised, ended_ns)
        return _raised(raised)


def _room() -> mmap.mmap | None:
    try:
        return mmap.mmap(-1, ROOM_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return None


def _raised(raised: BaseException) -> Ending:
    about, exit_code = fault.limit_of(raised), fault.exit_code(raised)
    if about == "memory":  # as a system call puts it
        return Ending(Outcome.MEMORY, monotonic_ns(), error=fault.encoded(raised))
    return Ending(Outcome.ERROR, monotonic_ns(), exit_code, about=about, error=fault.encoded(raised))


def _untold(raised: BaseException) -> Ending:
    if issubclass(type(raised), MemoryError):
        return Ending(Outcome.MEMORY, monotonic_ns())
    return Ending(Outcome.ERROR, monotonic_ns(), error=fault.UNTOLD)


def _have_a_descriptor() -> None:
    """One is needed for the files, and the job may have all of them in use; its stdin is of no use any more."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        with contextlib.suppress(OSError):
            os.close(0)


def _leave(ending: Ending) -> NoReturn:
    """The end of a process that the job has forked and that came out of its code: who forked it answers."""
    if ending.error and ending.exit_code is None:
        os.write(2, wire.decode_fault(ending.error).traceback.encode())
    os._exit(ending.exit_code or int(ending.outcome is not Outcome.OK))


def _uncarried(raised: ValueCodecError, ended_ns: int) -> Ending:
    """Its value or its files are over a limit, or of a kind that cannot be carried."""
    outcome = Outcome.OUTPUT if "limit" in raised.fields else Outcome.ERROR
    return Ending(outcome, ended_ns, about="value", error=fault.encoded(raised))


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
        return _uncarried(raised, ending.ended_ns)


def failure(raised: BaseException) -> list[bytes | memoryview]:
    """The frames of a job that could not even begin."""
    now = monotonic_ns()
    about = fault.limit_of(raised)
    report = Report(outcome=Outcome.ERROR, started_ns=now, ended_ns=now, about=about if about in ABOUT else "")
    return [report.pack(), fault.encoded(raised)]


def flush() -> None:
    """Push out what was printed; a job that closed or replaced its streams is no error."""
    for name in ("stdout", "__stdout__", "stderr", "__stderr__"):
        with contextlib.suppress(BaseException):  # the stream may be any object by now, or none
            getattr(sys, name).flush()


def _run(
    job: wire.Run, code: bytes, arguments: Sequence[bytes | bytearray], setting: Setting
) -> tuple[object, int | None]:
    """Value and exit code. To exit with status 0 is an end like any other."""
    try:
        return _finish(_called(job, code, arguments, setting)), None
    except SystemExit as end:
        if fault.exit_code(end) != 0:
            raise
        return None, 0


def _called(job: wire.Run, code: bytes, arguments: Sequence[bytes | bytearray], setting: Setting) -> object:
    args, kwargs = _arguments(arguments)
    try:
        return _call(job, code, args, kwargs, setting)
    finally:
        _trace(None)
        _profile(None)
        _mend_builtins()


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
    module = _load(code.decode("utf-8-sig"), policy, script=job.entry is None, datasets=setting.datasets)
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
    linecache.cache[FILENAME] = (len(source), None, list(io.StringIO(source, newline=None)), FILENAME)
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
        wire.Finding(rule=each.rule, line=each.line, column=each.column, reason=each.reason, remedy=each.remedy)
        for each in raised.findings
    )
    return wire.encode_fault(wire.Fault(type="Rejected", message=fault.message(raised), findings=complaints))

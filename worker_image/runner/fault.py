"""A job's exception as data: type, message, traceback, exit code. Called in the child, before the job's deadline.

The exception is the job's own object, and every question to it may run code of the job: a property that raises, a
`__str__` that exits, a name that is not text. So whatever the interpreter itself keeps is read from where it keeps it.
What only the object can say is asked once and may fail in any way. A question that never ends is ended with the job.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pool import wire
from pool.outcome import Finding

FILENAME = "<job>"
#: The code that calls a job, and that parses it for the screen. A traceback begins after its frames.
_CALLERS = (
    f"{Path(__file__).parent}/",
    f"{Path(wire.__file__).parents[1]}/",
    f"{Path(contextlib.__file__).with_name('asyncio')}/",
    ast.__file__,
)
_TYPE_CHARS = 512
_MESSAGE_CHARS = 16_384
_TRACEBACK_CHARS = 65_536
_GAP_CHARS = 60
#: Of the frames, the last ones: as many as the interpreter prints.
_FRAMES = -1000
#: Modules that are left out of the name of a type.
_UNNAMED = frozenset({"builtins", "job", "__main__", "runner.program"})
_LONG = 1 << 63
#: Taken now, because a job may replace them in their modules.
_statvfs, _excepthook, _current_frames = os.statvfs, sys.__excepthook__, sys._current_frames  # noqa: SLF001

_qualname_of = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__
_trace_of = BaseException.__dict__["__traceback__"].__get__
_set_trace = BaseException.__dict__["__traceback__"].__set__
_arguments_of = BaseException.__dict__["args"].__get__
_code_of = SystemExit.__dict__["code"].__get__
_errno_of = OSError.__dict__["errno"].__get__

#: The limit that a system error is about, by errno.
_LIMITS = {
    errno.ENOSPC: "tmp",
    errno.EFBIG: "tmp",
    errno.EMFILE: "nofile",
    errno.EAGAIN: "processes",
    errno.ENOMEM: "memory",
}

#: What a limit is called in the configuration, for the client.
_LIMIT_KEYS = {"tmp": "tmp", "inodes": "tmp_inodes", "nofile": "nofile", "processes": "processes", "memory": "memory"}
#: Functions that start a program.
_STARTS = frozenset({"_fork_exec", "fork_exec", "posix_spawn", "posix_spawnp", "execv", "execve"})

#: Functions that fail with EAGAIN because there is no process left. Others fail with EAGAIN for other reasons.
_FORKS = frozenset({"fork", "forkpty", "_fork_exec", "fork_exec", "posix_spawn"})

#: For a job that has broken what its error would be written with. Therefore it is written before any job.
UNKNOWN = wire.encode_fault(
    wire.Fault(
        type="UnknownError",
        message="the job ended, but its answer could not be made, because the job had changed what makes it",
    )
)


def encoded(raised: BaseException) -> bytes:
    """The error frame of an answer."""
    fault = wire.Fault(
        type=_type_name(type(raised)),
        message=message(raised),
        traceback=_traceback(raised),
        limit=_LIMIT_KEYS.get(limit_of(raised), ""),
    )
    return wire.encode_fault(fault)


def rejected(findings: Sequence[Finding], summary: str) -> bytes:
    """The error frame of a job that the screen refused."""
    found = tuple(
        wire.Finding(rule=each.rule, line=each.line, column=each.column, reason=each.reason, remedy=each.remedy)
        for each in findings
    )
    return wire.encode_fault(wire.Fault(type="Rejected", message=summary, findings=found))


def exit_code(raised: BaseException) -> int | None:
    """The exit status that Python makes of a SystemExit; None for other exceptions."""
    if not issubclass(type(raised), SystemExit):  # isinstance would call code of the object
        return None
    code = _code_of(raised)
    if code is None:
        return 0
    if not issubclass(type(code), int):
        return 1
    return int.__and__(code, 0xFF) if int.__lt__(code, _LONG) and int.__ge__(code, -_LONG) else 0xFF


def exit_text(raised: BaseException) -> str:
    """What Python prints to stderr for a SystemExit whose code is not a number."""
    code = _code_of(raised)
    return "" if code is None or issubclass(type(code), int) else message(code)


def limit_of(raised: BaseException) -> str:
    """The limit that the job has reached, if the error is about one; otherwise ""."""
    if issubclass(type(raised), OSError):
        given = _errno_of(raised)
        # A job may put anything there: a list has no hash, and __eq__ may be the job's code.
        number = given if type(given) is int else 0
        found = _LIMITS.get(number, "")
        if number == errno.ENOSPC and _no_inodes():
            return "inodes"
        if number in {errno.EPERM, errno.EACCES} and _raised_by(_STARTS, _trace_of(raised)):
            return "programs"
        return "" if found == "processes" and not _raised_by(_FORKS, _trace_of(raised)) else found
    thread = type(raised) is RuntimeError and _arguments_of(raised) == ("can't start new thread",)
    return "processes" if thread else ""


def _no_inodes() -> bool:
    with contextlib.suppress(OSError):
        return _statvfs("/tmp").f_favail == 0  # noqa: S108 - the scratch space
    return False


def _raised_by(functions: frozenset[str], trace: TracebackType | None) -> bool:
    """Whether it was raised by code that calls one of these functions."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and not functions.isdisjoint(trace.tb_frame.f_code.co_names)


def message(raised: object) -> str:
    try:
        return clean(str(raised), _MESSAGE_CHARS)
    except BaseException as error:  # noqa: BLE001 - __str__ is the job's
        return f"<its __str__ raised {_type_name(type(error))}>"


def clean(text: str, most: int) -> str:
    """At most `most` characters that UTF-8 can encode. A longer text loses its middle, because both ends matter."""
    text = _cut(str.__str__(text), most)
    return _cut(str.encode(text, "utf-8", "backslashreplace").decode(), most)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    kept = (most - _GAP_CHARS) // 2
    return f"{text[:kept]}\n... {len(text) - 2 * kept} characters left out ...\n{text[-kept:]}"


def _type_name(kind: type) -> str:
    name, module = _qualname_of(kind), None
    with contextlib.suppress(AttributeError):
        module = _module_of(kind)
    prefix = f"{module}." if type(module) is str and module not in _UNNAMED else ""
    return clean(prefix + str.__str__(name), _TYPE_CHARS)


def _traceback(raised: BaseException) -> str:
    """As Python prints it, from the job's own first line on."""
    own = own_trace(raised)
    try:
        return clean(formatted(raised, own), _TRACEBACK_CHARS)
    except BaseException as error:  # noqa: BLE001 - formatting calls into the job's objects
        why = f"<the rest could not be formatted: {_type_name(type(error))}>\n"
    try:
        return clean("".join(traceback.format_tb(own, limit=_FRAMES)) + why, _TRACEBACK_CHARS)
    except BaseException:  # noqa: BLE001 - the job may have replaced the traceback module's functions
        return why


def formatted(raised: BaseException, trace: TracebackType | None) -> str:
    """As the interpreter prints it, with its suggestion for a misspelled name. May raise what the job raises.

    The traceback module suggests names since 3.12. Before, only the interpreter's own hook does, which prints to
    sys.stderr: it is asked only if no other thread can print there meanwhile.
    """
    text = "".join(traceback.format_exception(type(raised), raised, trace, limit=_FRAMES))
    misspelled = issubclass(type(raised), NameError | AttributeError)
    if sys.version_info >= (3, 12) or not misspelled or len(_current_frames()) > 1:
        return text
    line = traceback.format_exception_only(type(raised), raised)[0].removesuffix("\n")
    _, found, suggested = _printed_by_interpreter(raised).rpartition(f"{line}. Did you mean: ")
    before, _, after = text.rpartition(line)
    return f"{before}{line}. Did you mean: {suggested.partition(chr(10))[0]}{after}" if found else text


def _printed_by_interpreter(raised: BaseException) -> str:
    stderr, sys.stderr = sys.stderr, io.StringIO()
    try:
        _excepthook(type(raised), raised, None)
        return sys.stderr.getvalue()
    finally:
        sys.stderr = stderr


def forget_callers(raised: BaseException) -> None:
    """Let the job's own hook and handlers see its own frames only."""
    with contextlib.suppress(TypeError):
        _set_trace(raised, own_trace(raised))


def own_trace(raised: BaseException) -> TracebackType | None:
    """From the first frame that is the job's: of its source, or of a function from a file of its client."""
    at: TracebackType | None = _trace_of(raised)
    while at is not None and str.startswith(at.tb_frame.f_code.co_filename, _CALLERS):
        at = at.tb_next
    return at

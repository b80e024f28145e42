"""Makes the frames of one Submit message from a user's request. Every mistake is found here, before anything is sent.

    payload   [code, stdin, *files, *arguments]        arguments: the frames of the value (args, kwargs), if any
              [grader, *arguments]                     after it, if the value is to be graded

A job is encoded once. InvalidJobError names the field, what is wrong with it and what to give instead; TooLargeError
has both sizes; ValueCodecError names the argument. The frames are a copy of the caller's data, so an array that he
changes after the call arrives as it was. Large data is copied once, into the memory that libzmq sends from.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import zmq

from pool import values, wire
from pool.client import checks
from pool.client.checks import Buffer
from pool.client.fences import without_fences
from pool.client.options import ON_DISCONNECT, Code, JobOptions, OnDisconnect, Program
from pool.errors import InvalidJobError, LocalProtocolError, TooLargeError, ValueCodecError
from pool.model import Limits

if TYPE_CHECKING:
    from pool.client.connection import Connection

MAX_FILES = 256
MAX_ARGV = 256
MAX_ARGUMENT = 8192
MAX_ENV = 64
MAX_PRIORITY = 100
MAX_ENV_NAME = 256
MAX_ENV_VALUE = 8192
MAX_SIZE = 1 << 50
#: As source text it would be an attribute of a name that no program has.
_FILE_NAME = re.compile(r"\s*[^\s()\[\]{}=:;,'\"#]{1,300}\.py\s*")
#: The directory, inside the job's work directory, where the job leaves its own files.
OUTPUT_DIRECTORY = "out"
#: From this size on a frame is copied into libzmq's memory when the job is built, and not again when it is sent.
LARGE_BYTES: Final = 65_536


class Submission(NamedTuple):
    """A valid job, encoded: may be sent any number of times."""

    message: wire.Submit
    frames: list[bytes | zmq.Frame]


class JobMaker:
    """Makes the jobs of one client, or without a connection those that no daemon gets.

    `on_disconnect`: what becomes of its jobs when it vanishes; None: what each caller of `make` names.
    """

    def __init__(
        self, connection: Connection | None = None, *, pool: str, on_disconnect: OnDisconnect | None = None
    ) -> None:
        self._pool = pool
        self._connection = connection
        if on_disconnect is not None:
            checks.choice("on_disconnect", on_disconnect, ON_DISCONNECT)
        self._on_disconnect: Final = on_disconnect

    def make(  # noqa: PLR0913 - all but the first two by keyword
        self,
        code: Code | Program,
        options: JobOptions,
        *,
        on_disconnect: OnDisconnect = "keep",
        watch: bool = True,
        stream: bool = False,
        calls: Sequence[Sequence[Buffer]] | None = None,
        apart: bool = False,
    ) -> Submission:
        """Raises InvalidJobError, TooLargeError or ValueCodecError.

        `on_disconnect` holds where neither the options nor the client have one. `watch`: send the result; `stream`:
        and the output. `calls`: the arguments of each call of a chunk, in place of those in the options; if they run
        `apart`, each begins with the call's stdin.
        """
        if unknown := options.keys() - JobOptions.__annotations__.keys():
            raise TypeError(f"a job has no option {min(unknown)!r}; it has {', '.join(JobOptions.__annotations__)}")
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        program = code if isinstance(code, Program) else program_of(code, given.get("entry"), given.get("strip_fences"))
        rest = _rest(given) if given.keys() - _CALL else _Rest({})
        arguments: Sequence[Buffer] = ()
        if calls is not None:
            arguments = [frame for call in calls for frame in call]
        elif _VALUES & given.keys():
            arguments = arguments_of(program, given.get("args", ()), given.get("kwargs"))
        payload = [program.frame, rest.stdin, *rest.files, *arguments, *rest.grading]
        how = {"watch": watch, "stream": stream, "calls": tuple(map(len, calls or ())), "apart": apart}
        return self._encoded(program, how | rest.fields, payload, on_disconnect)

    def _encoded(
        self, program: Program, fields: dict[str, Any], payload: Sequence[Buffer], on_disconnect: OnDisconnect
    ) -> Submission:
        """Raises TooLargeError."""
        if (size := sum(map(len, payload))) > wire.MAX_JOB_BYTES:
            what = "the job (code, stdin, files, arguments)"
            raise checks.too_large(what, size, wire.MAX_JOB_BYTES, "mount large data as a data set")
        last = fields.pop("on_disconnect", None) or self._on_disconnect or on_disconnect
        message = wire.Submit(
            request=self._connection.next_number() if self._connection else 0,
            job_id=fields.pop("job_id", None) or os.urandom(16).hex(),
            pool=fields.pop("pool", self._pool),
            entry=program.entry,
            pickled=program.pickled,
            python=program.python,
            session=self._connection.io[os.getpid()].session if self._connection and last == "cancel" else None,
            **fields,
        )
        try:
            frames = wire.encode(message, payload)
        except LocalProtocolError as error:
            remedy = "use fewer or shorter files, names and environment variables"
            raise TooLargeError(f"{error.message}; {remedy}") from None
        if size < LARGE_BYTES:
            return Submission(message, [*map(bytes, frames)])
        copied = [zmq.Frame(each, copy=True) if len(each) >= LARGE_BYTES else bytes(each) for each in frames]
        return Submission(message, copied)


def build(code: Code | Program, options: JobOptions, *, pool: str, stream: bool = False) -> Submission:
    """A job that no daemon gets. As `JobMaker.make`."""
    return JobMaker(pool=pool).make(code, options, stream=stream)


def grader_of(grade: Code | Program) -> Program:
    """A grader, encoded: for any number of jobs."""
    if isinstance(grade, Program):
        return grade
    if not isinstance(grade, str) and not callable(grade):
        remedy = "give source text with a function grade(value), or a callable"
        raise checks.invalid("grade", f"it is {checks.kind(grade)}", remedy)
    if isinstance(grade, str):
        checks.utf8("grade", grade)
    return program_of(grade, "grade" if isinstance(grade, str) else None)


def program_of(code: Code, entry: object = None, strip_fences: object = None) -> Program:
    """Source text with the name of its entry, or a callable, which has none."""
    if strip_fences is not None and checks.flag("strip_fences", strip_fences) and isinstance(code, str):
        code = without_fences(code)
    if isinstance(code, str):
        if _FILE_NAME.fullmatch(code):
            remedy = "give its content, such as Path('job.py').read_text()"
            raise checks.invalid("code", f"{code!r:.150} is the name of a file and no source text", remedy)
        if entry is not None:
            entry = str.__str__(entry) if isinstance(entry, str) else checks.text("entry", entry)
            if len(entry) > checks.MAX_WORD or not all(map(str.isidentifier, entry.split("."))):
                raise checks.invalid("entry", f"{entry!r:.150} is not a name", "name a function of the code")
        try:
            program = Program(code.encode(), entry=entry)
        except UnicodeEncodeError as error:
            raise checks.not_utf8("code", error) from None
    else:
        program = _callable(code, entry)
    if len(program.frame) > wire.MAX_CODE_BYTES:
        remedy = "pass what it refers to as arguments" if program.pickled else "pass data as arguments or files"
        raise checks.too_large("the code", len(program.frame), wire.MAX_CODE_BYTES, remedy)
    return program


def _callable(code: object, entry: object) -> Program:
    if not callable(code):
        how = ", such as path.read_text()" if isinstance(code, os.PathLike) else ""
        raise checks.invalid("code", f"it is {checks.kind(code)}", f"give source text (str{how}) or a callable")
    if entry is not None:
        raise checks.invalid("entry", "a callable has none", "leave it out, or submit source text")
    from pool.client.pickling import pickled  # a loop that submits source text needs no cloudpickle

    return Program(pickled(code), pickled=True, python=f"{sys.version_info.major}.{sys.version_info.minor}")


# ---- options that become frames ----

_VALUES = {"args", "kwargs"}
#: The options that say what is called.
_CALL = {"entry", "strip_fences", *_VALUES}


class _Rest(NamedTuple):
    """What the other options become: fields of the message, and frames."""

    fields: dict[str, Any]
    stdin: Buffer = b""
    files: Sequence[Buffer] = ()
    grading: Sequence[Buffer] = ()


def _rest(given: Mapping[str, Any]) -> _Rest:
    files = _files(given["files"]) if "files" in given else {}
    stdin = stdin_of(given["stdin"]) if "stdin" in given else b""
    grader, grading = _grader(given) if "grade" in given or "grade_args" in given else (None, ())
    fields = {_FIELDS[name][0]: _FIELDS[name][1](name, value) for name, value in given.items() if name in _FIELDS}
    fields |= {"files": tuple(files), "grade": grader}
    if fields.get("trace"):
        fields["sent_ns"] = time.monotonic_ns()
    return _Rest(fields, stdin, list(files.values()), grading)


def stdin_of(given: object) -> Buffer:
    """The frame of a stdin. Raises InvalidJobError."""
    return checks.utf8("stdin", given) if isinstance(given, str) else checks.content("stdin", given)


def _files(given: Mapping[str, Buffer]) -> dict[str, Buffer]:
    names = checks.file_names("files", checks.mapping("files", given, MAX_FILES))
    contents = [checks.content(f"files[{name!r:.80}]", content) for name, content in given.items()]
    files = dict(zip(names, contents, strict=True))
    if any(name.partition("/")[0] == OUTPUT_DIRECTORY for name in files):
        problem = f"{OUTPUT_DIRECTORY!r} is the directory where the job leaves its own files"
        raise checks.invalid("files", problem, "give the file another name")
    return files


def arguments_of(program: Program, args: object, kwargs: Mapping[str, object] | None) -> Sequence[Buffer]:
    """The frames of the arguments of one call. Raises InvalidJobError or ValueCodecError."""
    if not isinstance(args, (list, tuple)):
        raise checks.invalid("args", f"it is {checks.kind(args)}", "give a list or tuple, such as args=[21]")
    given = {} if kwargs is None else checks.mapping("kwargs", kwargs, wire.MAX_FRAMES)
    named = {checks.text("kwargs", name): value for name, value in given.items()}
    if not args and not named:
        return ()
    if program.entry is None and not program.pickled:
        raise checks.invalid("args" if args else "kwargs", "a script takes none", "name the function of it as entry")
    try:
        return values.encode([list(args), named], max_bytes=wire.MAX_JOB_BYTES)
    except ValueCodecError as error:
        raise _naming_argument(args, named, error) from error


def _grader(given: Mapping[str, Any]) -> tuple[wire.Grader, Sequence[Buffer]]:
    if "grade" not in given:
        raise checks.invalid("grade_args", "there is no grade", "give the grader as grade, or leave them out")
    program = grader_of(given["grade"])
    try:
        arguments = arguments_of(program, given.get("grade_args", ()), None)
    except (InvalidJobError, ValueCodecError) as error:
        raise type(error)(f"grade_{error.message}", **error.fields) from error
    grader = wire.Grader(entry=program.entry, pickled=program.pickled, python=program.python, arguments=len(arguments))
    return grader, (program.frame, *arguments)


def _naming_argument(args: Sequence[object], kwargs: Mapping[str, object], found: ValueCodecError) -> ValueCodecError:
    """The same error, with the argument that it is about."""
    arguments = [(f"args[{index}]", value) for index, value in enumerate(args)]
    for name, value in [*arguments, *((f"kwargs[{key!r:.80}]", value) for key, value in kwargs.items())]:
        try:
            values.encode(value, max_bytes=wire.MAX_JOB_BYTES)
        except ValueCodecError as error:
            return ValueCodecError(f"{name}: {error.message}", **{**error.fields, "argument": name})
    return found


# ---- options that become fields of the message ----


def _env(field: str, given: Mapping[str, str]) -> dict[str, str]:
    env = checks.mapping(field, given, MAX_ENV)
    return {_env_name(field, name): _env_value(f"{field}[{name!r:.80}]", value) for name, value in env.items()}


def _argv(field: str, given: object) -> tuple[str, ...]:
    if not isinstance(given, (list, tuple)):
        raise checks.invalid(field, f"it is {checks.kind(given)}", "give a list or tuple of text, such as ['--n', '3']")
    if len(given) > MAX_ARGV:
        raise checks.invalid(field, f"it has {len(given)} items", f"give at most {MAX_ARGV}")
    return tuple(_argument(f"{field}[{index}]", each) for index, each in enumerate(given))


def _argument(field: str, given: object) -> str:
    found = checks.text(field, given)
    checks.utf8(field, found)
    if "\0" in found or len(found) > MAX_ARGUMENT:
        problem = "it holds a NUL" if "\0" in found else f"it has {len(found)} characters"
        raise checks.invalid(field, problem, f"give at most {MAX_ARGUMENT} characters without NUL, or send a file")
    return found


def _env_name(field: str, given: object) -> str:
    name = checks.text(field, given)
    checks.utf8(field, name)
    if not name or "=" in name or "\0" in name or len(name) > MAX_ENV_NAME:
        remedy = f"give 1 to {MAX_ENV_NAME} characters without '=' and NUL"
        raise checks.invalid(field, f"the name {name!r:.80} is not allowed", remedy)
    return name


def _env_value(field: str, given: object) -> str:
    value = checks.text(field, given)
    checks.utf8(field, value)
    if "\0" in value or len(value) > MAX_ENV_VALUE:
        raise checks.invalid(field, "it has NUL or is too long", f"give at most {MAX_ENV_VALUE} characters without NUL")
    return value


def _limits(field: str, given: object) -> wire.JobLimits:
    if not isinstance(given, Limits):
        remedy = "give pool.Limits, such as Limits(wall_s=30, memory='512m')"
        raise checks.invalid(field, f"it is {checks.kind(given)}", remedy)
    for name, value in given.items():
        highest = checks.MAX_SECONDS if name.endswith("_s") else MAX_SIZE
        if isinstance(value, (int, float)) and value > highest:
            raise checks.invalid(f"{field}.{name}", f"{value!r:.40} is too much", f"give at most {highest}")
    return wire.JobLimits(**dict(given.items()))  # type: ignore[arg-type]


#: An option, the field of the message that it becomes, and its check.
_FIELDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "job_id": ("job_id", checks.job_id),
    "pool": ("pool", checks.word),
    "env": ("env", _env),
    "argv": ("argv", _argv),
    "limits": ("limits", _limits),
    "seed": ("seed", partial(checks.whole, lowest=0, highest=(1 << 32) - 1)),
    "priority": ("priority", partial(checks.whole, lowest=-MAX_PRIORITY, highest=MAX_PRIORITY)),
    "queue_timeout": ("queue_timeout_s", checks.seconds),
    "retries": ("retries", partial(checks.whole, lowest=0, highest=10)),
    "trace": ("trace", checks.flag),
    "explain_denials": ("explain", checks.flag),
    "on_disconnect": ("on_disconnect", partial(checks.choice, allowed=ON_DISCONNECT)),
}

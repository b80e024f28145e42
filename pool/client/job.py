"""What a user asks for -> a Submit and its payload. Everything that is wrong with it is found here, before it is sent.

    payload   [code, stdin, *files, *arguments]        arguments: the frames of the value (args, kwargs), none for none

InvalidJobError names the field, what is wrong with it and what would be right; TooLargeError carries both numbers;
ValueCodecError names the argument. The payload is made of `bytes` only: an array that the caller changes after a call
that does not wait would otherwise change on its way.
"""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypedDict

from pool import values, wire
from pool.client import checks
from pool.client.checks import Buffer
from pool.client.results import plain_name
from pool.errors import LocalProtocolError, TooLargeError, ValueCodecError
from pool.model import Limits

Code = str | Callable[..., object]

MAX_FILES = 256
MAX_NAME_BYTES = 255
MAX_ENV = 64
MAX_ENV_NAME = 256
MAX_ENV_VALUE = 8192
MAX_SIZE = 1 << 50
_JOB_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
#: Of the job's work directory, where it leaves its own files.
OUTPUT_DIRECTORY = "out"


class JobOptions(TypedDict, total=False):
    """What may be said about a job besides its code. None is the same as not saying it.

    What is called may be anything that can be called. A coroutine function is run to its end; what a class makes has to
    be data; a generator, asynchronous or not, is none: return `list(...)` of it. A job ends when its code does: exit
    handlers do not run, and threads and processes that live on are killed.
    """

    entry: str | None  #: the function of the source text to call; None: a script, whose variable `result` is the value
    args: Sequence[object]
    kwargs: Mapping[str, object] | None
    stdin: Buffer | str | None
    files: Mapping[str, Buffer] | None  #: plain names to contents, put into the job's work directory
    env: Mapping[str, str] | None
    limits: Limits | None
    seed: int | None  #: 0 to 2**32 - 1: for random and numpy.random, not for a default_rng() that is given none
    pool: str | None
    priority: int  #: -100 to 100; higher goes first among the jobs of one client
    job_id: str | None  #: the same id again is the same job; None: a new one
    queue_timeout: float | None  #: seconds the job may wait for a worker
    explain_denials: bool  #: write each system call that the sandbox denies, and the line that made it, to stderr


class Program(NamedTuple):
    """The code frame and how to read it."""

    frame: bytes
    entry: str | None = None
    pickled: bool = False
    python: str = ""


class Draft(NamedTuple):
    """A valid job that has no request number yet."""

    submit: wire.Submit
    payload: list[wire.Frame]


def build(code: Code | Program, options: JobOptions, *, pool: str) -> Draft:
    """Raises InvalidJobError, TooLargeError or ValueCodecError."""
    _known(options)
    program = code if isinstance(code, Program) else program_of(code, options.get("entry"))
    files = _files(options.get("files"))
    arguments = _arguments(program, options.get("args"), options.get("kwargs"))
    payload: list[wire.Frame] = [program.frame, _stdin(options.get("stdin")), *files.values(), *arguments]
    submit = wire.Submit(
        request=0,
        job_id=_job_id(options.get("job_id")),
        pool=checks.word("pool", pool if options.get("pool") is None else options.get("pool")),
        entry=program.entry,
        pickled=program.pickled,
        python=program.python,
        files=tuple(files),
        env=_env(options.get("env")),
        limits=_limits(options.get("limits")),
        seed=checks.whole("seed", options.get("seed"), 0, (1 << 32) - 1),
        priority=checks.whole("priority", options.get("priority"), -100, 100) or 0,
        queue_timeout_s=checks.seconds("queue_timeout", options.get("queue_timeout")),
        explain=checks.flag("explain_denials", options.get("explain_denials", False)),
    )
    _check_size(submit, payload)
    return Draft(submit, payload)


def program_of(code: Code, entry: str | None = None) -> Program:
    """Source text with the name of its entry, or a callable, which is its own entry."""
    if isinstance(code, str):
        name = None if entry is None else checks.word("entry", entry)
        if name is not None and not all(part.isidentifier() for part in name.split(".")):
            raise checks.invalid("entry", f"{name!r} is not a name", "name a function of the code")
        program = Program(checks.utf8("code", code), entry=name)
    elif callable(code):
        from pool.client.pickling import pickled  # cloudpickle is not needed by a loop that submits source text

        if entry is not None:
            raise checks.invalid("entry", "a callable has none", "leave it out, or submit source text")
        program = Program(pickled(code), pickled=True, python=f"{sys.version_info.major}.{sys.version_info.minor}")
    else:
        raise checks.invalid("code", f"it is {checks.kind(code)}", "give source text (str) or a callable")
    if len(program.frame) > wire.MAX_CODE_BYTES:
        remedy = "pass what it refers to as arguments" if program.pickled else "pass data as arguments or files"
        raise checks.too_large("the code", len(program.frame), wire.MAX_CODE_BYTES, remedy)
    return program


def checked_id(given: object) -> str:
    if not isinstance(given, str) or not _JOB_ID.fullmatch(given):
        remedy = "1 to 128 of the characters A-Z a-z 0-9 . _ : -, or leave it out"
        raise checks.invalid("job_id", f"{given!r:.150} will not do", remedy)
    return checks.text("job_id", given)


def _job_id(given: str | None) -> str:
    return uuid.uuid4().hex if given is None else checked_id(given)


def _known(options: JobOptions) -> None:
    unknown = options.keys() - JobOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"a job has no option {min(unknown)!r}; it has {', '.join(JobOptions.__annotations__)}")


def _stdin(given: Buffer | str | None) -> bytes:
    if given is None:
        return b""
    return checks.utf8("stdin", given) if isinstance(given, str) else checks.content("stdin", given)


def _files(given: Mapping[str, Buffer] | None) -> dict[str, bytes]:
    files = checks.mapping("files", given, MAX_FILES)
    return {_file_name(name): checks.content(f"files[{name!r:.80}]", content) for name, content in files.items()}


def _file_name(given: object) -> str:
    name = checks.text("files", given)
    if len(checks.utf8("files", name)) > MAX_NAME_BYTES or not plain_name(name):
        remedy = f"give a plain file name of 1 to {MAX_NAME_BYTES} bytes, without '/', '..' and NUL"
        raise checks.invalid("files", f"the name {name!r:.150} will not do", remedy)
    if name == OUTPUT_DIRECTORY:
        raise checks.invalid("files", f"{name!r} is where the job leaves its own files", "give it another name")
    return name


def _env(given: Mapping[str, str] | None) -> dict[str, str]:
    env = checks.mapping("env", given, MAX_ENV)
    return {_env_name(name): _env_value(f"env[{name!r:.80}]", value) for name, value in env.items()}


def _env_name(given: object) -> str:
    name = checks.text("env", given)
    checks.utf8("env", name)
    if not name or "=" in name or "\0" in name or len(name) > MAX_ENV_NAME:
        raise checks.invalid("env", f"the name {name!r:.80} will not do", f"1 to {MAX_ENV_NAME} characters without '='")
    return name


def _env_value(field: str, given: object) -> str:
    value = checks.text(field, given)
    checks.utf8(field, value)
    if "\0" in value or len(value) > MAX_ENV_VALUE:
        raise checks.invalid(field, "it has NUL or is too long", f"give at most {MAX_ENV_VALUE} characters without NUL")
    return value


def _arguments(program: Program, args: Sequence[object] | None, kwargs: Mapping[str, object] | None) -> list[bytes]:
    if not isinstance(args, (list, tuple, type(None))):
        raise checks.invalid("args", f"it is {checks.kind(args)}", "give a list or tuple, such as args=[21]")
    given = checks.mapping("kwargs", kwargs, wire.MAX_FRAMES)
    named = {checks.text("kwargs", name): value for name, value in given.items()}
    if not args and not named:
        return []
    if program.entry is None and not program.pickled:
        raise checks.invalid("args" if args else "kwargs", "a script takes none", "name the function of it as entry")
    try:
        return [bytes(each) for each in values.encode((tuple(args or ()), named), max_bytes=wire.MAX_JOB_BYTES)]
    except ValueCodecError as error:
        raise _culprit(args or (), named, error) from error


def _culprit(args: Sequence[object], kwargs: Mapping[str, object], found: ValueCodecError) -> ValueCodecError:
    """The same refusal, of the argument it is about."""
    arguments = [(f"args[{index}]", value) for index, value in enumerate(args)]
    for name, value in [*arguments, *((f"kwargs[{key!r:.80}]", value) for key, value in kwargs.items())]:
        try:
            values.encode(value, max_bytes=wire.MAX_JOB_BYTES)
        except ValueCodecError as error:
            return ValueCodecError(f"{name}: {error.message}", **{**error.fields, "argument": name})
    return found


def _limits(given: Limits | None) -> wire.JobLimits:
    if given is None:
        return wire.JobLimits()
    if not isinstance(given, Limits):
        raise checks.invalid(
            "limits", f"it is {checks.kind(given)}", "give pool.Limits, such as Limits(wall_s=30, memory='512m')"
        )
    for name, value in given.items():
        highest = checks.MAX_SECONDS if name.endswith("_s") else MAX_SIZE
        if isinstance(value, (int, float)) and value > highest:
            raise checks.invalid(f"limits.{name}", f"{value!r:.40} is absurd", f"give at most {highest}")
    return wire.JobLimits(**dict(given.items()))  # type: ignore[arg-type]


def _check_size(submit: wire.Submit, payload: Sequence[wire.Frame]) -> None:
    size = sum(map(len, payload))
    if size > wire.MAX_JOB_BYTES:
        raise checks.too_large(
            "the job (code, stdin, files, arguments)", size, wire.MAX_JOB_BYTES, "mount it as a data set"
        )
    try:
        wire.encode(submit, payload)
    except LocalProtocolError as error:
        raise TooLargeError(f"{error.message}; use fewer or shorter files, names and environment variables") from None

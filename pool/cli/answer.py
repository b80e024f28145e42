"""What the commands share: where the daemon is, how to ask it, and how to print an answer or an error.

1. With `--json`, stdout gets one JSON object and nothing else: the daemon's answer unchanged, or
   `{"error": {"code", "message", "fields"}}`.
2. Without it, an error is one line on stderr.
3. The exit status is always one of `ExitStatus`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import date
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pool._version import __version__
from pool.cli.views import read
from pool.client.endpoint import ADMIN, SUBMIT, socket_in
from pool.errors import ConfigError, DaemonUnreachableError, PoolError, UnknownJobError
from pool.printable import visible
from pool.status import Jobs, Status

if TYPE_CHECKING:
    from pool.model import JobResult


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text for people.")]


class ExitStatus(IntEnum):
    OK = 0
    ERROR = 1
    USAGE = 2
    UNREACHABLE = 3
    DEGRADED = 4
    INTERRUPTED = 130


def address(context: typer.Context) -> Address:
    """The endpoints from the shared options."""
    return context.ensure_object(Address)


def ask(context: typer.Context, name: str, **arguments: str | float | None) -> object:
    """Call the daemon; arguments that are None are left out."""
    from pool.client.admin import AdminClient

    with AdminClient(address(context).admin) as client:
        return client.call(name, **{key: value for key, value in arguments.items() if value is not None})


def ask_about(context: typer.Context, name: str, argument: str, wanted: str) -> object:
    """Call the daemon about one job or worker. `wanted` is its id or the beginning of one."""
    try:
        return ask(context, name, **{argument: wanted})
    except UnknownJobError:
        found = sorted(each for each in _known_ids(context) if each.startswith(wanted))
        if not found:
            raise
        if len(found) > 1:
            some = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            raise UnknownJobError(f"{len(found)} ids begin with {wanted!r:.80}: {some}; give more characters") from None
        return ask(context, name, **{argument: found[0]})


def _known_ids(context: typer.Context) -> set[str]:
    jobs = read(ask(context, "jobs"), Jobs).jobs
    pools = read(ask(context, "status"), Status).pools
    return {job.id for job in jobs} | {worker.id for pool in pools for worker in pool.workers}


@contextmanager
def answering(*, as_json: bool, compact: bool = False) -> Iterator[None]:
    """Turn an error of the pool into its answer and exit status. `compact`: JSON on one line."""
    try:
        yield
    except PoolError as error:
        if as_json:
            print_json({"error": error_object(error)}, compact=compact)
        else:
            complain_about(error)
        unreachable = isinstance(error, DaemonUnreachableError)
        raise typer.Exit(ExitStatus.UNREACHABLE if unreachable else ExitStatus.ERROR) from None


def error_object(error: PoolError) -> dict[str, object]:
    described: dict[str, object] = {"code": error.code, "message": error.message, "fields": error.fields}
    if isinstance(error, ConfigError):
        described["problems"] = list(error.problems)
    return described


def complain_about(error: PoolError) -> None:
    """Print each problem of a configuration, or the message, as a line on stderr."""
    for problem in (isinstance(error, ConfigError) and error.problems) or (error.message,):
        complain(problem)


def complain(message: str) -> None:
    """Print one line on stderr."""
    typer.echo(f"error: {visible(message)}", err=True)


def print_json(answer: object, *, compact: bool = False) -> None:
    """Print JSON in ASCII, so that no character can act on a terminal."""
    typer.echo(json.dumps(answer, indent=None if compact else 2).replace("\x7f", "\\u007f"))


def text_of(answer: object, *, otherwise: str) -> str:
    """The sentence in the daemon's answer."""
    text = answer.get("text") if isinstance(answer, dict) else None
    return visible(text) if isinstance(text, str) and text else otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """None means the client's own default."""

    admin: str | None = None
    submit: str | None = None


def resolve(endpoint: str | None, run_dir: str | None) -> Address:
    """Both endpoints, from `--endpoint` and `--run-dir` as typed; `--endpoint` wins."""
    if endpoint is not None:
        admin = socket_in(endpoint, ADMIN, instead_of=SUBMIT)
        directory, slash, _ = admin.rpartition("/")
        return Address(admin=admin, submit=f"{directory}{slash}{SUBMIT}")
    if run_dir is not None:
        directory = run_dir.rstrip("/")
        return Address(admin=f"{directory}/{ADMIN}", submit=f"{directory}/{SUBMIT}")
    return Address()


# ---- a JobResult as JSON ----

#: Larger integers are not written in decimal, because that takes quadratic time.
MAX_DECIMAL_BITS = 4096


def result_as_json(result: JobResult) -> dict[str, object]:
    described = {field.name: json_value(getattr(result, field.name)) for field in fields(result)}
    findings = [each._asdict() for each in result.findings]
    return {**described, "findings": findings, "value_repr": written(result.value)}


def written(value: object, *, form: Callable[[object], str] = repr) -> str:
    """The repr of a job's value. For an integer with too many digits, Python's refusal instead."""
    try:
        return form(value)
    except ValueError as error:
        return f"<{type(value).__name__}: {error}>"


def json_value(value: object) -> object:
    """`value` in the types of JSON."""
    if isinstance(value, int) and value.bit_length() > MAX_DECIMAL_BITS:
        return hex(value)
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {written(key, form=str): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(item) for item in value]
    return _of_library(value)


def _of_library(value: object) -> object:
    """The plain form of arrays, series and scalars of numpy and pandas, by their own methods and without an import."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return json_value(asdict(value))
    convert = getattr(value, "to_dict", None) or getattr(value, "tolist", None)
    nearest = written(value) if convert is None else convert()
    return written(value) if type(nearest) is type(value) else json_value(nearest)

"""How every command asks and answers.

1. With `--json`, stdout gets one JSON object and nothing else: the daemon's answer as it came, or
   `{"error": {"code", "message", "fields"}}`.
2. Without, an error is one line on stderr.
3. The exit status is one of `ExitStatus`, whatever happens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated

import typer

from pool.cli.address import Address
from pool.cli.printable import visible
from pool.errors import ConfigError, DaemonUnreachableError, PoolError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text for people.")]


class ExitStatus(IntEnum):
    OK = 0
    ERROR = 1
    USAGE = 2
    UNREACHABLE = 3
    DEGRADED = 4
    INTERRUPTED = 130


def address(context: typer.Context) -> Address:
    """What the shared options said."""
    return context.ensure_object(Address)


def ask(context: typer.Context, name: str, **arguments: str | float | None) -> object:
    """Call the daemon; arguments that are None are left out."""
    from pool.client.admin import AdminClient

    with AdminClient(address(context).admin) as client:
        return client.call(name, **{key: value for key, value in arguments.items() if value is not None})


@contextmanager
def answering(*, as_json: bool, compact: bool = False) -> Iterator[None]:
    """Turn an error of the pool into its answer and exit status. `compact`: JSON on one line."""
    try:
        yield
    except PoolError as error:
        if as_json:
            print_json({"error": error_object(error)}, compact=compact)
        else:
            complain(error.message)
        unreachable = isinstance(error, DaemonUnreachableError)
        raise typer.Exit(ExitStatus.UNREACHABLE if unreachable else ExitStatus.ERROR) from None


def error_object(error: PoolError) -> dict[str, object]:
    described: dict[str, object] = {"code": error.code, "message": error.message, "fields": error.fields}
    if isinstance(error, ConfigError):
        described["problems"] = list(error.problems)
    return described


def complain(message: str) -> None:
    """One line on stderr."""
    typer.echo(f"error: {visible(message)}", err=True)


def print_json(answer: object, *, compact: bool = False) -> None:
    """ASCII only, so that no character of it can act on a terminal."""
    typer.echo(json.dumps(answer, indent=None if compact else 2))


def text_of(answer: object, *, otherwise: str) -> str:
    """The sentence that the daemon put into its answer."""
    text = answer.get("text") if isinstance(answer, dict) else None
    return visible(text) if isinstance(text, str) and text else otherwise

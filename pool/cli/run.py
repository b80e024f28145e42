"""`pool-admin run`: submits a file as a job, as a client would, and shows the result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from pool.cli.answer import ExitStatus, Json, address, answering, complain, print_json, result_as_json, written
from pool.cli.batch import is_batch, run_batch, source
from pool.model import Limits
from pool.printable import visible, visible_block

if TYPE_CHECKING:
    from pool.client.job import JobOptions
    from pool.model import JobResult


def run(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Python source; - is stdin; of a directory every *.py in it."),
    ],
    *,
    entry: Annotated[str | None, typer.Option("--entry", metavar="NAME", help="The function to call.")] = None,
    arg: Annotated[
        list[str] | None, typer.Option("--arg", metavar="JSON", help="An argument of it; may be repeated.")
    ] = None,
    kwarg: Annotated[
        list[str] | None, typer.Option("--kwarg", metavar="NAME=JSON", help="A named argument; may be repeated.")
    ] = None,
    pool: Annotated[str, typer.Option("--pool", help="The pool to run it in.")] = "default",
    wall: Annotated[float | None, typer.Option("--wall", metavar="SECONDS", help="Wall-clock limit.")] = None,
    memory: Annotated[str | None, typer.Option("--memory", metavar="SIZE", help="Memory limit, such as 256m.")] = None,
    stdin: Annotated[
        typer.FileBinaryRead | None, typer.Option("--stdin", metavar="FILE", help="What the job reads from stdin.")
    ] = None,
    explain_denials: Annotated[
        bool,
        typer.Option("--explain-denials", help="Print on stderr what the sandbox denies the job, and at which line."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a Python file as a job and print what it printed and returned.

    The job's stdout and then its value go to stdout; its stderr, and how it failed if it did, go to stderr: what it
    prints at once, unless all of it is to be one JSON object. A terminal shows control characters as escapes; a pipe
    gets the output as it is.

    Several files, or a directory, are a job each, side by side: a bar or a line for each while they run, and a table of
    how they ended, or with --json an object on one line for each. Exit status 1 unless all end ok.
    """
    if files == [Path("-")] and stdin is typer.get_binary_stream("stdin"):
        raise typer.BadParameter("FILE is already read from there", param_hint="--stdin")
    several = is_batch(files)
    code = "" if several else source(files[0])
    args = [_json("--arg", text) for text in arg or []]
    kwargs = dict(_named(text) for text in kwarg or [])
    given = None if stdin is None else stdin.read()
    with answering(as_json=as_json, compact=several):
        from pool.client import Client

        options: JobOptions = {
            "entry": entry,
            "args": args,
            "kwargs": kwargs,
            "stdin": given,
            "limits": Limits(wall_s=wall, memory=memory),
            "pool": pool,
            "explain_denials": explain_denials,
        }
        if several:
            run_batch(address(context).submit, files, options, as_json=as_json)
            return
        with Client(address(context).submit) as client, _Echo(err=False) as out, _Echo(err=True) as err:
            live = (None, None) if as_json else (out, err)
            result = client.run(code, on_stdout=live[0], on_stderr=live[1], **options)
    _show(result, name=_name(files[0]), as_json=as_json)
    if not result.ok:
        raise typer.Exit(ExitStatus.ERROR)


class _Echo:
    """Prints a job's output while it runs, and a line end if it has none.

    A pipe or a file gets the output as it is. On a terminal its control characters are shown instead of obeyed: a job
    could use them to move the cursor, to rewrite what other programs printed, or to type into the shell.
    """

    def __init__(self, *, err: bool) -> None:
        self._stream = sys.stderr if err else sys.stdout
        self._form = visible_block if self._stream.isatty() else str
        self._last = "\n"

    def __call__(self, text: str) -> None:
        self._stream.write(self._form(text))
        self._stream.flush()
        self._last = text or self._last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._last.endswith("\n"):
            self("\n")


def _name(file: Path) -> str:
    return "<stdin>" if file == Path("-") else str(file)


def _json(option: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r:.80} is not JSON ({error}); text is written with quotes, such as '\"abc\"'", param_hint=option
        ) from None


def _named(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise typer.BadParameter(f"write NAME=JSON, got {text!r:.80}", param_hint="--kwarg")
    return name, _json("--kwarg", value)


def _show(result: JobResult, *, name: str, as_json: bool) -> None:
    if as_json:
        print_json(result_as_json(result))
        return
    if result.value is not None:
        typer.echo(visible_block(written(result.value)))
    if result.truncated:
        complain(f"cut at the output limit: {', '.join(result.truncated)}")
    if not result.ok:
        _explain(result, name=name)


def _explain(result: JobResult, *, name: str) -> None:
    for finding in result.findings:
        typer.echo(visible(f"{name}:{finding}"), err=True)
    if result.error is not None and not result.findings:
        told = result.error.traceback or f"{result.error.type}: {result.error.message}"
        typer.echo(visible_block(told.rstrip("\n")), err=True)
    typer.echo(visible(f"{result.outcome}: {result.reason}".removesuffix(": ")), err=True)

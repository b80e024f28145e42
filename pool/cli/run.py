"""`pool-admin run`: submits a file as a job, as a client would, and shows the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from pool.cli.answer import ExitStatus, Json, address, answering, complain, print_json, result_as_json, written
from pool.cli.batch import Report, Sort, is_batch, run_batch, source
from pool.cli.job_options import environment, given_files, json_value, named_json, write_files
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
    file: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="[NAME=]PATH", help="A file that the job finds beside it; may be repeated."),
    ] = None,
    argv: Annotated[
        list[str] | None, typer.Option("--argv", metavar="TEXT", help="An item of sys.argv; may be repeated.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="A variable that the pool allows; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of random and numpy.random.")] = None,
    retries: Annotated[
        int, typer.Option("--retries", help="Further attempts if its worker or the daemon fails; 0 to 10.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to put the files that a job leaves; of several, in DIR/NAME."),
    ] = None,
    sort: Annotated[Sort, typer.Option("--sort", help="Of several: the order of the table.")] = Sort.FILE,
    csv: Annotated[bool, typer.Option("--csv", help="Of several: print the table as CSV, and nothing else.")] = False,
    explain_denials: Annotated[
        bool,
        typer.Option("--explain-denials", help="Print on stderr what the sandbox denies the job, and at which line."),
    ] = False,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="One file, in a locked-down process of this host: no daemon and no Docker needed."
        ),
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Print on stderr the microseconds of each step, from here and back.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a Python file as a job and print what it printed and returned.

    The job's stdout and then its value go to stdout; its stderr, and how it failed if it did, go to stderr: what it
    prints at once, unless all of it is to be one JSON object. A terminal shows control characters as escapes; a pipe
    gets the output as it is.

    Several files, or a directory, are a job each, side by side: a bar or a line for each while they run, and a table of
    how they ended, or with --json an object on one line for each. Exit status 1 unless all end ok. --sort value and
    --sort time put the largest first.
    """
    if files == [Path("-")] and stdin is typer.get_binary_stream("stdin"):
        raise typer.BadParameter("FILE is already read from there", param_hint="--stdin")
    several = is_batch(files)
    if local and (several or pool != "default" or retries):
        raise typer.BadParameter("runs one file, without --pool and --retries", param_hint="--local")
    if trace and (several or local):
        raise typer.BadParameter("is for one file in a pool", param_hint="--trace")
    code = "" if several else source(files[0])
    if as_json and csv:
        raise typer.BadParameter("give --json or --csv, not both", param_hint="--csv")
    args = [json_value("--arg", text) for text in arg or []]
    files_given, variables = given_files(file or []), environment(env or [])
    kwargs = named_json(kwarg or [])
    given = None if stdin is None else stdin.read()
    with answering(as_json=as_json, compact=several):
        options: JobOptions = {
            "entry": entry,
            "args": args,
            "kwargs": kwargs,
            "stdin": given,
            "limits": Limits(wall_s=wall, memory=memory),
            "pool": pool,
            "files": files_given,
            "argv": argv,
            "env": variables,
            "seed": seed,
            "retries": retries,
            "explain_denials": explain_denials,
            "trace": trace,
        }
        if several:
            run_batch(address(context).submit, files, options, Report(as_json=as_json, as_csv=csv, sort=sort, out=out))
            return
        with _running(context, local=local) as run_job, _Echo(err=False) as told, _Echo(err=True) as err:
            live = (None, None) if as_json else (told, err)
            result = run_job(code, on_stdout=live[0], on_stderr=live[1], **options)
    if out is not None:
        write_files(out, result.files)
    if result.trace and not as_json:
        from pool.cli import tables

        tables.show(tables.trace(result.trace), err=True)
    _show(result, name=_name(files[0]), as_json=as_json)
    if not result.ok:
        raise typer.Exit(ExitStatus.ERROR)


@contextmanager
def _running(context: typer.Context, *, local: bool) -> Iterator[Callable[..., JobResult]]:
    """The runner of the job: a daemon's pool, or the local engine."""
    from pool.client import Client
    from pool.client.local import run_once

    if local:
        yield run_once
        return
    with Client(address(context).submit) as client:
        yield client.run


class _Echo:
    """Prints a job's output while it runs, and a line end if it has none.

    A pipe or a file gets the output unchanged. A terminal gets control characters as visible escapes. A job could use
    them to move the cursor, to rewrite the output of other programs, or to type into the shell.
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
    elif result.reason:
        typer.echo(visible(f"hint: {result.reason}"), err=True)


def _explain(result: JobResult, *, name: str) -> None:
    for finding in result.findings:
        typer.echo(visible(f"{name}:{finding}"), err=True)
    if result.error is not None and not result.findings:
        told = result.error.traceback or f"{result.error.type}: {result.error.message}"
        typer.echo(visible_block(told.rstrip("\n")), err=True)
    typer.echo(visible(f"{result.outcome}: {result.reason}".removesuffix(": ")), err=True)

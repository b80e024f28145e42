"""`pool-admin run`: submits a file as a job, as a client would, and shows the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from pool.cli import job_options
from pool.cli.answer import ExitStatus, Json, address, answering, complain, print_json, result_as_json, written
from pool.cli.batch import Report, Sort, is_batch, run_batch, source
from pool.model import Limits
from pool.printable import visible, visible_block

if TYPE_CHECKING:
    from pool.client.options import JobOptions
    from pool.model import JobResult

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Python source; - is stdin; of a directory every *.py in it.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where to write the job's output files; for several files, DIR/NAME."),
]
Local = Annotated[
    bool,
    typer.Option("--local", help="One file, in a locked-down process of this host: no daemon and no Docker needed."),
]


def run(
    context: typer.Context,
    files: Files,
    *,
    entry: job_options.Entry = None,
    arg: job_options.Arg = None,
    kwarg: job_options.Kwarg = None,
    pool: Annotated[str, typer.Option("--pool", help="The pool to run it in.")] = "default",
    wall: job_options.Wall = None,
    memory: job_options.Memory = None,
    stdin: job_options.Stdin = None,
    file: job_options.GivenFile = None,
    argv: job_options.Argv = None,
    env: job_options.Env = None,
    seed: job_options.Seed = None,
    retries: job_options.Retries = 0,
    out: Out = None,
    sort: Annotated[Sort, typer.Option("--sort", help="For several files: the order of the table.")] = Sort.FILE,
    csv: Annotated[bool, typer.Option("--csv", help="For several files: print only the table, as CSV.")] = False,
    explain_denials: job_options.Denials = False,
    local: Local = False,
    trace: job_options.Trace = False,
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
    several = is_batch(files)
    if files == [Path("-")] and stdin is typer.get_binary_stream("stdin"):
        raise typer.BadParameter("FILE is read from stdin too; give --stdin a file", param_hint="--stdin")
    if local and (several or pool != "default" or retries):
        raise typer.BadParameter("runs one file, without --pool and --retries", param_hint="--local")
    if trace and (several or local):
        raise typer.BadParameter("is for one file in a pool", param_hint="--trace")
    if as_json and csv:
        raise typer.BadParameter("give --json or --csv, not both", param_hint="--csv")
    options: JobOptions = {
        "entry": entry,
        "args": [job_options.json_value("--arg", text) for text in arg or []],
        "kwargs": job_options.named_json(kwarg or []),
        "stdin": None if stdin is None else stdin.read(),
        "pool": pool,
        "files": job_options.given_files(file or []),
        "argv": argv,
        "env": job_options.environment(env or []),
        "seed": seed,
        "retries": retries,
        "explain_denials": explain_denials,
        "trace": trace,
    }
    code = "" if several else source(files[0])
    with answering(as_json=as_json, compact=several):
        options["limits"] = Limits(wall_s=wall, memory=memory)
        if several:
            run_batch(address(context).submit, files, options, Report(as_json=as_json, as_csv=csv, sort=sort, out=out))
            return
        result = _run_one(context, code, options, local=local, live=not as_json)
    if out is not None:
        job_options.write_files(out, result.files)
    _show(result, name=_name(files[0]), as_json=as_json)
    if not result.ok:
        raise typer.Exit(ExitStatus.ERROR)


def _run_one(context: typer.Context, code: str, options: JobOptions, *, local: bool, live: bool) -> JobResult:
    """`live`: print its output while it runs."""
    with _running(context, local=local) as run_job, _Echo(err=False) as told, _Echo(err=True) as err:
        listeners = {"on_stdout": told, "on_stderr": err} if live else {}
        return run_job(code, **listeners, **options)


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
    if result.trace:
        from pool.cli import tables

        tables.show(tables.trace(result.trace), err=True)
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

"""`pool-admin run`: submits a file as a job, as a client would, and shows the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
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

    stdout gets the job's stdout and then its value. stderr gets its stderr and, if it failed, the reason. The output
    is shown while the job runs; with --json, one JSON object at the end has all of it. A terminal shows control
    characters as escapes, and a pipe gets the output as it is.

    Of several files or a directory, each file is a job, and the jobs run in parallel. A bar on a terminal, or a line
    for each job that has ended, shows the progress. A table at the end shows all results; with --json each job is an
    object on one line. Exit status 1 unless all end ok. --sort value and --sort time put the largest first.
    """
    several = is_batch(files)
    _refuse({
        ("--stdin", "FILE is read from stdin too; give --stdin a file"):
            files == [Path("-")] and stdin is typer.get_binary_stream("stdin"),
        ("--local", "runs one file, without --pool and --retries"):
            local and (several or pool != "default" or retries != 0),
        ("--trace", "is for one file in a pool"): trace and (several or local),
        ("--csv", "give --json or --csv, not both"): as_json and csv,
    })  # fmt: skip
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
    with answering(as_json=as_json, compact=several):
        options["limits"] = Limits(wall_s=wall, memory=memory)
        if several:
            run_batch(address(context).submit, files, options, Report(as_json=as_json, as_csv=csv, sort=sort, out=out))
        else:
            _run_file(context, files[0], options, local=local, out=out, as_json=as_json)


def _refuse(wrong: Mapping[tuple[str, str], bool]) -> None:
    """Raise the usage error for the first option, with its text, that is wrong."""
    for (option, text), holds in wrong.items():
        if holds:
            raise typer.BadParameter(text, param_hint=option)


def _run_file(
    context: typer.Context, file: Path, options: JobOptions, *, local: bool, out: Path | None, as_json: bool
) -> None:
    """Run one job and show its result. Raises typer.Exit with status 1 unless it ends ok."""
    code = source(file)
    with _running(context, local=local) as run_job, _Echo(err=False) as stdout, _Echo(err=True) as stderr:
        listeners = {} if as_json else {"on_stdout": stdout, "on_stderr": stderr}
        result = run_job(code, **listeners, **options)
    if out is not None:
        job_options.write_files(out, result.files)
    _show(result, name="<stdin>" if file == Path("-") else str(file), as_json=as_json)
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

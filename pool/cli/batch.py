"""`pool-admin run` of a directory or of several files: one job for each file, in parallel, and a table of the results.

a terminal   a bar while they run, then the table            stdout
a pipe       a line for each job as it ends, then the table  stdout
--json       one JSON line for each job as it ends           stdout, and nothing else
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import wait
from contextlib import closing, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pool.cli.answer import ExitStatus, print_json, result_as_json
from pool.model import Outcome
from pool.printable import visible

if TYPE_CHECKING:
    from rich.table import Table

    from pool.client import Client
    from pool.client.batch import BatchJob
    from pool.client.job import JobOptions
    from pool.model import JobResult

#: How long to wait until the daemon has received the cancellations.
CANCEL_S = 1.0

Row = tuple[str, "JobResult"]
Tell = Callable[[str, "JobResult"], None]


def is_batch(paths: Sequence[Path]) -> bool:
    """Whether these paths are more than one job."""
    return len(paths) > 1 or paths[0].is_dir()


def run_batch(endpoint: str | None, paths: Sequence[Path], options: JobOptions, *, as_json: bool) -> None:
    """Run them all. Raises typer.Exit with status 1 unless all end ok."""
    from pool.client import Client

    files = _files(paths)
    jobs: dict[str, BatchJob] = {
        uuid.uuid4().hex: {"code": source(file), **options}  # an id of our own, so that whatever was sent can be ended
        for file in files
    }
    names = dict(zip(jobs, map(str, files), strict=True))
    rows: list[Row] = []
    with (
        Client(endpoint) as client,
        closing(_results(client, jobs)) as results,
        _telling(len(files), as_json=as_json) as tell,
    ):
        for result in results:
            rows.append((names[result.job_id], result))
            tell(*rows[-1])
    if not as_json:
        from pool.cli.tables import show

        show(_table(sorted(rows, key=itemgetter(0))))
    if not all(result.ok for _, result in rows):
        raise typer.Exit(ExitStatus.ERROR)


def source(file: Path) -> str:
    """The text of a program; `-` is stdin."""
    try:
        content = typer.get_binary_stream("stdin").read() if file == Path("-") else file.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from None
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file}: not UTF-8 text: {error}", param_hint="FILE") from None


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files, and the *.py files of the directories, by name."""
    found = [file for path in paths for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    if not found:
        raise typer.BadParameter(f"no *.py file in {', '.join(map(str, paths))}", param_hint="FILE")
    return list(dict.fromkeys(found))


def _results(client: Client, jobs: dict[str, BatchJob]) -> Generator[JobResult]:
    """The results as the jobs end. If this ends early, for example by Ctrl-C, the remaining jobs are cancelled."""
    from pool.client import BatchError

    left = set(jobs)
    try:
        batch = client.submit_many([{**job, "job_id": job_id} for job_id, job in jobs.items()])
        for result in client.results(batch):
            left.remove(result.job_id)
            yield result
    except BatchError as error:
        raise (error.__cause__ or error) from None
    finally:
        wait([client.connection.cancel(job_id) for job_id in left], CANCEL_S)


@contextmanager
def _telling(total: int, *, as_json: bool) -> Iterator[Tell]:
    """How each result is shown."""
    if as_json:
        yield lambda name, result: print_json({"file": name, **result_as_json(result)}, compact=True)
    elif not sys.stdout.isatty():
        yield lambda name, result: typer.echo(_line(name, result))
    else:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
        with Progress(*columns) as bar:
            task = bar.add_task("", total=total)
            failed = 0

            def tell(_: str, result: JobResult) -> None:
                nonlocal failed
                failed += not result.ok
                bar.update(task, advance=1, description=f"{failed} not ok" if failed else "")

            yield tell


def _line(name: str, result: JobResult) -> str:
    return visible(f"{result.outcome} {name} {_why(result)}".rstrip())


def _why(result: JobResult) -> str:
    """One line on a job that is not ok."""
    if result.findings:
        return str(result.findings[0])
    if result.error is not None and result.outcome is not Outcome.MEMORY:  # a MemoryError seldom says a word
        return f"{result.error.type}: {result.error.message}"
    return result.reason


def _table(rows: Sequence[Row]) -> Table:
    from pool.cli.tables import cell, columns, state

    table = columns("FILE", "OUTCOME", ">RUN", ">CPU", "WHY")
    for name, result in rows:
        table.add_row(
            cell(name),
            state(str(result.outcome)),
            cell(f"{result.timings.run_ms:.0f} ms"),
            cell(f"{result.usage.cpu_s:.2f} s"),
            cell(_why(result)[:200]),
        )
    return table

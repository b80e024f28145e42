"""`pool-admin run` of a directory or of several files: one job for each file, in parallel, and a table of the results.

a terminal   a bar while they run, then the table            stdout
a pipe       a line for each job as it ends, then the table  stdout
--json       one JSON line for each job as it ends           stdout, and nothing else
--csv        the table as CSV                                stdout; the bar on stderr if that is a terminal
"""

from __future__ import annotations

import csv
import math
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pool.cli.answer import ExitStatus, print_json, result_as_json, written
from pool.cli.job_options import write_files
from pool.model import Outcome
from pool.printable import visible
from pool.units import real

if TYPE_CHECKING:
    from rich.table import Table

    from pool.client import Client
    from pool.client.batch import BatchJob
    from pool.client.options import JobOptions
    from pool.model import JobResult

#: How long to wait until the daemon has received the cancellations.
CANCEL_S = 1.0
#: The most characters of a value in the table.
MAX_VALUE_CHARS = 60

Row = tuple[str, "JobResult"]
Tell = Callable[[str, "JobResult"], None]


class Sort(StrEnum):
    """The order of the table."""

    FILE = "file"
    OUTCOME = "outcome"
    VALUE = "value"  #: numbers, the largest first, then other values
    TIME = "time"  #: the longest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How the results are shown and kept."""

    as_json: bool = False
    as_csv: bool = False
    sort: Sort = Sort.FILE
    out: Path | None = None  #: where files of jobs go, into a directory for each


def is_batch(paths: Sequence[Path]) -> bool:
    """Whether these paths are more than one job."""
    return len(paths) > 1 or paths[0].is_dir()


def run_batch(endpoint: str | None, paths: Sequence[Path], options: JobOptions, report: Report) -> None:
    """Run them all. Raises typer.Exit with status 1 unless all end ok."""
    from pool.client import Client

    files = _files(paths)
    if report.out is not None:
        _refuse_shared_directories(files)
    # Our own ids, so that all jobs that were sent can be cancelled.
    jobs: dict[str, BatchJob] = {uuid.uuid4().hex: {"code": source(file), **options} for file in files}
    names = dict(zip(jobs, map(str, files), strict=True))
    rows: list[Row] = []
    with Client(endpoint) as client, closing(_results(client, jobs)) as results, _telling(len(files), report) as tell:
        for result in results:
            rows.append((names[result.job_id], result))
            tell(*rows[-1])
            if report.out is not None and result.files:
                write_files(report.out / Path(names[result.job_id]).stem, result.files)
    _show(sorted(rows, key=lambda row: (_SORTED[report.sort](row), row[0])), report)
    if not all(result.ok for _, result in rows):
        raise typer.Exit(ExitStatus.ERROR)


def _refuse_shared_directories(files: Sequence[Path]) -> None:
    stems = Counter(file.stem for file in files)
    if twice := [name for name, count in stems.items() if count > 1]:
        problem = f"several programs are named {twice[0]!r:.80} and would share a directory; rename one"
        raise typer.BadParameter(problem, param_hint="--out")


def _show(rows: Sequence[Row], report: Report) -> None:
    if report.as_csv:
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerow(("file", "outcome", "value", "run_ms", "cpu_s", "why"))
        for name, result in rows:
            times = f"{result.timings.run_ms:.1f}", f"{result.usage.cpu_s:.3f}"
            lines.writerow((visible(name), result.outcome, visible(_value(result)), *times, visible(_why(result))))
    elif not report.as_json:
        from pool.cli.tables import show

        show(_table(rows))


def _largest_first(row: Row) -> tuple[bool, float]:
    value = real(row[1].value)
    return (True, 0.0) if math.isnan(value) else (False, -value)


_SORTED: dict[Sort, Callable[[Row], object]] = {
    Sort.FILE: lambda _: 0,
    Sort.OUTCOME: lambda row: str(row[1].outcome),
    Sort.VALUE: _largest_first,
    Sort.TIME: lambda row: -row[1].timings.run_ms,
}


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
def _telling(total: int, report: Report) -> Iterator[Tell]:
    """The function that shows a result."""
    shown = sys.stderr if report.as_csv else sys.stdout
    if report.as_json:
        yield lambda name, result: print_json({"file": name, **result_as_json(result)}, compact=True)
    elif not shown.isatty():
        yield lambda name, result: None if report.as_csv else typer.echo(_line(name, result))
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
        with Progress(*columns, console=Console(file=shown)) as bar:
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
    """One line on a job that is not ok, or has no value."""
    if result.findings:
        return str(result.findings[0])
    if result.error is not None and result.outcome is not Outcome.MEMORY:  # a MemoryError seldom has a message
        first, *_ = result.error.message.splitlines() or [""]
        return f"{result.error.type}: {first}"
    return result.reason


def _value(result: JobResult) -> str:
    """A number in full, and the beginning of any other value."""
    return "" if result.value is None else written(result.value)[:MAX_VALUE_CHARS]


def _table(rows: Sequence[Row]) -> Table:
    from pool.cli.cells import cell, columns, state

    table = columns("FILE", "OUTCOME", "VALUE", ">RUN", ">CPU", "WHY")
    for name, result in rows:
        table.add_row(
            cell(name),
            state(str(result.outcome)),
            cell(_value(result)),
            cell(f"{result.timings.run_ms:.0f} ms"),
            cell(f"{result.usage.cpu_s:.2f} s"),
            cell(_why(result)[:200]),
        )
    return table

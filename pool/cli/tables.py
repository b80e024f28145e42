"""Tables for people. Only this module, cells.py and doctor_tables.py import rich, and only when a table is shown.

Every string from outside goes through `visible` and into a rich Text, so that no markup and no escape sequence of a
job, a client or a container reaches the terminal. On a terminal, columns fold into its width. In a pipe nothing is cut
or wrapped: each row is one line.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pool.cli.cells import cell, columns, counts, duration, memory, overhead, plain, share, size, state
from pool.cli.views import PoolPoison, troubles
from pool.printable import visible
from pool.status import DaemonStatus, DatasetStatus, History, Jobs, Mine, PoolStatus, Status, WorkerStatus
from pool.users import with_name

#: Wider than any row, so that a pipe gets one line for each row.
PIPED_WIDTH = 10_000
#: An engine's id of this length is shown in Docker's short form, which every `docker` command accepts.
LONG_ID_CHARS, SHORT_ID_CHARS = 64, 12
WORKER_HEADERS = ("CONTAINER", "STATE", ">JOBS", ">AGE", ">MEMORY", "ISOLATION")


def show(renderable: RenderableType, *, err: bool = False) -> None:
    _console(err=err).print(renderable)


def show_live(views: Iterable[RenderableType]) -> None:
    """Show each view in place of the one before; in a pipe, one after another."""
    console = _console()
    if not sys.stdout.isatty():
        for view in views:
            console.print(view)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for view in views:
            live.update(view, refresh=True)


def status(snapshot: Status) -> Group:
    """The whole daemon at a glance."""
    parts: list[RenderableType] = [_headline(snapshot.daemon), Text(), _pools(snapshot.pools)]
    parts += [_warning(sentence) for sentence in troubles(snapshot)]
    # The troubles already contain the daemon's sentence about a breaker, with the time of the next try.
    parts += [_warning(alert.text) for alert in snapshot.alerts if not alert.id.startswith("breaker:")]
    return Group(*parts, Text(), _worker_lines(snapshot.pools), *_dataset_lines(snapshot.pools))


def workers(pools: Sequence[PoolStatus]) -> Table:
    """Every column of every worker; the whole container id in a pipe."""
    whole = not sys.stdout.isatty()
    table = columns("WORKER", "POOL", *WORKER_HEADERS, "LOCKDOWN", ">UID", ">BOOT", "CLIENT", "JOB")
    for pool in pools:
        for worker in pool.workers:
            table.add_row(
                cell(worker.id),
                cell(pool.name),
                *_worker_cells(worker, whole_id=whole),
                cell(worker.lockdown),
                cell(worker.uid),
                Text("-" if worker.boot_ms is None else f"{worker.boot_ms:.0f} ms"),
                cell(worker.client),
                cell(worker.job),
            )
    return table


def jobs(view: Jobs) -> Group:
    """One row a job. On a narrow terminal an id is cut to its first 12 characters, which every command accepts."""
    wide, narrow = (columns("JOB", "POOL", "STATE", "OUTCOME", ">AGE", "WORKER", "CLIENT") for _ in range(2))
    for job in view.jobs:
        cells = [
            cell(job.pool),
            state(job.state),
            state(job.outcome),
            Text(duration(job.age_s)),
            cell(job.worker),
            cell(with_name(job.client)),
        ]
        wide.add_row(cell(job.id), *cells)
        narrow.add_row(cell(job.id[:SHORT_ID_CHARS]), *cells)
    more = view.total - len(view.jobs)
    return Group(_Fitting(wide, narrow), *([Text(f"{more} older jobs are not shown; see --last")] if more > 0 else []))


def mine(view: Mine, *, last: int) -> Group:
    """The pools, then the jobs, newest first."""
    pools, jobs = (
        columns("POOL", "STATE", ">WORKERS", ">WAITING", "DATA SETS"),
        columns("JOB", "POOL", "STATE", "OUTCOME", ">PLACE", ">AGE"),
    )
    for pool in view.pools:
        names = ", ".join(pool.datasets)
        pools.add_row(cell(pool.name), state(pool.state), cell(pool.workers), cell(pool.waiting), cell(names))
    for job in view.jobs[:last]:
        place, age = cell(job.place), Text(duration(job.age_s))
        jobs.add_row(cell(job.id), cell(job.pool), state(job.state), state(job.outcome), place, age)
    more = view.total - min(last, len(view.jobs))
    older = [Text(f"{more} older jobs are not shown; see --last")] if more > 0 else []
    return Group(pools, Text(), *([jobs, *older] if view.jobs else [Text("you have no jobs here")]))


def named_users(text: str) -> str:
    """The text with names after user ids: `uid 0 (root)` for `uid 0` and `client 0`."""
    return re.sub(r"\b(?:uid|client) (\d{1,10})\b", lambda found: f"uid {with_name(found[1])}", text)


def history(view: History) -> Table:
    """The entries, oldest first, with the seconds since the first one."""
    table = columns(">SECONDS", "STATE", "WHAT", "CAUSE", title=visible(f"{view.id}  {view.pool}".rstrip()))
    for entry in view.entries:
        since = view.entries[0].age_s - entry.age_s
        what, cause = named_users(entry.what), named_users(entry.cause)
        table.add_row(Text(f"+{since:.3f}"), state(entry.state), cell(what), cell(cause))
    return table


class Step(Protocol):
    """One step of a traced job."""

    @property
    def step(self) -> str: ...
    @property
    def us(self) -> float: ...


def trace(steps: Sequence[Step]) -> Table:
    """Microseconds since the first step, and since the step before."""
    table = columns(">AT us", ">TOOK us", "STEP")
    for place, each in enumerate(steps):
        took = each.us - steps[place - 1].us if place else 0.0
        table.add_row(f"{each.us:,.0f}", f"{took:,.0f}", Text(visible(each.step)))
    return table


def _console(*, err: bool = False) -> Console:
    width = None if (sys.stderr if err else sys.stdout).isatty() else PIPED_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False, stderr=err)


def _headline(daemon: DaemonStatus) -> Text:
    line = Text(f"pool-daemon {visible(daemon.version)}  ").append_text(state(daemon.state))
    line.append(f"  pid {plain(daemon.pid)}  up {duration(daemon.uptime_s)}")
    for engine in daemon.engines:
        line.append(visible(f"  {engine.name} {engine.version} ({engine.runtime}, cgroups {engine.cgroups})"))
    return line.append(visible(f"  {daemon.run_dir}") if daemon.run_dir else "")


@dataclass(frozen=True, slots=True)
class _Fitting:
    """The wide form where it fits, else the narrow one."""

    wide: RenderableType
    narrow: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wanted = Measurement.get(console, options.update(max_width=PIPED_WIDTH), self.wide).maximum
        yield self.wide if wanted <= options.max_width else self.narrow


def _pools(pools: Sequence[PoolStatus]) -> RenderableType:
    """One row a pool; on a narrow terminal two, one for the workers and one for the jobs."""
    capacity = ("STATE", "SIZE", "WORKERS", ">BACKLOG", ">RUNNING")
    results = (">HIT RATE", "OUTCOMES", ">OVERHEAD p50/p95", "RECYCLED")
    wide = columns("POOL", *capacity, *results)
    narrow = columns("POOL", *capacity), columns("POOL", *results)
    for pool in pools:
        wide.add_row(cell(pool.name), *_capacity_cells(pool), *_result_cells(pool))
        narrow[0].add_row(cell(pool.name), *_capacity_cells(pool))
        narrow[1].add_row(cell(pool.name), *_result_cells(pool))
    return _Fitting(wide, Group(narrow[0], Text(), narrow[1]))


def _capacity_cells(pool: PoolStatus) -> list[Text]:
    return [
        state(pool.state),
        Text(size(len(pool.workers), pool.size)),
        counts(Counter(worker.state for worker in pool.workers)),
        Text(str(pool.backlog)),
        Text(str(pool.running)),
    ]


def _result_cells(pool: PoolStatus) -> list[Text]:
    return [Text(share(pool.hit_rate)), counts(pool.jobs), Text(overhead(pool.overhead_ms)), counts(pool.recycles)]


def _worker_lines(pools: Sequence[PoolStatus]) -> RenderableType:
    """One row a worker; on a narrow terminal without the name of the pool."""
    if not any(pool.workers for pool in pools):
        return Text("no workers")
    wide, narrow = columns("WORKER", "POOL", *WORKER_HEADERS, "JOB"), columns("WORKER", *WORKER_HEADERS, "JOB")
    for pool in pools:
        for worker in pool.workers:
            cells = [*_worker_cells(worker), cell(worker.job)]
            wide.add_row(cell(worker.id), cell(pool.name), *cells)
            narrow.add_row(cell(worker.id), *cells)
    return _Fitting(wide, narrow)


def _dataset_lines(pools: Sequence[PoolStatus]) -> list[RenderableType]:
    """One row for each data set of each pool, below an empty line; nothing where there is none."""
    table = columns("DATA SET", "POOL", "DIGEST", ">SIZE", "FILE")
    for pool in pools:
        for name, found in pool.datasets.items():
            each = DatasetStatus(path=found) if isinstance(found, str) else found
            digest = (each.digest or "")[:SHORT_ID_CHARS]
            table.add_row(cell(name), cell(pool.name), cell(digest), Text(memory(each.size_bytes)), cell(each.path))
    return [Text(), table] if table.row_count else []


def _worker_cells(worker: WorkerStatus, *, whole_id: bool = False) -> list[Text]:
    container = worker.container
    if container is not None and len(container) == LONG_ID_CHARS and not whole_id:
        container = container[:SHORT_ID_CHARS]
    return [
        cell(container),
        state(worker.state),
        Text(str(worker.jobs)),
        Text(duration(worker.age_s)),
        Text(memory(worker.rss_bytes)),
        cell(worker.isolation),
    ]


def _warning(sentence: str, *, style: str = "red") -> Text:
    return Text(visible(sentence), style=style)


def poison(codes: Sequence[PoolPoison]) -> Table:
    table = columns("CODE", "POOL", ">KILLS", ">REFUSED FOR", ">LAST", "WORKER", "WHAT IT DID")
    for each in codes:
        table.add_row(
            cell(each.code),
            cell(each.pool),
            cell(each.kills),
            cell(duration(each.refused_until_s)),
            cell(duration(each.last.age_s)),
            cell(each.last.worker),
            cell(each.last.what),
        )
    return table

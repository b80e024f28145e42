"""`pool-admin advise`: replays the latest jobs on pools of other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import Json, answering, ask, print_json
from pool.cli.views import chosen_pools, read
from pool.core.advice import Arrival, Forecast, base_stock, enough, rate_of, replay
from pool.errors import PoolError
from pool.status import Arrivals, PoolArrivals
from pool.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

#: The number of sizes that are tried beyond the pool's max, and beyond a sufficient size.
_MORE = 2


def advise(
    context: typer.Context,
    *,
    pool: Annotated[str, typer.Option("--pool", metavar="NAME", help="The pool whose jobs are replayed.")] = "default",
    miss: Annotated[
        float, typer.Option("--miss", min=0.0001, max=0.5, help="The share of jobs that may find no free worker.")
    ] = 0.01,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Also plot it; needs matplotlib.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay the latest jobs (2,048 at most) on pools of 1 worker and more: hits, wait and memory of each size.

    Each job keeps its time of arrival and the time that it had a worker. A loop that waits for each result would send
    its next job earlier to a larger pool, so for such loops the gain is larger than shown.
    """
    with answering(as_json=as_json):
        (found,) = chosen_pools(read(ask(context, "arrivals"), Arrivals).pools, pool)
        jobs = [Arrival(*each) for each in found.jobs]
        if not jobs:
            raise PoolError(f"pool {pool!r} has run no job since the daemon started; run your jobs in it first")
        forecasts = _forecasts(found, jobs, miss)
        spare = base_stock(rate_of(jobs), found.start_s or 0.0, miss=miss)
        if plot is not None:
            _plot(plot, found, forecasts)
        if as_json:
            print_json(_object(found, forecasts, spare, enough(forecasts, miss=miss)))
            return
        from pool.cli import tables

        tables.show(_table(found, forecasts))
        typer.echo(_sentence(found, jobs, forecasts, spare, miss))


def _forecasts(pool: PoolArrivals, jobs: Sequence[Arrival], miss: float) -> list[Forecast]:
    """The forecasts from 1 worker to the pool's max, and further to a sufficient size, at most 256."""
    found: list[Forecast] = []
    wanted = pool.size.max + _MORE
    for size in range(1, 257):
        found.append(replay(jobs, size, start_s=pool.start_s or 0.0, max_jobs=max(1, pool.max_jobs)))
        if size >= wanted and (enough(found, miss=miss) is not None or size >= 4 * wanted):
            break
    return found


def _memory(pool: PoolArrivals, size: int) -> int | None:
    return pool.worker_bytes * size if pool.worker_bytes is not None else None


def _object(pool: PoolArrivals, forecasts: Sequence[Forecast], spare: int, size: int | None) -> dict[str, object]:
    rows = [
        {
            "size": each.size,
            "hit_rate": round(each.hit_rate, 4),
            "mean_wait_ms": round(each.mean_wait_s * 1000, 3),
            "p95_wait_ms": round(each.p95_wait_s * 1000, 3),
            "memory_bytes": _memory(pool, each.size),
        }
        for each in forecasts
    ]
    return {"pool": pool.name, "jobs": len(pool.jobs), "spare": spare, "size": size, "sizes": rows}


def _table(pool: PoolArrivals, forecasts: Sequence[Forecast]) -> Table:
    from pool.cli.cells import columns

    table = columns(">WORKERS", ">HITS", ">WAIT", ">p95", ">MEMORY", "")
    marks = {pool.size.min: "min", pool.size.max: "max"}
    for each in forecasts:
        memory = _memory(pool, each.size)
        table.add_row(
            str(each.size),
            f"{each.hit_rate:.1%}",
            f"{each.mean_wait_s * 1000:,.1f} ms",
            f"{each.p95_wait_s * 1000:,.1f} ms",
            format_size(memory) if memory is not None else "-",
            marks.get(each.size, ""),
        )
    return table


def _sentence(
    pool: PoolArrivals, jobs: Sequence[Arrival], forecasts: Sequence[Forecast], spare: int, miss: float
) -> str:
    size = enough(forecasts, miss=miss)
    enough_are = "1 worker keeps" if size == 1 else f"{size} workers keep" if size else "no size here keeps"
    start = f"{pool.start_s:.2f} s" if pool.start_s is not None else "an unknown time"
    return (
        f"{len(jobs)} jobs, {rate_of(jobs):.2f} a second; a start takes {start}. "
        f"For these jobs {enough_are} misses within {miss:.2%}. "
        f"At this rate spare: {spare} covers what comes during one start."
    )


def _plot(path: Path, pool: PoolArrivals, forecasts: Sequence[Forecast]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PoolError("--plot needs matplotlib, which is not installed here; leave it out, or install it") from None
    figure = Figure(figsize=(8, 4), layout="constrained")
    hits, waits = figure.subplots(1, 2)
    sizes = [each.size for each in forecasts]
    hits.plot(sizes, [100 * each.hit_rate for each in forecasts], marker="o")
    hits.set(xlabel="workers", ylabel="hits, %", title=f"pool {pool.name}, {len(pool.jobs)} jobs")
    waits.plot(sizes, [1000 * each.mean_wait_s for each in forecasts], marker="o", label="mean")
    waits.plot(sizes, [1000 * each.p95_wait_s for each in forecasts], marker="o", label="p95")
    waits.set(xlabel="workers", ylabel="wait, ms")
    waits.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise PoolError(f"the plot cannot be written to {str(path)!r}: {error}") from None

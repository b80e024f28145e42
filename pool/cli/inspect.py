"""The commands that only read: status, workers, jobs, job, poison."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import ExitStatus, Json, answering, ask, print_json
from pool.cli.views import JobsView, PoisonView, PoolView, SnapshotView, StoryView, read, troubles
from pool.errors import UnknownPoolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PoolFilter = Annotated[str | None, typer.Option("--pool", help="Only this pool.")]


def status(
    context: typer.Context,
    watch: Annotated[
        float | None, typer.Option("--watch", min=0.1, metavar="SECONDS", help="Show it again and again, until Ctrl-C.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the daemon, its pools and their workers at a glance.

    Ends with exit status 4 (degraded) when a pool has fewer ready workers than its min, when a pool has stopped
    starting workers after failures, or when the daemon is not running.
    """
    with answering(as_json=as_json):
        if watch is not None:
            _watch(context, watch, as_json=as_json)
            return
        answer = ask(context, "status")
        snapshot = read(answer, SnapshotView)
        if as_json:
            print_json(answer)
        else:
            from pool.cli import tables

            tables.show(tables.status(snapshot))
    if troubles(snapshot):
        raise typer.Exit(ExitStatus.DEGRADED)


def _watch(context: typer.Context, every_s: float, *, as_json: bool) -> None:
    def answers() -> Iterator[object]:
        while True:
            yield ask(context, "status")
            time.sleep(every_s)

    if as_json:
        for answer in answers():
            print_json(answer, compact=True)
    else:
        from pool.cli import tables

        tables.show_live(tables.status(read(answer, SnapshotView)) for answer in answers())


def workers(context: typer.Context, pool: PoolFilter = None, as_json: Json = False) -> None:
    """List the workers with everything that is known of them."""
    with answering(as_json=as_json):
        answer = ask(context, "status")
        chosen = _chosen(read(answer, SnapshotView).pools, pool)
        if as_json:
            print_json({"workers": _with_pool(answer, [each.name for each in chosen])})
        else:
            from pool.cli import tables

            tables.show(tables.workers(chosen))


def _chosen(pools: Sequence[PoolView], name: str | None) -> list[PoolView]:
    found = [each for each in pools if name in (None, each.name)]
    if name is not None and not found:
        known = ", ".join(each.name for each in pools) or "none"
        raise UnknownPoolError(f"there is no pool {name!r}; the pools are: {known}")
    return found


def _with_pool(answer: object, names: list[str]) -> list[dict[str, object]]:
    """The workers as the daemon described them, each with the name of its pool. `answer` is a Snapshot."""
    pools = answer["pools"] if isinstance(answer, dict) else []
    return [
        {"pool": pool["name"], **worker}
        for pool in pools
        if pool["name"] in names
        for worker in pool.get("workers", [])
    ]


def jobs(context: typer.Context, pool: PoolFilter = None, as_json: Json = False) -> None:
    """List the jobs that the daemon knows: queued, running, and done ones whose result is still kept."""
    with answering(as_json=as_json):
        answer = ask(context, "jobs", pool=pool)
        if as_json:
            print_json(answer)
        else:
            from pool.cli import tables

            tables.show(tables.jobs(read(answer, JobsView)))


def job(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a job, or of a worker.")],
    as_json: Json = False,
) -> None:
    """Tell the story of one job or worker: what happened to it, when, and why."""
    with answering(as_json=as_json):
        answer = ask(context, "story", id=job_id)
        if as_json:
            print_json(answer)
        else:
            from pool.cli import tables

            tables.show(tables.story(read(answer, StoryView)))


def poison(context: typer.Context, pool: PoolFilter = None, as_json: Json = False) -> None:
    """List the code that has cost workers, the last killer first, and until when it is refused.

    `pool-admin job CODE` tells the whole story of one.
    """
    with answering(as_json=as_json):
        answer = _remembered(ask(context, "status"), pool)
        codes = read(answer, PoisonView).poison
        if as_json:
            print_json(answer)
        else:
            from pool.cli import tables

            tables.show(tables.poison(codes) if codes else "no code has cost a worker lately")


def _remembered(answer: object, pool: str | None) -> dict[str, object]:
    """Each code as the daemon described it, with the name of its pool."""
    read(answer, SnapshotView)
    pools = answer["pools"] if isinstance(answer, dict) else []
    names = [each["name"] for each in pools]
    if pool is not None and pool not in names:
        raise UnknownPoolError(f"there is no pool {pool!r}; the pools are: {', '.join(names) or 'none'}")
    chosen = [each for each in pools if pool in {None, each["name"]}]
    return {"poison": [{"pool": each["name"], **code} for each in chosen for code in each.get("poison", [])]}

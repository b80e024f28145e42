"""The commands that change what the daemon does: drain, resume, recycle, resize, cancel, pardon."""

from __future__ import annotations

from typing import Annotated

import typer

from pool.cli.answer import Json, answering, ask, print_json, text_of

PoolFilter = Annotated[str | None, typer.Option("--pool", metavar="NAME", help="Only in this pool.")]
OnePool = Annotated[str | None, typer.Argument(metavar="POOL", help="Only this pool; else all of them.")]


def drain(context: typer.Context, pool: OnePool = None, as_json: Json = False) -> None:
    """Take no new jobs and finish those that were accepted; the workers stay. `resume` ends it."""
    _order(context, "drain", as_json=as_json, pool=pool)


def resume(context: typer.Context, pool: OnePool = None, as_json: Json = False) -> None:
    """Take jobs again, and try at once to start workers where failures had stopped that."""
    _order(context, "resume", as_json=as_json, pool=pool)


def recycle(
    context: typer.Context,
    pool: OnePool = None,
    worker: Annotated[str | None, typer.Option("--worker", metavar="ID", help="Only this worker.")] = None,
    as_json: Json = False,
) -> None:
    """Replace workers by fresh ones, one after another; a running job finishes first."""
    _order(context, "recycle", as_json=as_json, pool=pool, worker=worker)


def resize(
    context: typer.Context,
    pool: Annotated[str, typer.Argument(metavar="POOL")],
    min_workers: Annotated[int, typer.Option("--min", help="Workers that are always kept.")],
    max_workers: Annotated[int, typer.Option("--max", help="Workers at most.")],
    as_json: Json = False,
) -> None:
    """Set how many workers a pool keeps, until the daemon is started anew (the configuration is not changed)."""
    _order(context, "resize", as_json=as_json, pool=pool, min=min_workers, max=max_workers)


def cancel(context: typer.Context, job_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """End one job, queued or running."""
    _order(context, "cancel", as_json=as_json, job=job_id)


def _order(context: typer.Context, name: str, *, as_json: bool, **arguments: str | int | None) -> None:
    with answering(as_json=as_json):
        answer = ask(context, name, **arguments)
        if as_json:
            print_json(answer)
        else:
            typer.echo(text_of(answer, otherwise=f"{name}: done"))


def pardon(
    context: typer.Context,
    code: Annotated[
        str | None, typer.Argument(metavar="CODE", help="As `poison` lists it; its beginning is enough.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All code.")] = False,
    pool: PoolFilter = None,
    as_json: Json = False,
) -> None:
    """Forget what code has done to workers and take it again, at once."""
    if (code is None) is not everything:
        raise typer.BadParameter("name one, or say --all", param_hint="CODE")
    with answering(as_json=as_json):
        answer = ask(context, "pardon", code=code, all=everything, pool=pool)
        if as_json:
            print_json(answer)
        else:
            typer.echo(text_of(answer, otherwise="pardon: done"))

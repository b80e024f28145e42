"""The commands that change what the daemon does: drain, resume, recycle, resize, cancel, pardon."""

from __future__ import annotations

from typing import Annotated

import typer

from pool.cli.answer import Json, address, answering, ask, ask_about, print_json, text_of

PoolFilter = Annotated[str | None, typer.Option("--pool", metavar="NAME", help="Only in this pool.")]
OnePool = Annotated[str | None, typer.Argument(metavar="POOL", help="Only this pool; else all of them.")]


def drain(
    context: typer.Context,
    pool: OnePool = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            help="Wait at most SECONDS for the accepted jobs to end. Exit status 1 if some have not ended.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Accept no new jobs and finish the accepted ones. The workers stay; `resume` ends the drain."""
    with answering(as_json=as_json):
        from pool.client.admin import AdminClient

        with AdminClient(address(context).admin) as client:
            _show(client.drain(pool, timeout=timeout), "drain", as_json=as_json)


def resume(context: typer.Context, pool: OnePool = None, as_json: Json = False) -> None:
    """Accept jobs again. Pools that stopped starting workers after failures try again at once."""
    _order(context, "resume", as_json=as_json, pool=pool)


def recycle(
    context: typer.Context,
    pool: OnePool = None,
    worker: Annotated[str | None, typer.Option("--worker", metavar="ID", help="Only this worker.")] = None,
    as_json: Json = False,
) -> None:
    """Replace workers by new ones, one after another. A running job finishes first."""
    _order(context, "recycle", as_json=as_json, pool=pool, worker=worker)


def resize(
    context: typer.Context,
    pool: Annotated[str, typer.Argument(metavar="POOL")],
    min_workers: Annotated[int, typer.Option("--min", help="The fewest workers.")],
    max_workers: Annotated[int, typer.Option("--max", help="The most workers.")],
    as_json: Json = False,
) -> None:
    """Set how many workers a pool keeps, until the daemon restarts. The configuration does not change."""
    _order(context, "resize", as_json=as_json, pool=pool, min=min_workers, max=max_workers)


def cancel(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job; the beginning of its id is enough.")],
    as_json: Json = False,
) -> None:
    """Cancel one job, queued or running."""
    with answering(as_json=as_json):
        _show(ask_about(context, "cancel", "job", job_id), "cancel", as_json=as_json)


def _order(context: typer.Context, name: str, *, as_json: bool, **arguments: str | int | None) -> None:
    with answering(as_json=as_json):
        _show(ask(context, name, **arguments), name, as_json=as_json)


def _show(answer: object, name: str, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        typer.echo(text_of(answer, otherwise=f"{name}: done"))


def pardon(
    context: typer.Context,
    code: Annotated[
        str | None, typer.Argument(metavar="CODE", help="The code, as `poison` lists it; its beginning is enough.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Pardon all code.")] = False,
    pool: PoolFilter = None,
    as_json: Json = False,
) -> None:
    """Accept poisoned code again, at once, and forget the workers that it destroyed."""
    if (code is None) is not everything:
        raise typer.BadParameter("name one code, or use --all", param_hint="CODE")
    with answering(as_json=as_json):
        _show(ask(context, "pardon", code=code, all=everything, pool=pool), "pardon", as_json=as_json)

"""`pool-admin poison` and `pardon`: code that has cost the pool workers, and the operator's word about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import Json, answering, ask, print_json, text_of
from pool.cli.view import SnapshotView, View, read
from pool.errors import UnknownPoolError

if TYPE_CHECKING:
    from rich.table import Table

OnePool = Annotated[str | None, typer.Option("--pool", metavar="NAME", help="Only in this pool; else in all of them.")]


class LastView(View, frozen=True):
    age_s: float | None = None
    worker: str = ""
    what: str = ""


class CodeView(View, frozen=True):
    code: str
    pool: str = ""
    kills: int = 0
    refused_until_s: float | None = None
    last: LastView = LastView()


class PoisonView(View, frozen=True):
    poison: tuple[CodeView, ...]


def poison(context: typer.Context, pool: OnePool = None, as_json: Json = False) -> None:
    """List the code that has cost workers, the last killer first, and until when it is refused.

    `pool-admin job CODE` tells the whole story of one.
    """
    with answering(as_json=as_json):
        answer = _remembered(ask(context, "status"), pool)
        codes = read(answer, PoisonView).poison
        if as_json:
            print_json(answer)
        else:
            from pool.cli import render

            render.show(_table(codes) if codes else "no code has cost a worker lately")


def pardon(
    context: typer.Context,
    code: Annotated[
        str | None, typer.Argument(metavar="CODE", help="As `poison` lists it; its beginning is enough.")
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All code.")] = False,
    pool: OnePool = None,
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


def _remembered(answer: object, pool: str | None) -> dict[str, object]:
    """Each code as the daemon described it, with the name of its pool."""
    read(answer, SnapshotView)
    pools = answer["pools"] if isinstance(answer, dict) else []
    names = [each["name"] for each in pools]
    if pool is not None and pool not in names:
        raise UnknownPoolError(f"there is no pool {pool!r}; the pools are: {', '.join(names) or 'none'}")
    chosen = [each for each in pools if pool in {None, each["name"]}]
    return {"poison": [{"pool": each["name"], **code} for each in chosen for code in each.get("poison", [])]}


def _table(codes: tuple[CodeView, ...]) -> Table:
    from pool.cli.cells import cell, duration
    from pool.cli.render import columns

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

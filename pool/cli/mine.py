"""`pool-admin mine`: the jobs of the caller. It uses the submit socket, so it needs no operator's rights."""

from __future__ import annotations

from typing import Annotated

import typer

from pool.cli.answer import Json, address, answering, print_json
from pool.cli.views import read
from pool.status import Mine

SHOWN_JOBS = 20  #: jobs in the table without --last


def mine(
    context: typer.Context,
    last: Annotated[
        int, typer.Option("--last", min=1, metavar="N", help="At most N jobs; with --json all.")
    ] = SHOWN_JOBS,
    as_json: Json = False,
) -> None:
    """Show your own jobs, their place in the queue, and the pools that you may use.

    Needs the submit socket only. A place counts the jobs of all users: each user gets a turn.
    """
    with answering(as_json=as_json):
        from pool.client.admin import AdminClient
        from pool.client.endpoint import submit_endpoint

        with AdminClient(submit_endpoint(address(context).submit)) as client:
            answer = client.mine()
        view = read(answer, Mine)
        if as_json:
            print_json(answer)
        else:
            from pool.cli import tables

            tables.show(tables.mine(view, last=last))

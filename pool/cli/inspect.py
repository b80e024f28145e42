"""The commands that only read: status, workers, jobs, job, poison."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import ExitStatus, Json, answering, ask, ask_about, print_json
from pool.cli.views import Poison, chosen_pools, read, troubles
from pool.errors import InvalidJobError
from pool.model import JobState, Outcome
from pool.status import History, Jobs, JobStatus, PoolStatus, Status
from pool.users import uid_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PoolFilter = Annotated[str | None, typer.Option("--pool", metavar="NAME", help="Only this pool.")]

SHOWN_JOBS = 20  #: jobs in the table without --last
_STATES = (*(state.value for state in JobState), *(outcome.value for outcome in Outcome))
_STATE_WORDS = ", ".join(_STATES)


def status(
    context: typer.Context,
    watch: Annotated[
        float | None, typer.Option("--watch", min=0.1, metavar="SECONDS", help="Repeat every SECONDS until Ctrl-C.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the daemon, its pools and their workers.

    The exit status is 4 (degraded) when a pool has fewer ready workers than its min, when a pool has stopped
    starting workers after failures, or when the daemon is not running.
    """
    with answering(as_json=as_json):
        if watch is not None:
            _watch(context, watch, as_json=as_json)
            return
        answer = ask(context, "status")
        snapshot = read(answer, Status)
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

        tables.show_live(tables.status(read(answer, Status)) for answer in answers())


def workers(context: typer.Context, pool: PoolFilter = None, as_json: Json = False) -> None:
    """List the workers, with every detail."""
    with answering(as_json=as_json):
        answer = ask(context, "status")
        chosen = chosen_pools(read(answer, Status).pools, pool)
        if as_json:
            print_json({"workers": _with_pool(answer, "workers", chosen)})
        else:
            from pool.cli import tables

            tables.show(tables.workers(chosen))


def _with_pool(answer: object, part: str, chosen: Sequence[PoolStatus]) -> list[dict[str, object]]:
    """The items of this part of each pool as the daemon described them, with the pool's name. `answer` is a Status."""
    pools, names = answer["pools"] if isinstance(answer, dict) else [], {each.name for each in chosen}
    return [{"pool": pool["name"], **each} for pool in pools if pool["name"] in names for each in pool.get(part, [])]


def jobs(
    context: typer.Context,
    *,
    pool: PoolFilter = None,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="STATE", help=f"Only jobs in this state or with this outcome: {_STATE_WORDS}."),
    ] = None,
    client: Annotated[
        str | None, typer.Option("--client", metavar="USER", help="Only jobs of this user: a name or a user id.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="AGE", help="Only jobs of the last AGE: 90s, 5m, 2h or 1d.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", min=1, metavar="N", help="At most N jobs (default: 20; with --json, all).")
    ] = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first: queued, running, and done ones whose result is still kept."""
    if state is not None and state not in _STATES:
        raise typer.BadParameter(f"{state!r:.40}; one of: {_STATE_WORDS}", param_hint="--state")
    age_s = None if since is None else _age(since)
    uid = None if client is None else _uid(client)
    with answering(as_json=as_json):
        answer = ask(context, "jobs", pool=pool)
        chosen = _chosen_jobs(answer, state, uid, age_s=age_s)
        filtered = (state, client, since) != (None, None, None)
        shown = chosen[: last or (None if as_json else SHOWN_JOBS)]
        result = {"jobs": shown, "total": len(chosen) if filtered else read(answer, Jobs).total}
        if as_json:
            print_json(result if filtered or last else answer)
        else:
            from pool.cli import tables

            tables.show(tables.jobs(read(result, Jobs)))


def _chosen_jobs(answer: object, state: str | None, uid: str | None, *, age_s: float | None) -> list[dict[str, object]]:
    """The jobs with these properties as the daemon described them, newest first."""
    jobs, rows = read(answer, Jobs).jobs, answer["jobs"] if isinstance(answer, dict) else []
    pairs = sorted(zip(jobs, rows, strict=True), key=lambda pair: pair[0].age_s or 0.0)
    return [row for job, row in pairs if _wanted(job, state, uid, age_s=age_s)]


def _wanted(job: JobStatus, state: str | None, uid: str | None, *, age_s: float | None) -> bool:
    return (
        state in {None, job.state, job.outcome}
        and uid in {None, job.client}
        and (age_s is None or (job.age_s is not None and job.age_s <= age_s))
    )


def _age(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", text)
    if found is None:
        raise typer.BadParameter(f"{text!r:.40} is not an age; write 90s, 5m, 2h or 1d", param_hint="--since")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _uid(user: str) -> str:
    try:
        return uid_of(user)
    except KeyError:
        raise typer.BadParameter(f"this host has no user {user!r:.40}", param_hint="--client") from None


def job(
    context: typer.Context,
    job_id: Annotated[
        str, typer.Argument(metavar="ID", help="A job, a worker or poisoned code; the beginning of the id is enough.")
    ],
    *,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="Show the microseconds of each step instead, for a job submitted with trace."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the history of one job or worker: each step, with its time and cause.

    --trace is for a job that was submitted with `trace=True` or `pool-admin run --trace`. It shows when each process
    had done its part, from the client to the child and back. Only `JobResult.trace` has the time at which the client
    had the result.
    """
    with answering(as_json=as_json):
        answer = ask_about(context, "history", "id", job_id)
        view = read(answer, History)
        if trace and not view.trace:
            raise InvalidJobError(
                f"{job_id} has no trace; submit a job with trace=True, or with pool-admin run --trace, "
                "and ask while the daemon that ran it keeps its result"
            )
        if as_json:
            print_json(answer)
        else:
            from pool.cli import tables

            tables.show(tables.trace(view.trace) if trace else tables.history(view))


def poison(context: typer.Context, pool: PoolFilter = None, as_json: Json = False) -> None:
    """List code that has destroyed workers, the latest first, and how long it is still refused.

    `pool-admin job CODE` shows the history of one.
    """
    with answering(as_json=as_json):
        status = ask(context, "status")
        chosen = chosen_pools(read(status, Status).pools, pool)
        answer = {"poison": _with_pool(status, "poison", chosen)}
        codes = read(answer, Poison).poison
        if as_json:
            print_json(answer)
        else:
            from pool.cli import tables

            tables.show(tables.poison(codes) if codes else "no code has destroyed a worker lately")

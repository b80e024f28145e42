"""`pool-admin doctor`: whether the isolation holds on this host.

The daemon reports its workers' probes. This process reads the facts about the host, and prints those findings also when
the daemon does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pool.cli.answer import ExitStatus, Json, address, answering, ask, complain, error_object, print_json, resolve
from pool.cli.views import NO_PROBES, read
from pool.errors import DaemonUnreachableError, PoolError
from pool.status import Probes, WorkerProbes

if TYPE_CHECKING:
    from pool.config import Settings
    from pool.doctor import HostFinding

#: Part of an older daemon's answer to a call that it does not know.
_UNKNOWN_CALL = "knows no call"


def doctor(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="The daemon's configuration: where it is, and what it needs of the host."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show whether the isolation holds: each worker's lockdown probes, and what to do about this host.

    The exit status is 4 (degraded) when a probe failed or a layer is missing in some worker, when no worker has passed
    its probes, or when the host has a problem (not a warning); 3 when the daemon cannot be reached.
    """
    with answering(as_json=as_json):
        settings = _settings(context, config)
        answer, checkup, error = _asked(context)
        findings = _findings(context, settings)
    degraded = [*(troubles(checkup) if error is None else []), *_problems(findings)]
    if as_json:
        print_json(_object(answer, findings, degraded=degraded, error=error))
    else:
        _show(checkup, findings, degraded=degraded, error=error)
    status = _status(error, degraded)
    if status is not ExitStatus.OK:
        raise typer.Exit(status)


def _settings(context: typer.Context, path: Path | None) -> Settings | None:
    """The configuration, if --config names one. It also has the daemon's endpoint, unless an option names another."""
    if path is None:
        return None
    from pool.config import load

    settings = load(path)
    if address(context).admin is None:
        context.obj = resolve(None, str(settings.daemon.run_dir))
    return settings


def _asked(context: typer.Context) -> tuple[object, Probes, PoolError | None]:
    """The daemon's answer, unchanged and as a view, or the error."""
    try:
        answer = ask(context, "doctor")
        return answer, read(answer, Probes), None
    except PoolError as error:
        return None, NO_PROBES, _older() if _UNKNOWN_CALL in error.message else error


def _older() -> PoolError:
    return PoolError(
        "the daemon is older than this pool-admin and cannot report its workers' probes; update it and start it again"
    )


def _findings(context: typer.Context, settings: Settings | None) -> list[HostFinding]:
    from pool.client.endpoint import admin_endpoint, path_of
    from pool.doctor import Wanted, examine, gather, wanted_by

    run_dir = Path(path_of(admin_endpoint(address(context).admin))).parent
    return examine(gather(run_dir), Wanted() if settings is None else wanted_by(settings))


def _problems(findings: Sequence[HostFinding]) -> list[str]:
    return [f"host: {each.id}: {each.seen}" for each in findings if each.verdict == "problem"]


def _object(
    answer: object, findings: Sequence[HostFinding], *, degraded: Sequence[str], error: PoolError | None
) -> dict[str, object]:
    described: dict[str, object] = {
        "daemon": answer,
        "host": [asdict(each) for each in findings],
        "degraded": list(degraded),
    }
    return described if error is None else {**described, "error": error_object(error)}


def _show(
    checkup: Probes, findings: Sequence[HostFinding], *, degraded: Sequence[str], error: PoolError | None
) -> None:
    from pool.cli import doctor_tables, tables

    if error is None:
        tables.show(doctor_tables.workers(checkup))
    tables.show(doctor_tables.host(findings))
    tables.show(doctor_tables.conclusion(degraded, asked=error is None))
    if error is not None:
        complain(error.message)


def _status(error: PoolError | None, degraded: Sequence[str]) -> ExitStatus:
    if isinstance(error, DaemonUnreachableError):
        return ExitStatus.UNREACHABLE
    if error is not None:
        return ExitStatus.ERROR
    return ExitStatus.DEGRADED if degraded else ExitStatus.OK


#: `skipped`: the probe tests a part that the host refuses. That part is listed as missing.
GOOD = ("held", "skipped")


def troubles(checkup: Probes) -> list[str]:
    """One sentence for each reason not to rely on the isolation. Empty if there is none."""
    if not any(worker.probes for worker in checkup.workers):
        return ["no worker has passed its lockdown probes yet; see pool-admin status"]
    return [sentence for worker in checkup.workers for sentence in _worker_troubles(worker)]


def _worker_troubles(worker: WorkerProbes) -> list[str]:
    found = [
        f"worker {worker.id}: {each.probe} is {each.verdict or 'without a verdict'}: {each.seen or 'nothing seen'}"
        for each in worker.probes
        if each.verdict not in GOOD
    ]
    if worker.missing:
        found.append(f"worker {worker.id}: isolation {worker.isolation or '?'}, without {', '.join(worker.missing)}")
    return found

"""The tables of `pool-admin doctor`. Every string of a worker, the daemon or the host goes through `visible`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from pool.cli.cells import cell, columns, counts
from pool.cli.doctor import GOOD
from pool.printable import visible
from pool.status import ProbeRow, Probes, WorkerProbes

if TYPE_CHECKING:
    from pool.doctor import HostFinding

STYLES = {
    "held": "green",
    "skipped": "yellow",
    "broken": "red",
    "ok": "green",
    "warning": "yellow",
    "problem": "red",
    "unknown": "yellow",
}


def workers(checkup: Probes) -> Group:
    """A line for each worker; then each probe with what it found, and in which workers."""
    if not checkup.workers:
        return Group(Text("no workers"), Text())
    summary = columns("WORKER", "POOL", "ISOLATION", "MISSING", "PROBES")
    for worker in checkup.workers:
        summary.add_row(
            cell(worker.id),
            cell(worker.pool),
            cell(worker.isolation),
            cell(", ".join(worker.missing)),
            counts(_tally(worker)),
        )
    probes = columns("PROBE", "VERDICT", "WORKERS", "SEEN")
    for probe, where in _findings(checkup.workers):
        everywhere = len(where) == len(checkup.workers) > 1
        names = "all" if everywhere else ", ".join(where)
        probes.add_row(cell(probe.probe), _verdict(probe.verdict), cell(names), cell(probe.seen))
    return Group(summary, Text(), probes, Text())


def _tally(worker: WorkerProbes) -> dict[str, int]:
    tally: dict[str, int] = {}
    for probe in worker.probes:
        tally[probe.verdict] = tally.get(probe.verdict, 0) + 1
    return tally


def _findings(patients: Sequence[WorkerProbes]) -> list[tuple[ProbeRow, list[str]]]:
    """Workers in which a probe held share a row, with the finding of the first. Other results have a row each."""
    rows: dict[tuple[str, ...], tuple[ProbeRow, list[str]]] = {}
    for worker in patients:
        for probe in worker.probes:
            alone = () if probe.verdict in GOOD else (worker.id,)
            _, where = rows.setdefault((probe.probe, probe.verdict, *alone), (probe, []))
            where.append(worker.id)
    return list(rows.values())


def host(findings: Sequence[HostFinding]) -> Group:
    """A line for each finding, then what to do."""
    found = columns("HOST", "VERDICT", "WHAT", "SEEN")
    for each in findings:
        found.add_row(cell(each.id), _verdict(each.verdict), cell(each.title), cell(each.seen))
    parts: list[RenderableType] = [found, Text()]
    parts += [_advice(each) for each in findings if each.advice]
    return Group(*parts, Text())


def conclusion(degraded: Sequence[str], *, asked: bool) -> Group:
    if degraded:
        return Group(*(Text(visible(sentence), style="red") for sentence in degraded))
    everything = "the isolation holds" if asked else "this host has no problem; its workers were not asked"
    return Group(Text(everything, style="green" if asked else "yellow"))


def _advice(finding: HostFinding) -> Text:
    line = Text(visible(finding.id), style=STYLES[finding.verdict])
    return line.append(f": {visible(finding.advice)}", style="default")


def _verdict(verdict: str) -> Text:
    return Text(visible(verdict) or "-", style=STYLES.get(verdict, "red"))

"""The daemon's answer to `doctor` with types, as far as the command line reads it; and what in it is degraded.

Like the Snapshot's views: unknown keys are passed over, missing ones have defaults. A verdict that is not known to be
good counts as bad.
"""

from __future__ import annotations

from pool.cli.view import View

#: `skipped` is a probe of a part that the host refuses; the part itself is among the missing ones.
GOOD = ("held", "skipped")


class ProbeView(View, frozen=True):
    probe: str = ""
    verdict: str = ""
    seen: str = ""


class PatientView(View, frozen=True):
    """One worker."""

    id: str = ""
    pool: str = ""
    isolation: str | None = None
    missing: tuple[str, ...] = ()
    probes: tuple[ProbeView, ...] = ()


class CheckupView(View, frozen=True):
    workers: tuple[PatientView, ...] = ()


NOTHING = CheckupView()


def troubles(checkup: CheckupView) -> list[str]:
    """One sentence for each reason not to rely on the isolation as it is meant to be; none: all is well."""
    if not any(worker.probes for worker in checkup.workers):
        return ["no worker has proven its lockdown yet; see pool-admin status"]
    return [sentence for worker in checkup.workers for sentence in _worker_troubles(worker)]


def _worker_troubles(worker: PatientView) -> list[str]:
    found = [
        f"worker {worker.id}: {each.probe} is {each.verdict or 'without a verdict'}: {each.seen or 'nothing seen'}"
        for each in worker.probes
        if each.verdict not in GOOD
    ]
    if worker.missing:
        found.append(f"worker {worker.id}: isolation {worker.isolation or '?'}, without {', '.join(worker.missing)}")
    return found

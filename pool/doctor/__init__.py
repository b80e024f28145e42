"""`pool-admin doctor`: reads facts about the host, judges them, and says what to do.

host.py ──▶ Host (facts.py) ──▶ check_kernel.py, check_engine.py, advisories.py ──▶ [HostFinding]
reads,        plain values        judge, and read nothing
judges nothing
"""

from __future__ import annotations

from pool.doctor import check_engine, check_kernel
from pool.doctor.advisories import advise
from pool.doctor.facts import TITLES, Host, HostFinding, Verdict, Wanted, unknown
from pool.doctor.host import gather, wanted_by

__all__ = ["TITLES", "Host", "HostFinding", "Verdict", "Wanted", "examine", "gather", "wanted_by"]

_EVERYTHING = Wanted()


def examine(host: Host, wanted: Wanted = _EVERYTHING) -> list[HostFinding]:
    """The findings about this host, for the wanted configuration."""
    return [
        *check_kernel.judge(host.kernel, wanted, swap_limit=host.docker is None or host.docker.swap_limit),
        *check_engine.judge_engine(host, wanted),
        *check_engine.judge_access(host),
        *_advisories(host),
    ]


def _advisories(host: Host) -> list[HostFinding]:
    found = [advise("kernel", host.kernel.release, patched=None)]
    docker = host.docker
    versions = {"runc": host.oci.version} if docker is None else {"docker": docker.version, **docker.components}
    for component in ("docker", "containerd", "runc"):
        version = versions.get(component, "")
        if version:
            found.append(advise(component, version, patched=host.changelogs.get(component)))
        else:
            advice = "start the Docker Engine, or let this user ask it, and run doctor again"
            found.append(unknown(f"advisories-{component}", "the version is not told", advice))
    return found

"""Facts in, findings out: always one for each id, in the same order. Pure."""

from __future__ import annotations

from pool.doctor import judge_engine, judge_files, judge_kernel
from pool.doctor.advisories import advise
from pool.doctor.facts import Host, Wanted
from pool.doctor.finding import HostFinding, unknown

_EVERYTHING = Wanted()


def examine(host: Host, wanted: Wanted = _EVERYTHING) -> list[HostFinding]:
    """What there is to say about this host for what is wanted of it."""
    return [
        *judge_kernel.judge(host.kernel, wanted, swap_limit=host.docker is None or host.docker.swap_limit),
        *judge_engine.judge(host, wanted),
        *judge_files.judge(host),
        *_advisories(host),
    ]


def _advisories(host: Host) -> list[HostFinding]:
    found = [advise("kernel", host.kernel.release, patched=None)]
    docker = host.docker
    versions = {} if docker is None else {"docker": docker.version, **docker.components}
    for component in ("docker", "containerd", "runc"):
        version = versions.get(component, "")
        if version:
            found.append(advise(component, version, patched=host.changelogs.get(component)))
        else:
            advice = "start the Docker Engine, or let this user ask it, and run doctor again"
            found.append(unknown(f"advisories-{component}", "the version is not told", advice))
    return found

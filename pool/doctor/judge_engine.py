"""Judges the Docker Engine by what it says of itself."""

from __future__ import annotations

import re

from pool.doctor.facts import Docker, Host, Wanted
from pool.doctor.finding import HostFinding, ok, problem, unknown, warning

#: The oldest Engine with all that a worker's container asks for (a private cgroup namespace, for one).
OLDEST = (20, 10)
#: Layers on one another without a copy; the second is the name with containerd's image store.
GOOD_STORAGE = ("overlay2", "overlayfs")


def judge(host: Host, wanted: Wanted) -> list[HostFinding]:
    docker = host.docker
    if docker is None:
        advice = "workers cannot start; start the Engine, or let this user ask it, and run doctor again"
        return [
            problem("engine", host.silence or "no answer", advice),
            *(unknown(name, "the Engine does not answer", "see engine") for name in _BEHIND),
        ]
    return [
        _version(docker),
        _runtimes(docker, wanted),
        _storage(docker),
        _live_restore(docker),
        _users(docker),
        _seccomp(docker),
    ]


_BEHIND = ("engine-runtimes", "engine-storage", "engine-live-restore", "engine-users", "engine-seccomp")


def _version(docker: Docker) -> HostFinding:
    seen = f"{docker.version}, API {docker.api}"
    found = re.match(r"(\d+)\.(\d+)", docker.version)
    if found is None:
        return unknown("engine", seen, "see that this Engine is as new as 20.10")
    if (int(found[1]), int(found[2])) < OLDEST:
        return problem("engine", seen, "workers need what 20.10 brought; update the Engine")
    return ok("engine", seen)


def _runtimes(docker: Docker, wanted: Wanted) -> HostFinding:
    missing = sorted(wanted.runtimes - docker.runtimes)
    seen = f"{docker.runtime} of {', '.join(sorted(docker.runtimes))}"
    if missing:
        advice = (
            f"the Engine does not know {', '.join(missing)}: add it to `runtimes` in daemon.json, restart the Engine"
        )
        return problem("engine-runtimes", seen, advice)
    return ok("engine-runtimes", seen)


def _storage(docker: Docker) -> HostFinding:
    if docker.storage in GOOD_STORAGE:
        return ok("engine-storage", docker.storage)
    advice = "workers start slower and share less memory than with overlay2; set `storage-driver` in daemon.json"
    return warning("engine-storage", docker.storage or "not told", advice)


def _live_restore(docker: Docker) -> HostFinding:
    if docker.live_restore:
        return ok("engine-live-restore", "on")
    advice = 'a restart of the Engine ends every worker and its job; `"live-restore": true` in daemon.json'
    return warning("engine-live-restore", "off", advice)


def _users(docker: Docker) -> HostFinding:
    for option, seen in (("rootless", "nobody: the Engine is rootless"), ("userns", "nobody: users are remapped")):
        if option in docker.options:
            return ok("engine-users", seen)
    return ok("engine-users", "root of the host; no worker has a process of root")


def _seccomp(docker: Docker) -> HostFinding:
    if "seccomp" in docker.options:
        return ok("engine-seccomp", "there")
    advice = "this Engine cannot give a worker its filter; use one that is built with seccomp"
    return problem("engine-seccomp", "missing", advice)

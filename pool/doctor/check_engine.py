"""Judges the Docker Engine by its own answers."""

from __future__ import annotations

import re

from pool.doctor.facts import Docker, Entry, Host, HostFinding, Wanted, ok, problem, unknown, warning

#: The oldest Engine with everything that a worker's container needs (such as a private cgroup namespace).
OLDEST = (20, 10)
#: Storage drivers that stack layers without copying; the second is the name with containerd's image store.
GOOD_STORAGE = ("overlay2", "overlayfs")


def judge_engine(host: Host, wanted: Wanted) -> list[HostFinding]:
    docker = host.docker
    if docker is None:
        return [
            _silent(host, wanted),
            _oci(host, wanted),
            *(unknown(name, "the Engine does not answer", "see engine") for name in _BEHIND),
        ]
    return [
        _version(docker),
        _oci(host, wanted),
        _runtimes(docker, wanted),
        _storage(docker),
        _live_restore(docker),
        _users(docker),
        _seccomp(docker),
    ]


_BEHIND = ("engine-runtimes", "engine-storage", "engine-live-restore", "engine-users", "engine-seccomp")


def _silent(host: Host, wanted: Wanted) -> HostFinding:
    seen = host.silence or "no answer"
    if "docker" not in wanted.engines and not host.oci.refusal:
        return ok("engine", f"none, and none is needed: runc starts the workers ({seen})")
    advice = "workers cannot start; start the Engine, or let this user ask it, and run doctor again"
    return problem("engine", seen, advice)


def _oci(host: Host, wanted: Wanted) -> HostFinding:
    oci, needed = host.oci, wanted.oci(docker=host.docker is not None)
    seen = f"runc {oci.version}" if oci.version else "no runc"
    if not needed:
        return ok("engine-oci", f"{seen}, not used")
    if not oci.refusal:
        return ok("engine-oci", seen)
    if "oci" in wanted.engines:
        return problem("engine-oci", seen, f"the pools with engine: oci cannot start workers: {oci.refusal}")
    return warning("engine-oci", seen, f"it cannot take the place of a Docker Engine: {oci.refusal}")


def _version(docker: Docker) -> HostFinding:
    seen = f"{docker.version}, API {docker.api}"
    found = re.match(r"(\d+)\.(\d+)", docker.version)
    if found is None:
        return unknown("engine", seen, "see that this Engine is as new as 20.10")
    if (int(found[1]), int(found[2])) < OLDEST:
        return problem("engine", seen, "workers need 20.10 or newer; update the Engine")
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


# ---- who may reach the Engine and the daemon ----

_GROUP, _OTHERS, _WRITE_BY_OTHERS, _WRITE_BY_ANY = 0o020, 0o002, 0o022, 0o077
#: Endpoints where nobody on the network path can read or send commands.
_PRIVATE = ("unix://", "ssh://")
#: The text of the Engine's warning when everybody can connect to it.
_OPEN = "accessible on"


def judge_access(host: Host) -> list[HostFinding]:
    return [_docker_socket(host), _endpoint(host), _run_dir(host)]


def _docker_socket(host: Host) -> HostFinding:
    socket = host.socket
    if socket is None:
        if host.endpoint.startswith("unix://"):
            return unknown("docker-socket", f"there is none at {host.endpoint}", "see engine")
        return ok("docker-socket", "not used")
    seen = _described(socket)
    if socket.mode & _OTHERS:
        return problem("docker-socket", seen, f"every user of this host can become root; chmod 0660 {socket.path}")
    if socket.loose:
        return problem("docker-socket", seen, f"anybody may replace it; chmod o-w {' '.join(socket.loose)}")
    if socket.mode & _GROUP and socket.members:
        who = ", ".join(socket.members)
        return warning(
            "docker-socket", seen, f"{who}: whoever is in group {socket.group} can become root; keep it small"
        )
    return ok("docker-socket", seen)


def _endpoint(host: Host) -> HostFinding:
    open_doors = [line for line in host.docker.warnings if _OPEN in line] if host.docker else []
    if not host.tls and not host.endpoint.startswith(_PRIVATE):
        advice = "whoever reaches this port is root there; use the socket, ssh:// or TLS (DOCKER_TLS_VERIFY=1)"
        return problem("docker-endpoint", f"{host.endpoint} without TLS", advice)
    if open_doors:
        advice = "whoever reaches that address is root; take the tcp:// address out of the Engine's `hosts`"
        return problem("docker-endpoint", open_doors[0], advice)
    return ok("docker-endpoint", host.endpoint + (" with TLS" if host.tls else ""))


def _run_dir(host: Host) -> HostFinding:
    directory, admin = host.run_dir, host.admin_socket
    if directory is None:
        return unknown("run-dir", "not there, or not to be read", "start the daemon, or name its --run-dir or --config")
    seen = _described(directory)
    if directory.mode & _WRITE_BY_OTHERS:
        return problem("run-dir", seen, f"others may replace the daemon's sockets; chmod 0711 {directory.path}")
    if directory.loose:
        return problem("run-dir", seen, f"others may replace the directory; chmod o-w {' '.join(directory.loose)}")
    if admin is not None and admin.mode & _WRITE_BY_ANY:
        return problem("run-dir", _described(admin), f"others may administer the daemon; chmod 0600 {admin.path}")
    return ok("run-dir", seen)


def _described(entry: Entry) -> str:
    return f"{entry.path} {entry.owner}:{entry.group} {entry.mode:04o}"

"""Judges who may reach the Engine and the daemon."""

from __future__ import annotations

from pool.doctor.facts import Entry, Host
from pool.doctor.finding import HostFinding, ok, problem, unknown, warning

_GROUP, _OTHERS, _WRITE_BY_OTHERS, _WRITE_BY_ANY = 0o020, 0o002, 0o022, 0o077
#: Endpoints that nobody else on the way can read or command.
_PRIVATE = ("unix://", "ssh://")
#: What the Engine says of itself in its warnings when it listens for everybody.
_OPEN = "accessible on"


def judge(host: Host) -> list[HostFinding]:
    return [_socket(host), _endpoint(host), _run_dir(host)]


def _socket(host: Host) -> HostFinding:
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

"""The facts about a host, and findings about it, as plain values. None means that the host has no such thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Facts from /proc and /sys, and from a few attempts."""

    release: str
    cgroups: str  #: "v2" | "hybrid" | "v1" | "none"
    controllers: frozenset[str]  #: those that a worker's limits need and that can be used
    namespaces: str | None  #: why a user without privileges cannot create them; "" if he can; None: could not be tried
    max_user_namespaces: int | None
    userns_clone: int | None  #: Debian's switch
    apparmor_userns: int | None  #: Ubuntu's switch; 1 restricts
    apparmor: bool
    selinux: bool
    profiles: frozenset[str] | None  #: AppArmor's, as loaded; None: this user may not read them
    landlock: int | None  #: its ABI, 0 without; None: could not be asked
    seccomp: frozenset[str]  #: actions of a filter
    yama: int | None
    io_uring: int | None  #: 0 everybody, 1 a group, 2 nobody
    bpf: int | None  #: 0: without privileges
    overcommit: int | None
    swap: bool
    core_pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """The Engine's own answers."""

    version: str
    api: str
    components: Mapping[str, str]  #: the versions of "runc" and "containerd", as exact as the Engine has them
    runtime: str  #: the default
    runtimes: frozenset[str]
    storage: str
    live_restore: bool
    swap_limit: bool
    options: frozenset[str]  #: names of its security options: seccomp, apparmor, rootless, userns, ...
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Oci:
    """What the engine oci needs on the host."""

    version: str  #: of runc; "" if it is not installed
    refusal: str  #: why this user cannot start containers with it, and what to do; "" if he can


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file, directory or socket, and its owner."""

    path: str
    owner: str
    group: str
    mode: int  #: permission bits
    members: tuple[str, ...] = ()  #: who is in the group, root excepted
    loose: tuple[str, ...] = ()  #: directories above it whose entries anybody may replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    kernel: Kernel
    docker: Docker | None
    silence: str  #: why the Engine did not answer, "" if it did
    oci: Oci
    endpoint: str  #: the endpoint of the Engine
    tls: bool  #: whether the connection to a TCP endpoint uses TLS
    socket: Entry | None
    run_dir: Entry | None
    admin_socket: Entry | None
    #: for each component, the CVEs that the changelog of the distribution's package names; no entry: no changelog
    changelogs: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the configuration needs on the host."""

    runtimes: frozenset[str] = frozenset()
    profiles: frozenset[str] = frozenset()
    namespaces: bool = True  #: some pool has namespaces for each job
    engines: frozenset[str] = frozenset({"auto"})  #: the pools' words

    def oci(self, *, docker: bool) -> bool:
        """Whether some pool has the engine oci; `docker`: whether a Docker Engine answers."""
        return "oci" in self.engines or ("auto" in self.engines and not docker)


Verdict = Literal["ok", "warning", "problem", "unknown"]

#: All kinds of findings, in the order in which they are shown.
TITLES: Final = {
    "kernel": "kernel version",
    "cgroups": "control groups",
    "cgroup-controllers": "limits of memory, processes and CPU",
    "user-namespaces": "namespaces for each job",
    "seccomp": "system call filters",
    "landlock": "file rules for each job",
    "mandatory-access": "AppArmor or SELinux",
    "apparmor-profile": "AppArmor profile of the workers",
    "ptrace-scope": "who may trace whom",
    "io-uring": "io_uring",
    "unprivileged-bpf": "BPF without privileges",
    "overcommit": "memory promised to forked processes",
    "swap": "swap",
    "core-dumps": "where core dumps go",
    "engine": "Docker Engine",
    "engine-oci": "containers without a Docker Engine",
    "engine-runtimes": "OCI runtimes",
    "engine-storage": "storage driver",
    "engine-live-restore": "workers outlive a restart of the Engine",
    "engine-users": "who root in a container is",
    "engine-seccomp": "the Engine's support of filters",
    "docker-socket": "who may command the Engine",
    "docker-endpoint": "the way to the Engine",
    "run-dir": "the daemon's run directory",
    "advisories-kernel": "known vulnerabilities of the kernel",
    "advisories-docker": "known vulnerabilities of the Docker Engine",
    "advisories-containerd": "known vulnerabilities of containerd",
    "advisories-runc": "known vulnerabilities of runc",
}


@dataclass(frozen=True, slots=True)
class HostFinding:
    id: str
    title: str
    verdict: Verdict
    seen: str
    advice: str  #: what to do; "" when there is nothing to do


def ok(name: str, seen: str) -> HostFinding:
    return HostFinding(name, TITLES[name], "ok", seen, "")


def warning(name: str, seen: str, advice: str) -> HostFinding:
    return HostFinding(name, TITLES[name], "warning", seen, advice)


def problem(name: str, seen: str, advice: str) -> HostFinding:
    return HostFinding(name, TITLES[name], "problem", seen, advice)


def unknown(name: str, seen: str, advice: str) -> HostFinding:
    return HostFinding(name, TITLES[name], "unknown", seen, advice)

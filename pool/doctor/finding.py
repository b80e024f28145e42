"""One finding about the host. The ids are fixed: `docs/operations.md` explains each under its id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Verdict = Literal["ok", "warning", "problem", "unknown"]

#: Every finding there is, in the order in which they are shown.
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

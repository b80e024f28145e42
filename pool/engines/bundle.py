"""The configuration of an OCI container (`config.json`), made from the WorkerSpec and the values of `lockdown.py`.

It contains what a Docker Engine adds by itself: the mounts of /proc, /dev and /sys, and the form of the seccomp filter.
It follows the OCI runtime specification 1.0.2. All functions are pure.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from pool.engines import lockdown
from pool.engines.base import Mount, WorkerSpec
from pool.errors import EngineError

#: The architecture's name in a seccomp profile, by what `uname -m` calls it.
ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

#: The keys of a profile's rule that an OCI runtime accepts; `comment` is not one of them.
_RULE = ("names", "action", "errnoRet", "args")
_IGNORED = frozenset({"comment"})

#: Each container has its own. The network namespace that a runtime makes has only a loopback device.
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")

_SEALED = ("nosuid", "noexec", "nodev")
#: The same mounts as a Docker Engine's.
SYSTEM_MOUNTS = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": list(_SEALED)},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_SEALED, "ro"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*_SEALED, "ro"]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": list(_SEALED)},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """An image's unpacked file system, and the command line of its program."""

    path: Path
    entrypoint: tuple[str, ...]
    environment: tuple[str, ...] = ()  #: NAME=value

    def lacks(self, target: str) -> bool:
        """Whether the path has no mount point in it."""
        return not (self.path / target.lstrip("/")).exists()


def config(spec: WorkerSpec, root: Root, *, seccomp: str, cgroup: str, swap: bool = True) -> dict[str, Any]:
    """The content of `config.json`.

    `seccomp`: the profile as JSON text, in Docker's form. `cgroup`: path below the root of the cgroup file system.
    `swap`: whether this kernel counts swap. Raises EngineError for a profile that cannot be translated.
    """
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root.path), "readonly": True},
        "hostname": lockdown.HOSTNAME,
        "process": _process(spec, root),
        "mounts": _mounts(spec, root),
        "annotations": lockdown.labels(spec),
        "linux": {
            "namespaces": [{"type": name} for name in NAMESPACES],
            "cgroupsPath": cgroup,
            "resources": _resources(spec, swap=swap),
            "seccomp": filter_of(seccomp, platform.machine()),
            "maskedPaths": list(lockdown.MASKED_PATHS),
            "readonlyPaths": list(lockdown.READ_ONLY_PATHS),
            "rootfsPropagation": "rprivate",
        },
    }


def _process(spec: WorkerSpec, root: Root) -> dict[str, Any]:
    given = dict(each.partition("=")[::2] for each in root.environment)
    environment = {**given, **lockdown.ENVIRONMENT, "HOSTNAME": lockdown.HOSTNAME}
    return {
        "terminal": False,
        "user": {"uid": spec.uid, "gid": spec.uid},
        "args": [*root.entrypoint, *spec.command],
        "env": [f"{name}={value}" for name, value in sorted(environment.items())],
        "cwd": lockdown.SCRATCH[0],
        "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
        "noNewPrivileges": True,
        "oomScoreAdj": lockdown.OOM_SCORE_ADJ,
        "rlimits": [
            {"type": f"RLIMIT_{name.upper()}", "soft": value, "hard": value}
            for name, value in lockdown.ulimits(spec).items()
        ],
        **({"apparmorProfile": spec.apparmor} if spec.apparmor else {}),
    }


def _resources(spec: WorkerSpec, *, swap: bool) -> dict[str, Any]:
    return {
        "devices": [{"allow": False, "access": "rwm"}],  # the runtime adds /dev/null and the other devices
        "memory": {"limit": spec.memory_bytes, **({"swap": spec.memory_bytes} if swap else {})},
        "cpu": {"quota": lockdown.cpu_quota_us(spec), "period": lockdown.CPU_PERIOD_US},
        "pids": {"limit": lockdown.processes(spec)},
    }


# ---- files ----


def _mounts(spec: WorkerSpec, root: Root) -> list[dict[str, Any]]:
    options = list(lockdown.scratch_options(spec))
    scratch = [
        {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options} for place in lockdown.SCRATCH
    ]
    places = [_place(parent) for parent in _lacking(root, [mount.target for mount in spec.mounts])]
    return [*SYSTEM_MOUNTS, *scratch, *places, *(_bind(mount) for mount in spec.mounts)]


def _lacking(root: Root, targets: Sequence[str]) -> list[str]:
    """Directories in which mount points have to be made."""
    return sorted({str(PurePosixPath(target).parent) for target in targets if root.lacks(target)})


def _place(directory: str) -> dict[str, Any]:
    """A tmpfs over the directory, for mount points: all workers share the root, so none are made in it. The runtime
    makes the tmpfs read-only after it has made them.
    """
    options = [*_SEALED, "ro", "mode=755", "size=64k"]
    return {"destination": directory, "type": "tmpfs", "source": "tmpfs", "options": options}


def _bind(mount: Mount) -> dict[str, Any]:
    # `bind` and not `rbind`: a read-only bind is not read-only for what is mounted below it.
    return {
        "destination": mount.target,
        "type": "bind",
        "source": str(mount.source),
        "options": ["bind", "ro", "rprivate"],
    }


# ---- seccomp ----


@cache
def filter_of(profile: str, machine: str) -> dict[str, Any]:
    """`linux.seccomp` of a profile in Docker's form, for a machine as `uname -m` names it. Raises EngineError.

    All callers get the same object. A start of a worker would otherwise read the profile anew.
    """
    given = json.loads(profile)
    return {
        "defaultAction": given["defaultAction"],
        "defaultErrnoRet": given["defaultErrnoRet"],
        "architectures": _architectures(given["archMap"], machine),
        "syscalls": [_rule(rule) for rule in given["syscalls"]],
    }


def _architectures(known: Collection[dict[str, Any]], machine: str) -> list[str]:
    wanted = ARCHITECTURES.get(machine)
    for each in known:
        if each["architecture"] == wanted:
            return [each["architecture"], *each["subArchitectures"]]
    raise EngineError(
        f"the seccomp profile has no list of system calls for this machine's architecture, {machine}; it has "
        f"{', '.join(sorted(each['architecture'] for each in known))}",
        machine=machine,
    )


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    """Raises EngineError for Docker's conditions (`includes`, `excludes`): without them a rule would allow more."""
    if unknown := rule.keys() - {*_RULE, *_IGNORED}:
        raise EngineError(f"the seccomp profile has a rule with {', '.join(sorted(unknown))}, which the engine lacks")
    return {name: rule[name] for name in _RULE if name in rule}

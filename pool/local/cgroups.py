"""Hard limits on a whole worker, where this user may make a cgroup: root may, other users mostly may not.

Versions 1 and 2 are supported. A cgroup is made with every limit or not at all.
Standard library only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
#: The controllers of version 1, each with its own hierarchy.
_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
#: The last process of a cgroup still exists for a moment after its parent was notified.
_REMOVAL_S, _LOOK_AGAIN_S = 10.0, 0.02


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One directory for version 2, one for each controller for version 1."""

    directories: Mapping[str, Path]  #: by their places below /sys/fs/cgroup of the worker

    def enter(self) -> None:
        """Put this process into it, and all processes that it starts."""
        for path in set(self.directories.values()):
            (path / "cgroup.procs").write_text("0", encoding="ascii")

    def remove(self) -> None:
        """Remove it after its processes have ended. If that fails, an empty cgroup stays, which costs nothing."""
        deadline = time.monotonic() + _REMOVAL_S
        for path in set(self.directories.values()):
            while not _removed(path) and time.monotonic() < deadline:
                time.sleep(_LOOK_AGAIN_S)


def make(name: str, *, memory_bytes: int, cpus: float, processes: int, root: Path = ROOT) -> Cgroup:
    """Raises OSError if this user may not, or a controller is missing."""
    if (root / "cgroup.controllers").exists():
        cgroup = Cgroup({"": _parent_of_own(root) / name})
        limits = {
            "memory.max": memory_bytes,
            "memory.swap.max": 0,
            "pids.max": processes,
            "cpu.max": f"{_quota(cpus)} {_PERIOD_US}",
        }
    else:
        cgroup = Cgroup({each: root / each / _own(each) / name for each in _CONTROLLERS})
        limits = {
            "memory.limit_in_bytes": memory_bytes,
            "memory.memsw.limit_in_bytes": memory_bytes,
            "pids.max": processes,
            "cpu.cfs_period_us": _PERIOD_US,
            "cpu.cfs_quota_us": _quota(cpus),
        }
    try:
        _set_up(cgroup, limits)
    except OSError:
        for path in set(cgroup.directories.values()):
            _removed(path)
        raise
    return cgroup


def _set_up(cgroup: Cgroup, limits: Mapping[str, object]) -> None:
    for path in dict.fromkeys(cgroup.directories.values()):
        if "" in cgroup.directories:
            (path.parent / "cgroup.subtree_control").write_text("+memory +pids +cpu", encoding="ascii")
        path.mkdir(exist_ok=True)
    for name, value in limits.items():
        controller = "" if "" in cgroup.directories else name.partition(".")[0]
        file = cgroup.directories[controller] / name
        if "swap" in name or "memsw" in name:  # missing where swap is not counted
            with contextlib.suppress(FileNotFoundError):
                _write(file, value)
        else:
            _write(file, value)


def _write(file: Path, value: object) -> None:
    with file.open("r+", encoding="ascii") as opened:  # creates nothing
        opened.write(str(value))


def _quota(cpus: float) -> int:
    return max(1000, round(cpus * _PERIOD_US))  # the kernel takes no less than 1 ms


def _own(controller: str) -> str:
    """The path of this process's own cgroup, relative. "" for a controller in whose root it is."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.strip("/")
    return ""


def _parent_of_own(root: Path) -> Path:
    """Version 2 allows no cgroup below one that has processes, so the new one is beside that of this process."""
    own = _own("")
    return (root / own).parent if own else root


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True

"""What a child finds mounted: scratch space of its own, and nothing where files of the worker and the host would be.

    /run, /sys, /dev/pts    one tmpfs that is empty and read-only: covered once, for all children of a zygote
    /tmp, /dev/shm          one fresh tmpfs for each child, so that one size holds for both
    /proc                   empty like /run, or the child's own directory and a few files, if the template allows that

A survey does the same to find out whether the host lets it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from runner import kernel
from runner.kernel import Step

_SCRATCH_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_NO_ROOM = "size=4k,nr_inodes=40,mode=555"
#: What programs ask of /proc that tells nothing of others.
_PROC_FILES = ("cpuinfo", "filesystems", "meminfo", "stat", "uptime", "version")
_ASIDE = "/tmp/proc"  # noqa: S108


def cover() -> None:
    """In a mount namespace of the caller's own: what no child is to see. Raises OSError when the host refuses it."""
    kernel.perform(
        [
            kernel.detaching_mounts(),
            kernel.mounting("tmpfs", "/run", "tmpfs", _SCRATCH_FLAGS | kernel.MS_RDONLY, _NO_ROOM),
            kernel.mounting("/run", "/sys", "", kernel.MS_BIND),
            kernel.mounting("/run", "/dev/pts", "", kernel.MS_BIND),  # a host has so many terminals for all containers
        ]
    )


class Furniture:
    """Laid out once, where all is covered; each child has it in a mount namespace of its own."""

    def __init__(self, tmp_bytes: int, tmp_inodes: int, *, own_proc: bool) -> None:
        self._tmp_inodes = tmp_inodes
        self._files = [f"{_ASIDE}/{name}" for name in _PROC_FILES] if own_proc else []
        self._before_files = (
            kernel.setting_umask(0),
            kernel.mounting("tmpfs", "/tmp", "tmpfs", _SCRATCH_FLAGS, _room(tmp_bytes, tmp_inodes)),  # noqa: S108
            kernel.making_directory("/tmp/shm", 0o1777),  # noqa: S108
            kernel.making_directory("/tmp/tmp", 0o1777),  # noqa: S108
            *((kernel.making_directory(path, 0o755) for path in (_ASIDE, f"{_ASIDE}/self")) if own_proc else ()),
        )
        self._after_files = (
            kernel.mounting("/tmp/shm", "/dev/shm", "", kernel.MS_BIND),  # noqa: S108
            *(_showing_own_proc() if own_proc else [kernel.mounting("/run", "/proc", "", kernel.MS_BIND)]),
            kernel.mounting("/tmp/tmp", "/tmp", "", kernel.MS_BIND),  # noqa: S108
            kernel.changing_directory("/tmp"),  # noqa: S108 - the old one is still what the current directory means
        )

    def place(self) -> None:
        """Leaves no umask. Raises OSError when the host refuses a part."""
        kernel.perform(self._before_files)
        for path in self._files:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o444))
        kernel.perform(self._after_files)

    def resize(self, tmp_bytes: int) -> None:
        """Give the scratch space another size."""
        room = _room(tmp_bytes, self._tmp_inodes)
        kernel.perform([kernel.mounting("", "/tmp", "", kernel.MS_REMOUNT | _SCRATCH_FLAGS, room)])  # noqa: S108


def _room(tmp_bytes: int, tmp_inodes: int) -> str:
    return f"size={tmp_bytes},nr_inodes={tmp_inodes},mode=1777"


def _showing_own_proc() -> Iterator[Step]:
    """A /proc with the child's own directory and what tells of the host only what programs compute with.

    All is bound aside, below the root of the scratch space, while /proc is still there; then it takes its place.
    """
    for name in ("self", *_PROC_FILES):
        yield kernel.mounting(f"/proc/{name}", f"{_ASIDE}/{name}", "", kernel.MS_BIND)
    yield kernel.mounting(_ASIDE, "/proc", "", kernel.MS_BIND | kernel.MS_REC)

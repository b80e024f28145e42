"""What a child finds mounted: scratch space of its own, and nothing where files of the worker and the host would be.

    /tmp, /dev/shm          one fresh tmpfs, so that one size holds for both
    /run, /sys, /dev/pts    one that is empty and read-only
    /proc                   the same, or the child's own directory and a few files, if the template allows that

A survey does the same to find out whether the host lets it.
"""

from __future__ import annotations

import os

from runner import kernel

_SCRATCH_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_NO_ROOM = "size=4k,nr_inodes=40,mode=555"
#: What programs ask of /proc that tells nothing of others.
_PROC_FILES = ("cpuinfo", "filesystems", "meminfo", "stat", "uptime", "version")


def furnish(tmp_bytes: int, tmp_inodes: int, *, own_proc: bool) -> None:
    """In a mount namespace of the caller's own. Raises OSError when the host refuses one."""
    kernel.detach_mounts()
    kernel.mount("tmpfs", "/tmp", "tmpfs", _SCRATCH_FLAGS, _room(tmp_bytes, tmp_inodes))  # noqa: S108
    _make_directories("/tmp/shm", "/tmp/tmp", mode=0o1777)  # noqa: S108
    kernel.mount("/tmp/shm", "/dev/shm", "", kernel.MS_BIND)  # noqa: S108
    kernel.mount("tmpfs", "/run", "tmpfs", _SCRATCH_FLAGS | kernel.MS_RDONLY, _NO_ROOM)
    kernel.mount("/run", "/sys", "", kernel.MS_BIND)
    kernel.mount("/run", "/dev/pts", "", kernel.MS_BIND)  # a host has so many terminals for all its containers
    if own_proc:
        _show_own_proc()
    else:
        kernel.mount("/run", "/proc", "", kernel.MS_BIND)
    kernel.mount("/tmp/tmp", "/tmp", "", kernel.MS_BIND)  # noqa: S108
    os.chdir("/tmp")  # noqa: S108 - the old one is still what the current directory means


def resize(tmp_bytes: int, tmp_inodes: int) -> None:
    """Give the scratch space another size."""
    kernel.mount("", "/tmp", "", kernel.MS_REMOUNT | _SCRATCH_FLAGS, _room(tmp_bytes, tmp_inodes))  # noqa: S108


def _room(tmp_bytes: int, tmp_inodes: int) -> str:
    return f"size={tmp_bytes},nr_inodes={tmp_inodes},mode=1777"


def _make_directories(*paths: str, mode: int) -> None:
    before = os.umask(0)
    for path in paths:
        os.mkdir(path, mode)  # noqa: PTH102
    os.umask(before)


def _show_own_proc() -> None:
    """A /proc with the child's own directory and what tells of the host only what programs compute with.

    All is bound aside, below the root of the scratch space, while /proc is still there; then it takes its place.
    """
    aside = "/tmp/proc"  # noqa: S108
    _make_directories(aside, f"{aside}/self", mode=0o755)
    for name in _PROC_FILES:
        os.close(os.open(f"{aside}/{name}", os.O_CREAT | os.O_WRONLY, 0o444))
    for name in ("self", *_PROC_FILES):
        kernel.mount(f"/proc/{name}", f"{aside}/{name}", "", kernel.MS_BIND)
    kernel.mount(aside, "/proc", "", kernel.MS_BIND | kernel.MS_REC)

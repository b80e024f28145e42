"""What a child finds mounted: its own scratch space, and nothing of the worker's or the host's files.

    /run, /sys, /dev/pts    one empty, read-only tmpfs, mounted once for all children of a zygote
    /dev                    read-only: its devices work, but their times cannot be set
    /tmp, /dev/shm          one fresh tmpfs for each child, so that one size limits both
    /proc                   the child's own descriptors, which /dev/stdin and /dev/fd lead to, its own memory map
                            if the image has a library that reads it, and nothing else; or its own directory and a few
                            files, if the template allows that

`isolation.probe` mounts the same to find out whether the host allows it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain

from runner import kernel, usage
from runner.kernel import Step

_SCRATCH_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_NO_ROOM = "size=4k,nr_inodes=40,mode=555"
#: What programs read in /proc that says nothing about other processes.
_PROC_FILES = ("cpuinfo", "filesystems", "meminfo", "stat", "uptime", "version")
_MAPS = "self/maps"
_ASIDE = "/tmp/proc"  # noqa: S108
#: Of a mount, as mountinfo has them. Who remounts it in another user namespace may take none away.
_KEPT_FLAGS = {b"nosuid": kernel.MS_NOSUID, b"nodev": kernel.MS_NODEV, b"noexec": kernel.MS_NOEXEC}
#: Each child has mounts of its own there, or all have the empty one.
_COVERED = (b"/dev/shm", b"/dev/pts")
#: scikit-learn finds the libraries of its process with it. To mount the memory map costs each child 75 us.
_READS_MAPS = "threadpoolctl"


@cache
def reads_maps() -> bool:
    """Whether jobs see their memory map, for the sake of a library of the image."""
    return importlib.util.find_spec(_READS_MAPS) is not None


def cover() -> None:
    """In a mount namespace of the caller: hide what no child may see. Raises OSError when the host refuses it.

    Whoever may write to a device may set its times, which the next child would see. An AppArmor profile that denies the
    remount takes away only this.
    """
    kernel.perform(
        [
            kernel.detaching_mounts(),
            kernel.mounting("tmpfs", "/run", "tmpfs", _SCRATCH_FLAGS | kernel.MS_RDONLY, _NO_ROOM),
            kernel.mounting("/run", "/sys", "", kernel.MS_BIND),
            kernel.mounting("/run", "/dev/pts", "", kernel.MS_BIND),  # a host has few terminals for all its containers
        ]
    )
    for step in _closing_devices(usage.read_file("/proc/self/mountinfo")):
        with contextlib.suppress(OSError):
            kernel.perform([step])


def _closing_devices(mountinfo: bytes) -> Iterator[Step]:
    """Make all mounts of /dev read-only; proc(5) describes the lines."""
    for line in mountinfo.splitlines():
        _, _, _, _, place, options, *_ = line.split()
        if f"{place.decode()}/".startswith("/dev/") and place not in _COVERED and b"rw" in options.split(b","):
            flags = sum(_KEPT_FLAGS.get(each, 0) for each in options.split(b","))
            yield kernel.mounting("", place.decode(), "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | flags)


class JobMounts:
    """Prepared once, after cover(). Each child places the mounts in a mount namespace of its own, by these steps.

    They set the umask to 0.
    """

    def __init__(self, tmp_bytes: int, tmp_inodes: int, *, own_proc: bool = False, own_maps: bool = False) -> None:
        self._tmp_inodes = tmp_inodes
        files = _PROC_FILES if own_proc else (_MAPS,) if own_maps else ()
        self.steps = (
            kernel.setting_umask(0),
            kernel.mounting("tmpfs", "/tmp", "tmpfs", _SCRATCH_FLAGS, _room(tmp_bytes, tmp_inodes)),  # noqa: S108
            kernel.making_directory("/tmp/shm", 0o1777),  # noqa: S108
            kernel.making_directory("/tmp/tmp", 0o1777),  # noqa: S108
            *(kernel.making_directory(path, 0o755) for path in (_ASIDE, f"{_ASIDE}/self")),
            *(() if own_proc else [kernel.making_directory(f"{_ASIDE}/self/fd", 0o755)]),
            *chain.from_iterable(_making_file(f"{_ASIDE}/{name}") for name in files),
            kernel.mounting("/tmp/shm", "/dev/shm", "", kernel.MS_BIND),  # noqa: S108
            *_covering_proc(("self" if own_proc else "self/fd", *files)),
            kernel.mounting("/tmp/tmp", "/tmp", "", kernel.MS_BIND),  # noqa: S108
            kernel.changing_directory("/tmp"),  # noqa: S108 - the current directory is still the covered one
        )

    def resize(self, tmp_bytes: int) -> None:
        """Change the size of the scratch space."""
        room = _room(tmp_bytes, self._tmp_inodes)
        kernel.perform([kernel.mounting("", "/tmp", "", kernel.MS_REMOUNT | _SCRATCH_FLAGS, room)])  # noqa: S108


def _making_file(path: str) -> Iterator[Step]:
    fd = kernel.number()
    yield kernel.opening(path, os.O_CREAT | os.O_WRONLY, fd, 0o444)
    yield kernel.closing(fd)


def _room(tmp_bytes: int, tmp_inodes: int) -> str:
    return f"size={tmp_bytes},nr_inodes={tmp_inodes},mode=1777"


def _covering_proc(shown: Iterable[str]) -> Iterator[Step]:
    """A /proc with these entries only: bound in the root of the scratch space first, while /proc is still complete."""
    for name in shown:
        yield kernel.mounting(f"/proc/{name}", f"{_ASIDE}/{name}", "", kernel.MS_BIND)
    yield kernel.mounting(_ASIDE, "/proc", "", kernel.MS_BIND | kernel.MS_REC)

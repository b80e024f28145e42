"""The cleanup check after each job: removes what the job left, and finds out whether it has changed the worker.

1. Processes and files. Only descendants of the runner are ever signalled, and only the scratch directories that the
   engine named are emptied, so the same code is safe where the runner is not PID 1 of its own namespace.
2. Everything else is compared with the worker as it was before its first job. The isolation leaves a job nothing to
   change; this is how the worker notices if the isolation did not hold. Each fact has a name, and a deviation is
   reported by that name, so that the daemon can count it.

Each job pays for the check. So it reads little of /proc, compares in loops of the interpreter's own, and keeps no file
open between two checks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from operator import is_, itemgetter
from pathlib import Path
from types import FunctionType
from typing import Any

from runner import usage

#: A fork bomb may win some rounds against the sweep. The pids limit bounds it; a worker that needs more is replaced.
_ROUNDS = 50
#: Modules whose code the runner runs. All others are used by the zygote and its children, which have their own memory.
_OF_THE_RUNNER = frozenset(
    {"attempt", "channel", "children", "cleanup", "idle", "link", "loop", "main", "runner", "usage", "verdict"}
)
#: The byte code of one part of the functions is compared at each check.
_CODE_PARTS = 8


# ---- processes ----


def descendants(root: int) -> Iterator[int]:
    """Pids below `root`, children before grandchildren."""
    todo = [root]
    while todo:
        found = _children(todo.pop())
        yield from found
        todo.extend(found)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            found.extend(map(int, usage.read_file(f"/proc/{pid}/task/{task}/children").split()))
    return found


def kill_strays(own: Collection[int]) -> str:
    """Kill every descendant except `own`, and reap those that were reparented to us. "" or what could not be killed.

    Where each job has a pid namespace there are none: the kernel has killed them all.
    """
    if _alone_with(own):
        return ""
    for _ in range(_ROUNDS):
        strays = [pid for pid in descendants(os.getpid()) if pid not in own]
        if not strays:
            return ""
        if not all(map(_kill, strays)):
            break
        _reap(strays)
    return f"processes: {len(strays)} would not die"


def _alone_with(own: Collection[int]) -> bool:
    """Whether /proc has no other process. Only where it has none of others: in a worker's own pid namespace.

    This looks at one directory; the walk below opens a file for each thread.
    """
    with contextlib.suppress(OSError):
        return os.getpid() == 1 and {int(name) for name in os.listdir("/proc") if name.isdigit()} <= {1, *own}  # noqa: PTH208
    return False


def _kill(pid: int) -> bool:
    """False for a process of another user, which no job can have started."""
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True


def _reap(pids: Sequence[int]) -> None:
    """Reap those that are our own children by now. The zygote reaps its own."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0 if os.getpid() == _parent(pid) else os.WNOHANG)


def _parent(pid: int) -> int:
    try:
        status = usage.read_file(f"/proc/{pid}/stat")
    except OSError:
        return 0
    return int(status.rpartition(b")")[2].split()[1])


# ---- files ----


def empty(directory: Path) -> str:
    """Remove everything in a scratch directory. "" or what could not be removed.

    Directories are flattened and not walked: the children of each are moved up into the root, so that no depth, no path
    length and no name can stop it.
    """
    try:
        moved = 0
        while entries := list(os.scandir(directory)):
            for entry in entries:
                moved = _remove(entry, directory, moved)
    except OSError as error:
        return f"files: {directory} cannot be emptied ({error.strerror})"
    return ""


def _remove(entry: os.DirEntry[str], root: Path, moved: int) -> int:
    if not stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
        os.unlink(entry.path)  # noqa: PTH108 - surrogates in names survive os, and nothing is followed
        return moved
    os.chmod(entry.path, 0o700)  # noqa: PTH101
    for inner in list(os.scandir(entry.path)):
        moved += 1
        if inner.is_dir(follow_symlinks=False):
            os.chmod(inner.path, 0o700)  # noqa: PTH101 - a directory without write permission cannot be moved
        os.rename(inner.path, f"{root}/.{os.getpid()}.{moved}.{os.urandom(4).hex()}")  # noqa: PTH104
    os.rmdir(entry.path)  # noqa: PTH106
    return moved


# ---- everything else ----


class Baseline:
    """Taken when the worker is ready. `deviations` compares after each job, in the same state: one child parked."""

    def __init__(self, zygote_pid: int) -> None:
        self._pids = (os.getpid(), zygote_pid)
        thread_counts = [_counting(f"/proc/{pid}/task", lambda found: found.st_nlink - 2) for pid in self._pids]
        self._facts: Mapping[str, Callable[[], object]] = {
            "limits": lambda: [_read(f"/proc/{pid}/limits") for pid in self._pids],
            "scheduling": self._scheduling,
            "threads": lambda: [count() for count in thread_counts],
            "descriptors": _counting("/proc/self/fd", lambda found: found.st_size + 1),
            "mounts": lambda: _read("/proc/self/mountinfo"),
            "ipc": lambda: [_read(f"/proc/sysvipc/{kind}") for kind in ("shm", "sem", "msg")],
            "code": _Code().changed,
        }
        self._before = self._now()
        self._open = _open_files()

    def deviations(self) -> list[str]:
        """A line for each fact that has changed."""
        now = self._now()
        changed = [name for name, before in self._before.items() if now[name] != before]
        if "mounts" in changed and _mounts(now["mounts"]) == _mounts(self._before["mounts"]):
            changed.remove("mounts")
            self._before["mounts"] = now["mounts"]
        if "descriptors" in changed and _open_files() == self._open:
            changed.remove("descriptors")
            self._before["descriptors"] = now["descriptors"]
        return [f"{name}: not as before the job" for name in changed]

    def _now(self) -> dict[str, Any]:
        return {name: look() for name, look in self._facts.items()}

    def _scheduling(self) -> object:
        return [
            (
                os.getpriority(os.PRIO_PROCESS, pid),
                os.sched_getaffinity(pid),
                os.sched_getscheduler(pid),
                _read(f"/proc/{pid}/oom_score_adj"),
            )
            for pid in self._pids
        ]


def _read(path: str) -> bytes:
    """b"" for a file that this kernel does not have, or whose process is gone."""
    try:
        return usage.read_file(path)
    except OSError:
        return b""


def _counting(path: str, from_stat: Callable[[os.stat_result], int]) -> Callable[[], int]:
    """Counts the entries of a directory of /proc: from its stat where this kernel reports them there, else by listing.

    Listing a directory of descriptors opens one more, which is counted too.
    """
    if from_stat(os.stat(path)) == len(os.listdir(path)):  # noqa: PTH116, PTH208
        return lambda: from_stat(os.stat(path))  # noqa: PTH116
    return lambda: len(os.listdir(path))  # noqa: PTH208


def _open_files() -> list[str]:
    """What kind of file each descriptor of this process refers to, sorted, without the eventfds.

    libzmq has an eventfd for each of its sockets, and closes it in a thread of its own: seconds after the socket was
    closed, and after one of 75 changes of the daemon not at all. A job cannot open one in the runner.
    """
    found: list[str] = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            found.append(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
    return sorted(target.partition(":[")[0] for target in found if target != "anon_inode:[eventfd]")


def _mounts(mountinfo: bytes) -> list[list[bytes]]:
    """What is mounted where, and with which options of the mount itself: a list of fields for each mount, see proc(5).

    Not the options of the file system behind a mount, nor where mounts spread to: the host may change these at any
    time, as `mount -o remount` of its root does for all that is mounted from there. A job owns no such file system.
    """
    halves = [line.partition(b" - ") for line in mountinfo.splitlines()]
    return [[*mount.split()[:6], *file_system.split()[:2]] for mount, _, file_system in halves]


class _Code:
    """The runner's functions in memory: their identity and their byte code. The files are read-only anyway."""

    def __init__(self) -> None:
        self._lookups = [(itemgetter(*names), place) for place, names in _places()]
        self._functions = [*self._found()]
        self._codes = [function.__code__ for function in self._functions]
        self._sums = [zlib.crc32(code.co_code) for code in self._codes]
        self._part = 0

    def changed(self) -> bool:
        """Whether a function was replaced, or has other byte code. Byte code is compared for one part at a time."""
        try:
            same = all(map(is_, self._found(), self._functions))
        except KeyError:
            same = False
        return not same or self._part_changed()

    def _part_changed(self) -> bool:
        self._part = (self._part + 1) % _CODE_PARTS
        part = slice(self._part, None, _CODE_PARTS)
        codes = [function.__code__ for function in self._functions[part]]
        return [zlib.crc32(code.co_code) for code in codes] != self._sums[part]

    def _found(self) -> Iterator[FunctionType]:
        return chain.from_iterable([get(place) for get, place in self._lookups])


def _places() -> Iterator[tuple[Mapping[str, object], list[str]]]:
    """The namespaces of the runner's modules and their classes, with the names of the functions in each."""
    modules = [vars(module) for name, module in sys.modules.items() if _is_of_the_runner(name)]
    values = {id(value): value for module in modules for value in module.values()}.values()
    classes = [vars(value) for value in values if isinstance(value, type) and _is_of_the_runner(value.__module__)]
    for place in [*modules, *classes]:
        names = [name for name, value in place.items() if isinstance(value, FunctionType)]
        if names:
            yield place, [*names, names[0]]  # twice, because itemgetter makes no tuple of a single name


def _is_of_the_runner(name: str) -> bool:
    package, _, module = name.partition(".")
    return package == "runner" and module in _OF_THE_RUNNER

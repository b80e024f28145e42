"""Finds out after each job whether it has changed the worker.

All that a job could change is compared with the worker as it was before its first job. The isolation leaves a job
nothing to change; this is how the worker notices if the isolation did not hold. Each fact has a name, and a deviation
is reported by that name, so that the daemon can count it.

Each job pays for the check. So the kernel is asked by one table of calls, and where it answers as it did before the
first job, nothing is read by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter, call, is_, itemgetter
from types import FunctionType
from typing import Any

from runner import kernel, usage
from runner.call_table import CallTable
from runner.kernel import Step

#: Modules whose code the runner runs. All others are used by the zygote and its children, which have their own memory.
_OF_THE_RUNNER = frozenset(
    "attempt baseline channel children cleanup idle link loop main runner usage verdict".split()  # noqa: SIM905
)
#: The byte code of one part of the functions is compared at each check.
_CODE_PARTS = 8
#: At each check so far apart, all facts are read by name.
CHECKS_BY_NAME = 8
_IPC = ("shm", "sem", "msg")
#: Room for one answer of the kernel, and for all.
_ANSWER_BYTES = 2048
_ROOM_BYTES = 16 * _ANSWER_BYTES
#: struct pollfd: the descriptor, which events are asked for, which have come.
_POLL = struct.Struct("=ihh")
_AT_EMPTY_PATH = 0x1000


class Baseline:
    """Taken when the worker is ready. `deviations` compares after each job, in the same state: one child parked."""

    def __init__(self, zygote_pid: int) -> None:
        self._pids = (os.getpid(), zygote_pid)
        thread_counts = [_counting(f"/proc/{pid}/task", _threads) for pid in self._pids]
        self._facts: Mapping[str, Callable[[], object]] = {
            "limits": lambda: [_read(f"/proc/{pid}/limits") for pid in self._pids],
            "scheduling": self._scheduling,
            "threads": lambda: [count() for count in thread_counts],
            "descriptors": _counting("/proc/self/fd", _descriptors),
            "mounts": lambda: _read("/proc/self/mountinfo"),
            "ipc": lambda: [_read(f"/proc/sysvipc/{kind}") for kind in _IPC],
        }
        self._answers = _Answers(self._pids)
        self._code = _Code()
        self._checks = 0
        self._before = self._now()
        self._open = _open_files()
        self._answers.keep()

    def deviations(self) -> list[str]:
        """A line for each fact that has changed. After a change all facts are read by name, and from time to time too:
        not every kernel tells of other mounts, and an answer may be longer than the room for it.
        """
        found = ["code"] if self._code.changed() else []
        self._checks += 1
        if not self._answers.as_before() or not self._checks % CHECKS_BY_NAME:
            changed = self._changed()
            if not changed:
                self._answers.keep()
            found = [*changed, *found]
        return [f"{name}: not as before the job" for name in found]

    def _changed(self) -> list[str]:
        now = self._now()
        changed = [name for name, before in self._before.items() if now[name] != before]
        if "mounts" in changed and _mounts(now["mounts"]) == _mounts(self._before["mounts"]):
            changed.remove("mounts")
            self._before["mounts"] = now["mounts"]
        if "descriptors" in changed and _open_files() == self._open:
            changed.remove("descriptors")
            self._before["descriptors"] = now["descriptors"]
        return changed

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


class _Answers:
    """What the kernel answers to calls about the same facts, byte by byte. It keeps the files open."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._room = bytearray(_ROOM_BYTES)
        self._used = 0
        self._before = b""
        self._table = CallTable(self._steps(pids))
        #: Whether the kernel counts in a stat what has to be counted.
        self._complete = _in_stat("/proc/self/fd", _descriptors) and _in_stat("/proc/self/task", _threads)

    def keep(self) -> None:
        """As it is now."""
        self._before = b""
        self._before = bytes(self._room) if self._complete and self._made() else b""

    def as_before(self) -> bool:
        """False also where a call fails, as those about a process that is gone. Other mounts are told once only, so
        all is different from then on until `keep`.
        """
        if self._before and not (self._made() and self._room == self._before):
            self._before = b""
        return bool(self._before)

    def _made(self) -> bool:
        try:
            self._table.perform()
        except OSError:
            return False
        return True

    def _steps(self, pids: Sequence[int]) -> Iterator[Step]:
        yield self._about_mounts()
        yield from [self._reading(f"/proc/sysvipc/{kind}") for kind in _IPC]
        yield self._counting("/proc/self/fd")
        for pid in pids:
            yield self._reading(f"/proc/{pid}/limits")
            yield self._reading(f"/proc/{pid}/oom_score_adj")
            yield self._counting(f"/proc/{pid}/task")
            yield kernel.calling("getpriority", os.PRIO_PROCESS, pid, result=self._number())
            yield kernel.calling("sched_getscheduler", pid, result=self._number())
            yield kernel.calling("sched_getaffinity", pid, _ANSWER_BYTES, self._place())

    def _reading(self, path: str) -> Step:
        """A file that this kernel does not have is empty."""
        fd = os.open(path if os.path.exists(path) else os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # noqa: PTH110
        return kernel.calling("pread64", fd, self._place(), _ANSWER_BYTES, 0, result=self._number())

    def _counting(self, path: str) -> Step:
        """Its stat has the number of its entries, in all kernels in which the check counts them so."""
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        return kernel.calling("newfstatat", fd, b"", self._place(), _AT_EMPTY_PATH)

    def _about_mounts(self) -> Step:
        """The kernel tells by poll that something was mounted, unmounted or mounted in another way."""
        fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        asked = self._place(_POLL.size)
        _POLL.pack_into(asked, 0, fd, select.POLLPRI, 0)
        return Step(kernel.libc.poll, (asked, 1, 0), "poll", self._number())

    def _place(self, size: int = _ANSWER_BYTES) -> ctypes.Array[ctypes.c_char]:
        place = (ctypes.c_char * size).from_buffer(self._room, self._used)
        self._used += size
        return place

    def _number(self) -> ctypes.c_long:
        return ctypes.c_long.from_buffer(self._place(ctypes.sizeof(ctypes.c_long)))


def _threads(directory: os.stat_result) -> int:
    return directory.st_nlink - 2


def _descriptors(directory: os.stat_result) -> int:
    return directory.st_size + 1


def _read(path: str) -> bytes:
    """b"" for a file that this kernel does not have, or whose process is gone."""
    try:
        return usage.read_file(path)
    except OSError:
        return b""


def _counting(path: str, from_stat: Callable[[os.stat_result], int]) -> Callable[[], int]:
    """Counts the entries of a directory of /proc: from its stat where this kernel has them there, else by listing."""
    if _in_stat(path, from_stat):
        return lambda: from_stat(os.stat(path))  # noqa: PTH116
    return lambda: len(os.listdir(path))  # noqa: PTH208


def _in_stat(path: str, from_stat: Callable[[os.stat_result], int]) -> bool:
    """Listing a directory of descriptors opens one more, which is counted too."""
    return from_stat(os.stat(path)) == len(os.listdir(path))  # noqa: PTH116, PTH208


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
        self._places, names = zip(*_places(), strict=True)
        self._lookups = [itemgetter(*each) for each in names]
        self._functions = [*self._found()]
        self._parts = [self._functions[number::_CODE_PARTS] for number in range(_CODE_PARTS)]
        self._sums = [_sums(part) for part in self._parts]
        self._part = 0

    def changed(self) -> bool:
        """Whether a function was replaced, or has other byte code. Byte code is compared for one part at a time."""
        try:
            same = all(map(is_, self._found(), self._functions))
        except KeyError:
            same = False
        self._part = part = (self._part + 1) % _CODE_PARTS
        return not same or _sums(self._parts[part]) != self._sums[part]

    def _found(self) -> Iterator[FunctionType]:
        return chain.from_iterable(map(call, self._lookups, self._places))


_byte_code = attrgetter("__code__.co_code")


def _sums(functions: Sequence[FunctionType]) -> list[int]:
    return [*map(zlib.crc32, map(_byte_code, functions))]


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

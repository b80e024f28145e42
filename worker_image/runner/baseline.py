"""What a worker is like before its first job, and whether a job has changed it.

Layer 4 leaves a job nothing to change; this is how the worker finds out if it did not hold. Each fact has a name, and a
deviation is told by it, so that it can be counted. Files, processes and mounts that a job left are `residue`'s.

Each job pays for this: /proc is asked for as little as will do, and what is compared is compared by the interpreter's
own loops. Nothing of it is kept open: the runner holds no descriptor of a file.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from operator import is_, itemgetter
from types import FunctionType

_TURNS = 8
#: What is loaded here as well, but called by the zygote and its children only, who have memory of their own.
_RUN_ELSEWHERE = frozenset({
    "bpf", "child", "confine", "datasets", "denials", "execution", "fault", "furniture", "job_filter", "landlock",
    "launcher", "nursery", "outbox", "rehearsal", "survey", "syscalls", "zygote",
})  # fmt: skip
_PAGE_BYTES = 4096


class Baseline:
    """Taken when the worker is ready; `deviations` is asked after each job, in the same state: one child parked."""

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

    def deviations(self) -> list[str]:
        """Names of the facts that are not as they were."""
        now = self._now()
        return [f"{name}: not as before the job" for name, before in self._before.items() if now[name] != before]

    def _now(self) -> dict[str, object]:
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
    """b"" for a file that this kernel does not have, and once its process is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return b"".join(iter(lambda: os.read(fd, _PAGE_BYTES), b""))
    except OSError:
        return b""
    finally:
        os.close(fd)


def _counting(path: str, told: Callable[[os.stat_result], int]) -> Callable[[], int]:
    """How many entries a directory of /proc has: as its status tells, where that is so, else by listing it.

    Listing takes a descriptor, which is listed too.
    """
    if told(os.stat(path)) == len(os.listdir(path)):  # noqa: PTH116, PTH208
        return lambda: told(os.stat(path))  # noqa: PTH116
    return lambda: len(os.listdir(path))  # noqa: PTH208


class _Code:
    """The functions of the runner: where each is found and what it does. On disk all is read-only anyway."""

    def __init__(self) -> None:
        self._lookups = [(itemgetter(*names), place) for place, names in _places()]
        self._functions = [*self._found()]
        self._codes = [function.__code__ for function in self._functions]
        self._sums = [zlib.crc32(code.co_code) for code in self._codes]
        self._turn = 0

    def changed(self) -> bool:
        """Whether they are not its own or do something else; the latter is asked of an eighth a time."""
        try:
            own = all(map(is_, self._found(), self._functions))
        except KeyError:
            own = False
        return not own or self._turn_shows_a_change()

    def _turn_shows_a_change(self) -> bool:
        self._turn = (self._turn + 1) % _TURNS
        part = slice(self._turn, None, _TURNS)
        codes = [function.__code__ for function in self._functions[part]]
        return [zlib.crc32(code.co_code) for code in codes] != self._sums[part]

    def _found(self) -> Iterator[FunctionType]:
        return chain.from_iterable([get(place) for get, place in self._lookups])


def _places() -> Iterator[tuple[Mapping[str, object], list[str]]]:
    """The modules of which this process runs code, and their classes, with the names of the functions there."""
    modules = [vars(module) for name, module in sys.modules.items() if _is_run_here(name)]
    values = {id(value): value for module in modules for value in module.values()}.values()
    classes = [vars(value) for value in values if isinstance(value, type) and _is_run_here(value.__module__)]
    for place in [*modules, *classes]:
        names = [name for name, value in place.items() if isinstance(value, FunctionType)]
        if names:
            yield place, [*names, names[0]]  # once more, for of a single name an itemgetter makes no tuple


def _is_run_here(name: str) -> bool:
    package, _, module = name.partition(".")
    return package == "runner" and module not in _RUN_ELSEWHERE

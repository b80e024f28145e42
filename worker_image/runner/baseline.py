"""What a worker is like before its first job, and whether a job has changed it.

Layer 4 leaves a job nothing to change; this is how the worker finds out if it did not hold. Each fact has a name, and a
deviation is told by it, so that it can be counted. Files, processes and mounts that a job left are `residue`'s.
"""

from __future__ import annotations

import os
import resource
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType

_LIMITS = [value for name, value in vars(resource).items() if name.startswith("RLIMIT_")]

_TURNS = 8


class Baseline:
    """Taken when the worker is ready; `deviations` is asked after each job, in the same state: one child parked."""

    def __init__(self, zygote_pid: int) -> None:
        self._pids = (os.getpid(), zygote_pid)
        self._functions = _functions()
        self._sums = [zlib.crc32(function.__code__.co_code) for *_, function in self._functions]
        self._turn = 0
        self._facts: Mapping[str, Callable[[], object]] = {
            "limits": self._limits,
            "scheduling": self._scheduling,
            "threads": lambda: [len(os.listdir(f"/proc/{pid}/task")) for pid in self._pids],  # noqa: PTH208
            "descriptors": lambda: len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "mounts": lambda: _read("/proc/self/mountinfo"),
            "ipc": lambda: [_read(f"/proc/sysvipc/{kind}") for kind in ("shm", "sem", "msg")],
            "code": self._code,
        }
        self._before = self._now()

    def deviations(self) -> list[str]:
        """Names of the facts that are not as they were."""
        now = self._now()
        return [f"{name}: not as before the job" for name, before in self._before.items() if now[name] != before]

    def _now(self) -> dict[str, object]:
        return {name: look() for name, look in self._facts.items()}

    def _code(self) -> object:
        """Whether its functions are its own and do what they did; of their byte code an eighth each time."""
        own = all(place.get(name) is function for place, name, function in self._functions)
        self._turn = (self._turn + 1) % _TURNS
        changed = [
            name
            for (_, name, function), before in zip(
                self._functions[self._turn :: _TURNS], self._sums[self._turn :: _TURNS], strict=True
            )
            if zlib.crc32(function.__code__.co_code) != before
        ]
        return own, changed

    def _limits(self) -> object:
        own = [resource.getrlimit(each) for each in _LIMITS]
        return own, [_read(f"/proc/{pid}/limits") for pid in self._pids]

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


def _functions() -> list[tuple[Mapping[str, object], str, FunctionType]]:
    """Each function of the runner's modules and where it is found. What is on disk is read-only anyway."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "runner"]
    places: list[Mapping[str, object]] = [vars(module) for module in modules]
    places += [vars(value) for place in places for value in place.values() if isinstance(value, type)]
    return [
        (place, name, value) for place in places for name, value in place.items() if isinstance(value, FunctionType)
    ]


def _read(path: str) -> bytes:
    """b"" for a file that this kernel does not have."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""

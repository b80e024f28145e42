"""Lets libraries work where a job may not start programs and has fewer cores than the machine.

multiprocessing and joblib start new interpreters as helpers. What can do without one does: the resource tracker has
nothing to do, because a job's shared memory goes with its scratch space, and processes are forked whatever start method
was chosen. What cannot is refused at once, with the cause. Called once, in the zygote.
"""

from __future__ import annotations

import errno
import math
import multiprocessing.context
import multiprocessing.popen_fork
import multiprocessing.process
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

from runner import managers

_CGROUP = Path("/sys/fs/cgroup")
_NO_PROGRAMS = (
    "jobs of this pool may not start programs (allow: [subprocess] in the template); use threads, or multiprocessing "
    "with its start method fork"
)
#: Variables by which numeric libraries are told how many threads to start.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


#: Allocators of pyarrow and polars that would otherwise start a thread when they are imported, which no fork survives.
ALLOCATORS = {"JE_ARROW_MALLOC_CONF": "background_thread:false", "_RJEM_MALLOC_CONF": "background_thread:false"}


def set_up() -> None:
    """For all jobs: no threads of allocators, and nothing that needs a socket."""
    os.environ.update(ALLOCATORS)
    managers.set_up()
    process: Any = multiprocessing.process.BaseProcess
    process.kill = _kill


def set_up_forking() -> None:
    """For jobs that may not start programs."""
    tracker: Any = multiprocessing.resource_tracker.ResourceTracker
    tracker._send = tracker.ensure_running = multiprocessing.resource_tracker.ensure_running = lambda *_: None  # noqa: SLF001
    for process in (multiprocessing.context.SpawnProcess, multiprocessing.context.ForkServerProcess):
        forked: Any = process
        forked._Popen = staticmethod(multiprocessing.popen_fork.Popen)  # noqa: SLF001
        forked._after_fork = staticmethod(multiprocessing.process.BaseProcess._after_fork)  # type: ignore[attr-defined] # noqa: SLF001
    multiprocessing.util.spawnv_passfds = _refuse_program  # type: ignore[assignment]
    os.environ["JOBLIB_MULTIPROCESSING"] = "0"  # joblib then uses threads


def _kill(process: Any) -> None:
    """Terminate process; sends SIGKILL signal. Also one of joblib, which has no `kill` because it asks pgrep first."""
    if hasattr(process._popen, "kill"):  # noqa: SLF001
        process._popen.kill()  # noqa: SLF001
    elif process._popen is not None and process.is_alive():  # noqa: SLF001
        os.kill(process.pid, signal.SIGKILL)


def _refuse_program(*_arguments: object) -> NoReturn:
    raise PermissionError(errno.EPERM, _NO_PROGRAMS)


# ---- cores ----


def set_up_cores(root: Path = _CGROUP) -> None:
    """os.cpu_count() and os.sched_getaffinity() tell the worker's CPU quota, in whole cores."""
    affinity = os.sched_getaffinity
    cores = min(_quota(root), len(affinity(0)))

    def cpu_count() -> int:
        """Return the number of CPUs that this process may use."""
        return cores

    def sched_getaffinity(pid: int, /) -> set[int]:
        """Return the CPUs that this process may use."""
        return set(sorted(affinity(pid))[:cores])

    os.cpu_count, os.sched_getaffinity = cpu_count, sched_getaffinity


def _quota(root: Path) -> int:
    """At least 1; the number of CPUs of the machine where there is no quota."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
        else:
            files = [root / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]
            quota, period = [file.read_text(encoding="ascii") for file in files]
        return max(1, math.ceil(int(quota) / int(period))) if int(quota) > 0 else os.cpu_count() or 1
    except (OSError, ValueError):
        return os.cpu_count() or 1


def thread_caps() -> dict[str, str]:
    """Variables that make numeric libraries start as many threads as there are cores."""
    return dict.fromkeys(THREAD_VARIABLES, str(os.cpu_count() or 1))

"""Lets libraries work where a job may not start programs and has fewer cores than the machine.

multiprocessing and joblib start new interpreters as helpers; processes.py makes multiprocessing do without. That is
executed when multiprocessing is imported, because it takes 20 ms: in the zygote of a worker with preloaded modules, in
the job that uses it in another worker. Called once, in the zygote.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import FileFinder, ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_CGROUP = Path("/sys/fs/cgroup")
#: Variables by which numeric libraries are told how many threads to start.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


#: Allocators of pyarrow and polars that would otherwise start a thread when they are imported, which no fork survives.
ALLOCATORS = {"JE_ARROW_MALLOC_CONF": "background_thread:false", "_RJEM_MALLOC_CONF": "background_thread:false"}


def set_up(*, programs: bool, at_once: bool) -> None:
    """For all jobs. `programs`: whether they may start some. `at_once`: import multiprocessing now."""
    os.environ.update(ALLOCATORS)  # no threads of allocators
    if not programs:
        os.environ["JOBLIB_MULTIPROCESSING"] = "0"  # joblib then uses threads
    adapting = PathFinder.find_spec("runner.processes", sys.modules["runner"].__path__)
    assert adapting is not None, "it is beside this module"
    _after_import("multiprocessing", partial(_adapt, adapting, programs=programs))
    if at_once:
        importlib.import_module("multiprocessing")


def _adapt(adapting: ModuleSpec, *, programs: bool) -> None:
    """In a job, `runner` cannot be imported by name any more."""
    assert adapting.loader is not None, "it is a file"
    module: Any = ModuleType(adapting.name)
    adapting.loader.exec_module(module)
    module.set_up(programs=programs)


def _after_import(name: str, follow: Callable[[], None]) -> None:
    """Call a function once a module of the standard library was imported. A job sees nothing of that in `sys`.

    A module of this name that the job brings along is found by another finder, before this one.
    """
    directory = os.path.dirname(os.__file__)  # noqa: PTH120
    PathFinder.find_spec(name, [directory])  # makes the finder, if all modules so far are from byte_code.py
    finder = sys.path_importer_cache.get(directory)
    if not isinstance(finder, FileFinder):  # the standard library is no directory
        importlib.import_module(name)
        follow()
        return
    find_spec = finder.find_spec

    def find(wanted: str, target: ModuleType | None = None) -> ModuleSpec | None:
        spec: Any = find_spec(wanted, target)
        if wanted == name and spec is not None:
            spec.loader.exec_module = partial(run, spec.loader)
        return spec  # type: ignore[no-any-return]

    def run(loader: Any, module: ModuleType) -> None:
        del loader.exec_module
        loader.exec_module(module)
        vars(finder).pop("find_spec", None)
        follow()

    vars(finder)["find_spec"] = find


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

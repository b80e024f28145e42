"""The zygote: a process with one thread that holds the preloaded modules and data sets, and forks a child for each job.

Imported by the zygote only, after it was forked (launch.py): it loads, then fork_server.py waits for the runner.

A worker that preloads nothing is there to start quickly. It leaves out what pays off for many jobs only: to import what
few jobs use, to put memory into large pages, to look for garbage in what was imported.
"""

from __future__ import annotations

import contextvars
import gc
import importlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn, TypeVar

from pool.screen import Policy
from runner import (
    byte_code,
    child,
    datasets,
    huge_pages,
    immortal,
    output_files,
    private_memory,
    seccomp,
    stacks,
    warmup,
    without_programs,
)
from runner.answer import Setting
from runner.confinement import Confinement, PidNamespaces
from runner.datasets import DatasetError, Source
from runner.fork_server import FAILED, LOADED, LOADED_BODY, ForkServer
from runner.forking import Hooks
from runner.isolation import Grant
from runner.launch import Plan, PreloadError
from runner.program import UNSCREENED
from runner.warmup import WarmUpError

T = TypeVar("T")

#: What the code of a job uses now and then, and takes long to import.
_OFTEN_USED = ("asyncio", "dataclasses")
#: A product of matrices of this size is shared among the threads of OpenBLAS.
_SHARED_ROWS = 128


def live(control: socket.socket, plan: Plan, grant: Grant, gathering: ExitStack) -> NoReturn:
    """The whole life of the zygote: load, then fork children until the runner goes away.

    `gathering`: is in force until the libraries are imported, see huge_pages.py.
    """
    try:
        started = time.monotonic()
        server, prepared = _without_decimal_context(_load, control, plan, grant, gathering)
        lines = "\n".join((grant.level, *grant.missing))
        control.send(LOADED + LOADED_BODY.pack((time.monotonic() - started) * 1000) + lines.encode())
        child.live(prepared, server.serve)
    except (PreloadError, DatasetError, WarmUpError) as error:
        control.send(FAILED + str(error).encode()[:2000])
    except Exception:  # noqa: BLE001 - a bug of ours: into the log of the container
        traceback.print_exc()
    finally:
        os._exit(0)


def _load(control: socket.socket, plan: Plan, grant: Grant, gathering: ExitStack) -> tuple[ForkServer, child.Prepared]:
    """Everything that is the same for all children."""
    gc.freeze()  # the collector would write to what the runner has as well, and so copy it
    if plan.isolation == "namespaces" and grant.level != "namespaces":
        raise PreloadError(
            f"this host refuses {'; '.join(grant.missing)}; see pool-admin doctor, or set isolation: auto"
        )
    hooks = Hooks()
    setting = _load_libraries(plan)
    gathering.close()
    if plan.modules:
        gc.collect()
        huge_pages.collapse()
        huge_pages.merge_libraries()
    if plan.isolation != "none":
        stacks.set_up()
        private_memory.replace_shared()
    _require_single_thread()
    if plan.modules:
        huge_pages.merge_variables()
    confined = Confinement(grant, plan.allow, tmp_bytes=plan.tmp_bytes, tmp_inodes=plan.tmp_inodes)
    confined.cover()
    server = ForkServer(control, PidNamespaces() if confined.nested else None, hooks.fork())
    if plan.modules:
        huge_pages.release_files(threads=False)
    prepared = child.prepare(plan.scratch, setting, confined, server.ends)
    if plan.modules:
        prepared = child.rehearse(prepared)
        gc.unfreeze()
        immortal.make(mortal=setting.datasets.values())
    gc.freeze()  # the collector would write to every page that it looks at, and each child would have to copy it
    gc.enable()
    return server, prepared


def _load_libraries(plan: Plan) -> Setting:
    """Import them, load the data sets, and run jobs of ours until the interpreter has specialised the byte code."""
    if plan.isolation != "none":
        _set_up_libraries(plan)
    fetched = datasets.fetch(tuple(map(Source.parse, plan.datasets)))  # before any library is imported here
    os.environ.update(without_programs.thread_caps())
    if plan.modules:
        byte_code.use(byte_code.LIBRARIES)
    for name in (*_OFTEN_USED, *plan.modules) if plan.modules else ():
        _import(name)
    named = datasets.unpack(fetched)  # imports NumPy and pandas if no module has
    byte_code.release()
    _stop_threads_of_blas()
    setting = Setting(
        named,
        Policy.from_json(plan.screen) if plan.screen else UNSCREENED,
        f"{plan.scratch}/{child.WORK}/{output_files.DIRECTORY}",
    )
    for part in warmup.parts() * warmup.ZYGOTE_ROUNDS:
        warmup.run(part, setting)
    return setting


def _without_decimal_context(load: Callable[..., T], *arguments: object) -> T:
    """A thread that first uses decimal gets a context of its defaults, and a job may set those before."""
    context = contextvars.copy_context()
    loaded = context.run(load, *arguments)
    for variable, value in context.items():
        if variable.name != "decimal_context":
            variable.set(value)
    return loaded


def _set_up_libraries(plan: Plan) -> None:
    """Before any library is imported. Not in tests of the runner, whose workers are plain processes."""
    os.environ.pop("GLIBC_TUNABLES", None)  # its effect is from the start of the process on
    without_programs.set_up_cores()
    without_programs.set_up(programs=seccomp.SUBPROCESS in plan.allow, at_once=bool(plan.modules))


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        raise PreloadError(
            f"preload.modules names {name!r}, which does not import in this image ({type(error).__name__}: {error}); "
            "add it to the image's requirements and run pool-admin image build --requirements FILE, or take it out"
        ) from error


def _stop_threads_of_blas() -> None:
    """With several cores, OpenBLAS starts threads when NumPy is imported. It ends them before a fork, and starts them
    again when a child needs them. Their buffers, which count for a job's memory limit, exist once they were used.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or _threads() == 1:
        return
    square = numpy.ones((_SHARED_ROWS, _SHARED_ROWS))
    square @ square
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _require_single_thread() -> None:
    """A fork copies one thread only, and every lock that the others hold stays locked."""
    threads = _threads()
    if threads > 1:
        raise PreloadError(
            f"the preloaded modules started {threads - 1} threads, and a process with threads cannot be forked safely; "
            "find the module that does and take it out of preload.modules"
        )

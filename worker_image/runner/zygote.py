"""The zygote: a process with one thread that holds the preloaded modules and data sets, and forks a child for each job.

    runner ──fork──▶ launcher: finds out what the host grants, enters a user and a pid namespace ──fork──▶ zygote
       ◀── pid of the zygote ──────┘ ends, so that the zygote becomes the runner's own child
       ── go ────────────────────────────────────────────────────────────────────▶ loads, then fork_server.py

unshare() puts into the new pid namespace only what the process forks next; hence the launcher in between.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pool.screen import Policy
from runner import (
    child,
    confinement,
    datasets,
    huge_pages,
    isolation,
    kernel,
    output_files,
    seccomp,
    stacks,
    warmup,
    without_programs,
)
from runner.answer import UNSCREENED, Setting
from runner.confinement import Confinement
from runner.datasets import DatasetError, Source
from runner.fork_server import FAILED, LOADED, LOADED_BODY, ForkServer
from runner.isolation import BARE, Grant
from runner.warmup import WarmUpError

#: What a template may ask for; `none` is for tests of the runner.
LEVELS = ("auto", "namespaces", "plain", "none")
_PID = struct.Struct("!i")
_GO = b"g"


class PreloadError(Exception):
    """The zygote cannot load what the template asks for."""


class ProcessDiedError(Exception):
    """The zygote, or a child that was getting ready, has died; a new worker may do better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the template says about a worker's children."""

    modules: tuple[str, ...]
    datasets: tuple[Source, ...]
    scratch: Path
    screen: str  #: the policy as JSON; empty: none
    isolation: str  #: one of LEVELS
    allow: frozenset[str]
    tmp_bytes: int
    tmp_inodes: int


# ---- the runner's side ----


def launch(plan: Plan) -> tuple[socket.socket, int]:
    """Start the zygote. Returns its control socket and its pid as the runner sees it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _launch(theirs, plan)
    theirs.close()
    answer = ours.recv(_PID.size)
    zygote_pid = _PID.unpack(answer)[0] if answer else 0
    if zygote_pid != pid:
        os.waitpid(pid, 0)
    ours.send(_GO)
    return ours, zygote_pid


def _launch(control: socket.socket, plan: Plan) -> NoReturn:
    kernel.die_with_parent()
    try:
        grant = _grant(plan.isolation)
        if grant.parts >= {"user"}:
            confinement.enter()
            if (pid := os.fork()) > 0:
                control.send(_PID.pack(pid))
                os._exit(0)
        else:
            control.send(_PID.pack(os.getpid()))
        control.recv(1)
        kernel.die_with_parent()  # again, for its parent is another process by now
        _main(control, plan, grant)
    finally:
        os._exit(1)


def _grant(wanted: str) -> Grant:
    """The parts of the wanted isolation that the host grants."""
    if wanted == "none":
        return BARE
    grant = isolation.probe()
    return isolation.without_namespaces(grant) if wanted == "plain" else grant


# ---- the zygote's side ----


def _main(control: socket.socket, plan: Plan, grant: Grant) -> NoReturn:
    """Load, then fork children until the runner goes away."""
    try:
        started = time.monotonic()
        server = _load(control, plan, grant)
        lines = "\n".join((grant.level, *grant.missing))
        control.send(LOADED + LOADED_BODY.pack((time.monotonic() - started) * 1000) + lines.encode())
        server.serve()
    except (PreloadError, DatasetError, WarmUpError) as error:
        control.send(FAILED + str(error).encode()[:2000])
    finally:
        os._exit(0)


def _load(control: socket.socket, plan: Plan, grant: Grant) -> ForkServer:
    """Everything that is the same for all children."""
    if plan.isolation == "namespaces" and grant.level != "namespaces":
        raise PreloadError(
            f"this host refuses {'; '.join(grant.missing)}; see pool-admin doctor, or set isolation: auto"
        )
    if plan.isolation != "none":
        _set_up_libraries(plan)
    fetched = datasets.fetch(plan.datasets)  # before any library is imported here
    held = huge_pages.gather() if plan.modules else []
    for name in plan.modules:
        _import(name)
    setting = Setting(
        datasets.unpack(fetched),
        Policy.from_json(plan.screen) if plan.screen else UNSCREENED,
        plan.scratch / child.WORK / output_files.DIRECTORY,
    )
    for part in warmup.parts() * warmup.ZYGOTE_ROUNDS:
        warmup.run(part, setting)
    held.clear()
    gc.collect()
    huge_pages.collapse()
    if plan.isolation != "none":
        stacks.set_up()
    _require_single_thread()
    confined = Confinement(grant, plan.allow, tmp_bytes=plan.tmp_bytes, tmp_inodes=plan.tmp_inodes)
    confined.cover()
    child.set_up(plan.scratch)
    server = ForkServer(control, child.Prepared(plan.scratch, setting, confined))
    gc.collect()
    gc.freeze()  # the collector would write to every page that it looks at, and each child would have to copy it
    return server


def _set_up_libraries(plan: Plan) -> None:
    """Before any library is imported. Not in tests of the runner, whose workers are plain processes."""
    os.environ.pop("GLIBC_TUNABLES", None)  # its effect is from the start of the process on
    without_programs.set_up()
    without_programs.set_up_cores()
    if seccomp.SUBPROCESS not in plan.allow:
        without_programs.set_up_forking()


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        raise PreloadError(
            f"preload.modules names {name!r}, which does not import in this image ({type(error).__name__}: {error}); "
            "add it to the image's requirements and run pool-admin image build --requirements FILE, or take it out"
        ) from error


def _require_single_thread() -> None:
    """A fork copies one thread only, and every lock that the others hold stays locked."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise PreloadError(
            f"the preloaded modules started {threads - 1} threads, and a process with threads cannot be forked safely; "
            "find the module that does and take it out of preload.modules"
        )

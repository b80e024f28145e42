"""Single-threaded process with the preloaded imports and data sets; it forks children and does nothing else.

Talk with the runner, over a SOCK_SEQPACKET pair, one byte of kind and a fixed struct or text:

    runner ▶ zygote    F                          fork a child
    zygote ▶ runner    L  f64 preload_ms, text    loaded, ready to fork; level of isolation and missing parts, by lines
                       C  i32 id + descriptors: channel, stdout, stderr, pidfd, init   a child was forked
                       N                          none could be forked now
                       X  i32 id, i32 status, f64 cpu_s, u64 max_rss_bytes             a child and all of it is gone
                       E  text                    cannot load; the zygote exits after this

A child's id is its pid as the zygote sees it. `init` is a pidfd of process 1 of the child's pid namespace: killing it
kills all that the job has started. Where children have no namespace of their own there is none.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from pool.screen import Policy
from runner import child
from runner.confine import Confinement, Grant, Nest
from runner.execution import UNSCREENED, Setting
from runner.rehearsal import ZYGOTE_ROUNDS, RehearsalError, parts, rehearse

FORK = b"F"
LOADED, CHILD, NO_CHILD, EXITED, FAILED = b"L", b"C", b"N", b"X", b"E"
LOADED_BODY = struct.Struct("!d")
CHILD_BODY = struct.Struct("!i")
EXITED_BODY = struct.Struct("!iidQ")


class PreloadError(Exception):
    """The template's preload cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the template says of a worker's children."""

    modules: tuple[str, ...]
    datasets: Mapping[str, Path]
    scratch: Path
    screen: str
    isolation: str
    allow: frozenset[str]
    tmp_bytes: int
    tmp_inodes: int


def main(control: socket.socket, plan: Plan, grant: Grant) -> NoReturn:
    """Load, then serve forks until the runner goes away."""
    try:
        started = time.monotonic()
        _require_isolation(plan, grant)
        for name in plan.modules:
            _import(name)
        datasets = {name: _load_dataset(name, path) for name, path in plan.datasets.items()}
        setting = Setting(datasets, Policy.from_json(plan.screen) if plan.screen else UNSCREENED)
        for part in parts() * ZYGOTE_ROUNDS:
            rehearse(part, setting)
        _require_single_thread()
        confinement = Confinement(grant, plan.allow, tmp_bytes=plan.tmp_bytes, tmp_inodes=plan.tmp_inodes)
        nursery = Nursery(control, child.Cradle(plan.scratch, setting, confinement))
        gc.collect()
        gc.freeze()  # the collector would write to, and so copy, every page it looks at
        words = "\n".join((grant.level, *grant.missing))
        control.send(LOADED + LOADED_BODY.pack((time.monotonic() - started) * 1000) + words.encode())
        nursery.serve()
    except (PreloadError, RehearsalError) as error:
        control.send(FAILED + str(error).encode()[:2000])
    finally:
        os._exit(0)


def _require_isolation(plan: Plan, grant: Grant) -> None:
    if plan.isolation == "namespaces" and grant.level != "namespaces":
        raise PreloadError(
            f"this host refuses {'; '.join(grant.missing)}; see pool-admin doctor, or set isolation: auto"
        )


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        raise PreloadError(
            f"preload.modules names {name!r}, which does not import in this image ({type(error).__name__}: {error}); "
            "add it to the image's requirements and run pool-admin image build --requirements FILE, or take it out"
        ) from error


def _load_dataset(name: str, path: Path) -> object:
    try:
        return _LOADERS[path.suffix](path)
    except Exception as error:
        raise PreloadError(f"data set {name!r} cannot be loaded: {type(error).__name__}: {error}") from error


def _load_npy(path: Path) -> object:
    import numpy as np

    return np.load(path, allow_pickle=False)


def _load_csv(path: Path) -> object:
    import pandas as pd

    return pd.read_csv(path)


def _load_parquet(path: Path) -> object:
    import pandas as pd

    return pd.read_parquet(path)


def _load_feather(path: Path) -> object:
    import pandas as pd

    return pd.read_feather(path)


_LOADERS = {".npy": _load_npy, ".csv": _load_csv, ".parquet": _load_parquet, ".feather": _load_feather}


def _require_single_thread() -> None:
    """A fork copies one thread and every lock the others hold."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise PreloadError(
            f"the preloaded modules started {threads - 1} threads, and a process with threads cannot be forked safely; "
            "find the module that does and take it out of preload.modules"
        )


class Brood(NamedTuple):
    """A child and, where it has one, the init of its namespace."""

    pid: int
    init: int = 0
    init_fd: int = -1


class Nursery:
    """Forks and reaps. `_broods` is by the descriptor that tells of a child's end."""

    def __init__(self, control: socket.socket, cradle: child.Cradle) -> None:
        self._control = control
        self._cradle = cradle
        self._nest = Nest() if cradle.confinement.nested else None
        self._broods: dict[int, Brood] = {}
        self._poller = select.poll()
        self._poller.register(control, select.POLLIN)

    def serve(self) -> None:
        """Until the runner closes its end."""
        while True:
            for fd, _ in self._poller.poll():
                if fd != self._control.fileno():
                    self._reap(fd)
                elif self._control.recv(16) == FORK:
                    self._fork()
                else:
                    return

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        try:
            brood = self._bear(theirs, out_write, err_write)
            handed = [ours.fileno(), out_read, err_read, self._attend(brood)]
            handed += [brood.init_fd] if brood.init else []
            socket.send_fds(self._control, [CHILD + CHILD_BODY.pack(brood.pid)], handed)
        except BlockingIOError:  # a running job may have taken all the processes there are
            self._control.send(NO_CHILD)
        finally:
            for sock in (ours, theirs):
                sock.close()
            for fd in (out_read, out_write, err_read, err_write):
                os.close(fd)

    def _bear(self, channel: socket.socket, out: int, err: int) -> Brood:
        """Fork; in a pid namespace with an init of its own where that is granted."""
        if self._nest is None:
            return Brood(self._fork_child(channel, out, err))
        init = self._nest.open()
        init_fd = os.pidfd_open(init)
        try:
            return Brood(self._fork_child(channel, out, err), init, init_fd)
        except BlockingIOError:
            _end(init, init_fd)
            raise
        finally:
            self._nest.leave()

    def _fork_child(self, channel: socket.socket, out: int, err: int) -> int:
        pid = os.fork()
        if pid == 0:
            _become_child(channel, out, err)
            child.live(channel, self._cradle)
        return pid

    def _attend(self, brood: Brood) -> int:
        """Watch for its end."""
        pidfd = os.pidfd_open(brood.pid)
        self._broods[pidfd] = brood
        self._poller.register(pidfd, select.POLLIN)
        return pidfd

    def _reap(self, pidfd: int) -> None:
        """A child is dead: what it started goes too, and only then is it told."""
        brood = self._broods.pop(pidfd)
        self._poller.unregister(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(brood.pid, 0)
        if brood.init:
            _end(brood.init, brood.init_fd)
        body = EXITED_BODY.pack(brood.pid, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
        self._control.send(EXITED + body)


def _end(init: int, init_fd: int) -> None:
    """Kill an init and wait: the kernel lets it go when the last process of its namespace is gone."""
    signal.pidfd_send_signal(init_fd, signal.SIGKILL)
    os.close(init_fd)
    os.waitpid(init, 0)


def _become_child(channel: socket.socket, out: int, err: int) -> None:
    """Standard streams, the channel, and no other descriptor."""
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    kept = channel.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    signal.set_wakeup_fd(-1)

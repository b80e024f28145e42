"""Single-threaded process with the preloaded imports and data sets; it forks children and does nothing else.

Talk with the runner, over a SOCK_SEQPACKET pair, one byte of kind and a fixed struct or text:

    runner ▶ zygote    F                          fork a child
    zygote ▶ runner    L  f64 preload_ms          loaded, ready to fork
                       C  i32 pid + 4 descriptors: channel, stdout, stderr, pidfd      a child was forked
                       X  i32 pid, i32 status, f64 cpu_s, u64 max_rss_bytes            a child has ended and was reaped
                       E  text                    cannot load; the zygote exits after this
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from runner import child
from runner.rehearsal import ZYGOTE_ROUNDS, RehearsalError, parts, rehearse

FORK = b"F"
LOADED, CHILD, EXITED, FAILED = b"L", b"C", b"X", b"E"
LOADED_BODY = struct.Struct("!d")
CHILD_BODY = struct.Struct("!i")
EXITED_BODY = struct.Struct("!iidQ")


class PreloadError(Exception):
    """The template's preload cannot be had."""


def main(control: socket.socket, modules: Sequence[str], datasets: Mapping[str, Path], scratch: Path) -> NoReturn:
    """Load, then serve forks until the runner goes away."""
    try:
        started = time.monotonic()
        for name in modules:
            _import(name)
        loaded = {name: _load_dataset(name, path) for name, path in datasets.items()}
        for part in parts() * ZYGOTE_ROUNDS:
            rehearse(part, loaded)
        _require_single_thread()
        gc.collect()
        gc.freeze()  # the collector would write to, and so copy, every page it looks at
        control.send(LOADED + LOADED_BODY.pack((time.monotonic() - started) * 1000))
        Nursery(control, scratch, loaded).serve()
    except (PreloadError, RehearsalError) as error:
        control.send(FAILED + str(error).encode()[:2000])
    finally:
        os._exit(0)


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


class Nursery:
    """Forks and reaps. `_pidfds` maps the descriptor that tells of a child's end to its pid."""

    def __init__(self, control: socket.socket, scratch: Path, datasets: Mapping[str, object]) -> None:
        self._control = control
        self._scratch = scratch
        self._datasets = datasets
        self._pidfds: dict[int, int] = {}
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
        pid = os.fork()
        if pid == 0:
            _become_child(theirs, out_write, err_write)
            child.live(theirs, self._scratch, self._datasets)
        pidfd = os.pidfd_open(pid)
        self._pidfds[pidfd] = pid
        self._poller.register(pidfd, select.POLLIN)
        handed = [ours.fileno(), out_read, err_read, pidfd]
        socket.send_fds(self._control, [CHILD + CHILD_BODY.pack(pid)], handed)
        for sock in (ours, theirs):
            sock.close()
        for fd in (out_read, out_write, err_read, err_write):
            os.close(fd)

    def _reap(self, pidfd: int) -> None:
        pid = self._pidfds.pop(pidfd)
        self._poller.unregister(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(pid, 0)
        body = EXITED_BODY.pack(pid, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
        self._control.send(EXITED + body)


def _become_child(channel: socket.socket, out: int, err: int) -> None:
    """Standard streams, the channel, and no other descriptor."""
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    kept = channel.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    signal.set_wakeup_fd(-1)

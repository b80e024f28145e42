"""Start of a worker: fork the zygote while there is one thread, then open the link and serve."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from runner import zygote
from runner.child import PR_SET_DUMPABLE, PR_SET_PDEATHSIG

PR_SET_CHILD_SUBREAPER = 36
#: Time for the last words to leave before the process ends.
_LINGER_MS = 1000


def main(arguments: Sequence[str]) -> None:
    """Serve until the end; the exit code says little, the Broken message on the link says why."""
    born = time.monotonic()
    options = _parse(arguments)
    _shield()
    control, zygote_pid = _fork_zygote(options)
    _serve(options, control, zygote_pid, born)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="runner", description="Runs the jobs of one worker; started by the daemon.")
    parser.add_argument("--link", required=True, help="path of the daemon's socket")
    parser.add_argument("--scratch", action="append", type=Path, required=True, help="emptied after each job; repeat")
    parser.add_argument("--preload", default="", help="modules for the zygote to import, comma-separated")
    parser.add_argument("--dataset", action="append", default=[], help="NAME=PATH for the zygote to load; repeat")
    parser.add_argument("--beat-s", type=float, default=2.0)
    parser.add_argument("--orphan-s", type=float, default=120.0, help="how long to outlive the daemon's socket")
    return parser.parse_args(arguments)


def _shield() -> None:
    """Signals a job could send do nothing here, and no process of the same user may look into this one.

    PID 1 is spared SIGKILL and every unhandled signal by the kernel, but Python handles SIGINT unless told not to.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_DUMPABLE, 0)
    if os.getpid() != 1:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


def _fork_zygote(options: argparse.Namespace) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _become_zygote(theirs, options)
    theirs.close()
    return ours, pid


def _become_zygote(control: socket.socket, options: argparse.Namespace) -> NoReturn:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    modules = [name for name in options.preload.split(",") if name]
    datasets = {name: Path(path) for name, _, path in (each.partition("=") for each in options.dataset)}
    zygote.main(control, modules, datasets, options.scratch[0])


def _serve(options: argparse.Namespace, control: socket.socket, zygote_pid: int, born: float) -> None:
    """From here on there are threads: libzmq's."""
    import zmq

    from pool import sources, wire
    from pool._version import __version__
    from pool.errors import RemoteProtocolError
    from runner.runner import DaemonGoneError, Runner, Settings

    context = zmq.Context()
    link = context.socket(zmq.PAIR)
    settings = Settings(
        scratch=tuple(options.scratch),
        beat_s=options.beat_s,
        orphan_s=options.orphan_s,
        born=born,
        isolation="plain",
    )
    runner = Runner(settings, link, control, zygote_pid)
    link.connect(f"ipc://{options.link}")
    digest = sources.digest(sources.read_tree(Path(__file__).resolve().parent.parent))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    hello = wire.Hello(runner=__version__, sources=digest, python=python)
    link.send_multipart(wire.encode(hello))
    try:
        runner.serve()
    except (zygote.PreloadError, RemoteProtocolError) as error:
        link.send_multipart(wire.encode(wire.Broken(reason=str(error)[:4000])))
    except DaemonGoneError:
        pass
    finally:
        context.destroy(linger=_LINGER_MS)
    sys.exit(1)

"""Start of a worker: fork the zygote while this process has one thread, then open the link and serve."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from runner import kernel, zygote
from runner.datasets import Source
from runner.zygote import Plan


def main(arguments: Sequence[str]) -> None:
    """Serve until the end. The Broken message says why it ended; the exit code does not."""
    born = time.monotonic()
    options = _parse(arguments)
    _shield()
    control, zygote_pid = zygote.launch(_plan(options))
    _serve(options, control, zygote_pid, born)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="runner", description="Runs the jobs of one worker; started by the daemon.")
    parser.add_argument("--link", required=True, type=Path, help="path of the daemon's socket")
    parser.add_argument("--scratch", action="append", type=Path, required=True, help="emptied after each job; repeat")
    parser.add_argument("--preload", default="", help="modules for the zygote to import, comma-separated")
    parser.add_argument("--dataset", action="append", default=[], help="NAME=STAMP=PATH to load; repeat")
    parser.add_argument("--screen", default="", help="the screen's policy, as JSON; empty: none")
    parser.add_argument("--isolation", choices=zygote.LEVELS, default="auto", help="none is for tests of the runner")
    parser.add_argument("--allow", default="", help="what jobs may do beyond computing, comma-separated")
    parser.add_argument("--tmp-bytes", type=int, default=64 << 20, help="scratch space of a job that asks for no size")
    parser.add_argument("--tmp-inodes", type=int, default=4096)
    parser.add_argument("--heartbeat-s", type=float, default=2.0)
    parser.add_argument("--orphan-s", type=float, default=120.0, help="how long to wait for the next daemon")
    return parser.parse_args(arguments)


def _shield() -> None:
    """Ignore the signals that a job could send, and let no process of the same user look into this one.

    The kernel does not deliver SIGKILL and unhandled signals to PID 1, but Python has a handler for SIGINT.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    kernel.set_dumpable(False)
    if os.getpid() != 1:
        kernel.adopt_orphans()


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        modules=tuple(name for name in options.preload.split(",") if name),
        datasets=tuple(Source.parse(each) for each in options.dataset),
        scratch=options.scratch[0],
        screen=options.screen,
        isolation=options.isolation,
        allow=frozenset(name for name in options.allow.split(",") if name),
        tmp_bytes=options.tmp_bytes,
        tmp_inodes=options.tmp_inodes,
    )


def _serve(options: argparse.Namespace, control: socket.socket, zygote_pid: int, born: float) -> None:
    """Importing zmq and opening the link start threads."""
    import zmq

    from pool import sources, wire
    from pool._version import __version__
    from pool.errors import RemoteProtocolError
    from runner.link import Link, start_zmq_reaper
    from runner.runner import DaemonGoneError, Runner, Settings

    context = zmq.Context()
    start_zmq_reaper(context)
    settings = Settings(
        scratch=tuple(options.scratch),
        heartbeat_s=options.heartbeat_s,
        orphan_s=options.orphan_s,
        born=born,
        checked=options.isolation != "none",
    )
    digest = sources.digest(sources.read_tree(Path(__file__).resolve().parent.parent))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    hello = wire.Hello(runner=__version__, sources=digest, python=python)
    link = Link(context, options.link)
    runner = Runner(settings, link, hello, control=control, zygote_pid=zygote_pid)
    try:
        runner.serve()
    except (zygote.PreloadError, zygote.ProcessDiedError, RemoteProtocolError) as error:
        permanent = isinstance(error, zygote.PreloadError)
        link.leave(hello, wire.Broken(reason=str(error)[:4000], permanent=permanent))
    except DaemonGoneError:
        pass
    finally:
        context.destroy(linger=0)
    sys.exit(1)

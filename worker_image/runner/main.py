"""Start of a worker: fork the zygote while this process has one thread, then open the link and serve.

With `max_jobs: 1` each job pays for a start. So modules that both the runner and the zygote need are imported here,
before the fork; what only one of them needs, it imports afterwards.
"""

from __future__ import annotations

import gc
import os
import random  # noqa: F401 - for the fork, as are the other imports that are not used here
import signal
import socket
import sys
import threading  # noqa: F401
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from pool.errors import RemoteProtocolError
from runner import byte_code, channel, kernel, launch  # noqa: F401
from runner.launch import Plan

#: The options and their defaults; "" where there is none. `argparse` would be imported for the daemon's call alone.
_OPTIONS = {
    "--link": "",  # path of the daemon's socket
    "--scratch": "",  # a directory that is emptied after each job; given for each
    "--preload": "",  # modules for the zygote to import, comma-separated
    "--dataset": "",  # NAME=STAMP=PATH to load; given for each
    "--screen": "",  # the screen's policy, as JSON; empty: none
    "--isolation": "auto",  # one of launch.LEVELS
    "--allow": "",  # what jobs may do beyond computing, comma-separated
    "--tmp-bytes": str(64 << 20),  # scratch space of a job that asks for no size
    "--tmp-inodes": "4096",
    "--heartbeat-s": "2",
    "--jobs": "",  # after how many the daemon replaces the worker; empty: any number may come
    "--orphan-s": "120",  # how long to wait for the next daemon
}
_REPEATED = ("--scratch", "--dataset")
_REQUIRED = ("--link", "--scratch")


def main(arguments: Sequence[str]) -> None:
    """Serve until the end. The Broken message says why it ended; the exit code does not."""
    born = time.monotonic()
    gc.disable()  # for the imports after the fork too
    options = _parse(arguments)
    _shield()
    control, zygote_pid = launch.launch(_plan(options))
    _serve(options, control, zygote_pid, born)


def _parse(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The values of each option; of one that is not repeated, the last."""
    if "--help" in arguments:
        print(f"Runs the jobs of one worker; started by the daemon with {' '.join(_OPTIONS)}, each with a value.")  # noqa: T201
        sys.exit(0)
    found: dict[str, list[str]] = {}
    for name, value in zip(arguments[::2], arguments[1::2], strict=False):
        found[name] = [*found.get(name, []), value] if name in _REPEATED else [value]
    wrong = [*(found.keys() - _OPTIONS.keys()), *(name for name in _REQUIRED if name not in found)]
    if wrong or len(arguments) % 2 or found.get("--isolation", ["auto"])[0] not in launch.LEVELS:
        sys.exit(f"runner: wrong options: {' '.join(wrong or arguments)}")
    return {name: [default] for name, default in _OPTIONS.items() if default or name not in _REPEATED} | found


def _shield() -> None:
    """Ignore the signals that a job could send, and let no process of the same user look into this one.

    The kernel does not deliver SIGKILL and unhandled signals to PID 1, but Python has a handler for SIGINT.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by a caller, it would have the kernel reap the children
    kernel.set_dumpable(False)
    if os.getpid() != 1:
        kernel.adopt_orphans()


def _plan(options: dict[str, list[str]]) -> Plan:
    return Plan(
        modules=_names(options["--preload"]),
        datasets=tuple(options.get("--dataset", ())),
        scratch=Path(options["--scratch"][0]),
        screen=options["--screen"][0],
        isolation=options["--isolation"][0],
        allow=frozenset(_names(options["--allow"])),
        tmp_bytes=int(options["--tmp-bytes"][0]),
        tmp_inodes=int(options["--tmp-inodes"][0]),
    )


def _names(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in values[0].split(",") if name)


def _serve(options: dict[str, list[str]], control: socket.socket, zygote_pid: int, born: float) -> None:
    """Importing zmq and opening the link start threads."""
    import zmq

    from pool import sources, wire
    from pool._version import __version__
    from runner.idle import Settings
    from runner.link import Link, start_zmq_reaper
    from runner.runner import DaemonGoneError, Runner

    gc.freeze()
    gc.enable()
    context = zmq.Context()
    start_zmq_reaper(context)
    settings = Settings(
        scratch=tuple(map(Path, options["--scratch"])),
        heartbeat_s=float(options["--heartbeat-s"][0]),
        orphan_s=float(options["--orphan-s"][0]),
        born=born,
        checked=options["--isolation"][0] != "none",
        single=options["--jobs"][0] == "1",
    )
    digest = byte_code.sources() or sources.digest(sources.read_tree(Path(__file__).resolve().parent.parent))
    byte_code.release()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    hello = wire.Hello(runner=__version__, sources=digest, python=python)
    link = Link(context, Path(options["--link"][0]))
    runner = Runner(settings, link, hello, control=control, zygote_pid=zygote_pid)
    try:
        runner.serve()
    except (launch.PreloadError, launch.ProcessDiedError, RemoteProtocolError) as error:
        permanent = isinstance(error, launch.PreloadError)
        link.leave(hello, wire.Broken(reason=str(error)[:4000], permanent=permanent))
    except DaemonGoneError:
        pass
    except Exception:  # noqa: BLE001 - a bug of ours: into the log of the container
        traceback.print_exc()
    finally:
        os._exit(1)  # the ends of libzmq and of pyzmq may wait without limit for a socket

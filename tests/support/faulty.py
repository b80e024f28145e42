"""Daemons with one fault each: `python -m tests.support.faulty FAULT --config HOME/pool.yaml`.

The docstring of each function of FAULTS says which fault it makes. The function gets HOME, where a test leaves files for
the daemon, and returns what makes its engine. None: the engine of the configuration.
"""

import atexit
import ctypes
import errno
import functools
import gc
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pool import config, inherited, testing
from pool.daemon import worker_spec
from pool.daemon.daemon import Daemon, MakeEngine
from pool.daemon.systemd import setup_logging
from pool.daemon.zmtp import Transport
from pool.engines.docker import DockerEngine
from pool.testing import FoundProcess, ProcessEngine
from tests.support import failpoints
from tests.support.rogue import RogueEngine

_CANNOT_MAP = (
    "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from runner import body; "
    "body._can_be_mapped = lambda _: False; from runner.main import main; main(sys.argv[1:])"
)


def closed(home: Path) -> NoReturn:
    """Its caller has closed the standard streams."""
    os.closerange(0, 3)
    _run(home)


def deaf(home: Path) -> NoReturn:
    """Its caller ignores and blocks signals."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _run(home)


def _run(home: Path) -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-m", "pool.testing", "--config", str(home / "pool.yaml")])


def failing(_home: Path) -> MakeEngine:
    """It is killed at the point POOL_FAILPOINT=<name>:<passes>; see failpoints.py."""
    name, _, passes = os.environ["POOL_FAILPOINT"].rpartition(":")
    failpoints.arm(name, int(passes))
    return ProcessEngine


def failing_fsync(home: Path) -> MakeEngine:
    """Its disk fails: every fsync that Python calls is an I/O error while HOME/fsync-fails exists.

    With `durability: power` each commit calls one.
    """
    real = os.fsync

    def fsync(fd: int) -> None:
        if (home / "fsync-fails").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    os.fsync = fsync
    return ProcessEngine


def interrupted(_home: Path) -> MakeEngine:
    """It gets a signal at a call of a function of the daemon: POOL_SIGNAL=<signal>:<number of the call>."""
    number, _, nth = os.environ["POOL_SIGNAL"].partition(":")
    calls = itertools.count()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "/pool/daemon/" in frame.f_code.co_filename and next(calls) == int(nth):
            os.kill(os.getpid(), int(number))

    inherited.end_at_signals()
    sys.setprofile(profile)
    return ProcessEngine


def jumping(home: Path) -> MakeEngine:
    """Its clock of the day is wrong by as many seconds as the file HOME/clock says."""
    right = time.time
    time.time = lambda: right() + float((home / "clock").read_text())
    return ProcessEngine


def patient(_home: Path) -> None:
    """A worker has a minute and not two seconds to end a job that is over its limit.

    A job that takes all processors of its worker delays the worker's answer on a busy machine. Then the daemon ends the
    worker, rightly, and a test that looks at what the job has left finds another one.
    """
    worker_spec.PoolPolicy = functools.partial(worker_spec.PoolPolicy, kill_grace_s=60.0)


def profiled(home: Path) -> MakeEngine:
    """Its containers get the seccomp profile HOME/profile.json instead of the one that comes with it."""
    return lambda: DockerEngine(seccomp=(home / "profile.json").read_text())


def rogue(home: Path) -> MakeEngine:
    """Some of its workers are taken over from their start on; see rogue.py."""
    scripts = home / "rogue"
    scripts.mkdir(exist_ok=True)
    return lambda: RogueEngine(scripts)


def slow_to_remove(_home: Path) -> MakeEngine:
    """Its engine takes two seconds to remove what an earlier daemon has left."""
    at_once = FoundProcess.kill

    def kill(process: FoundProcess) -> None:
        time.sleep(2)
        at_once(process)

    FoundProcess.kill = kill
    return ProcessEngine


def stale(_home: Path) -> MakeEngine:
    """Its workers were built from other sources, as after an upgrade without an image build."""
    directory = tempfile.mkdtemp(prefix="pool-stale-")
    atexit.register(shutil.rmtree, directory)
    tree = testing.lay_out(Path(directory))
    (tree / "runner" / "extra.py").write_text("# not in this version\n")
    return lambda: ProcessEngine(sources=tree)


def stalling(home: Path) -> MakeEngine:
    """Its loop does not go on for a while, once the file HOME/stall is there, until HOME/go_on is there.

    It stops where SIGSTOP, a slow disk or a paused machine may stop it: after a poll, before deadlines are judged.
    """
    run_once = Transport.run_once

    def run_once_and_stall(self: Transport, *arguments: object) -> None:
        run_once(self, *arguments)
        if (home / "stall").exists():
            while not (home / "go_on").exists():
                time.sleep(0.02)
            (home / "stall").unlink()

    Transport.run_once = run_once_and_stall
    return ProcessEngine


def trimming(_home: Path) -> None:
    """At SIGUSR2 it gives the memory that it does not use back to the kernel, so that what it holds can be measured."""

    def give_back(*_: object) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)

    signal.signal(signal.SIGUSR2, give_back)


def unmapped(_home: Path) -> MakeEngine:
    """Its workers cannot map a file of it, as where a security module of the host refuses that."""

    def engine() -> ProcessEngine:
        made = ProcessEngine()
        made.start = _CANNOT_MAP
        return made

    return engine


FAULTS: dict[str, Callable[[Path], MakeEngine | None]] = {
    each.__name__: each
    for each in (
        closed, deaf, failing, failing_fsync, interrupted, jumping, patient, profiled, rogue, slow_to_remove, stale, stalling, trimming,
        unmapped,
    )
}  # fmt: skip


if __name__ == "__main__":
    _, fault, _, path = sys.argv
    make_engine = FAULTS[fault](Path(path).parent)
    settings = config.load(Path(path))
    setup_logging(settings.daemon)
    sys.exit(Daemon(settings, make_engine=make_engine).run())

"""An engine without containers, for tests: the real runner as a plain process. NO ISOLATION of any kind.

It is for tests of users' loops, and of the daemon, without a Docker Engine. No configuration can select it. Code that
runs in it has all rights of the user.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pool import assets, sources
from pool._version import __version__
from pool.engines.base import EngineFacts, FoundContainer, ImageFacts, WorkerSpec
from pool.errors import StartError

_START = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from runner.main import main; main(sys.argv[1:])"


class ProcessContainer:
    """A runner process and its scratch directory."""

    def __init__(self, process: subprocess.Popen[bytes], scratch: Path) -> None:
        self.id = f"process-{process.pid}"
        self._process = process
        self._scratch = scratch

    def kill(self) -> None:
        """Children die with the zygote, the zygote with the runner (PR_SET_PDEATHSIG)."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def diagnose(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        return f"exit code {self._process.returncode}"

    def pid(self) -> int | None:
        return self._process.pid


class _Note(NamedTuple):
    """What an engine writes into a process's scratch directory, for the engine of a later daemon."""

    pid: int
    started: str  #: so that another process with this pid is not taken for it
    owner: str
    worker_id: str
    instance: str


class FoundProcess:
    """A runner that the engine of an earlier daemon started, so that this process is not its parent."""

    def __init__(self, note: _Note, scratch: Path) -> None:
        self.id = f"process-{note.pid}"
        self._note = note
        self._scratch = scratch

    @property
    def running(self) -> bool:
        return start_of(self._note.pid) == self._note.started

    def kill(self) -> None:
        if self.running:
            pidfd = os.pidfd_open(self._note.pid)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            poller.poll()
            os.close(pidfd)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def diagnose(self) -> str:
        return "it runs" if self.running else "it has ended"

    def pid(self) -> int | None:
        return self._note.pid


def start_of(pid: int) -> str:
    """When a process was started, in ticks; "" if there is none, or it has ended and was not waited for."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if status[0] in "ZX" else status[19]


class ProcessEngine:
    """Runs workers as processes of this user, from the sources of this installation."""

    name = "process"

    def __init__(self, *, sources: Path | None = None) -> None:
        _remove_what_killed_daemons_left()
        self.tree = sources or _shared_tree()
        self.start = _START  #: the program of a worker, for `python -c`; its first argument is the tree
        self.launched: list[WorkerSpec] = []

    def facts(self) -> EngineFacts:
        return EngineFacts(name=self.name, version=__version__, runtime="none", cgroups="none", isolates=False)

    def image(self, name: str) -> ImageFacts:
        return ImageFacts(id=name, runner=__version__, sources="", size_bytes=0)

    def launch(self, spec: WorkerSpec) -> ProcessContainer:
        self.launched.append(spec)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH))
        command = [sys.executable, "-s", "-P", "-c", self.start, str(self.tree), *_localize(spec, scratch)]
        try:
            process = subprocess.Popen(command, env=_ENVIRONMENT, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise StartError(f"the runner could not be started: {error}") from error
        note = _Note(process.pid, start_of(process.pid), spec.owner, spec.worker_id, spec.instance)
        (scratch / _NOTE).write_text(json.dumps(note), encoding="utf-8")
        return ProcessContainer(process, scratch)

    def find(self, *, owner: str) -> list[FoundContainer]:
        return [
            FoundContainer(found := FoundProcess(note, scratch), note.worker_id, note.instance, running=found.running)
            for note, scratch in _notes()
            if note.owner == owner
        ]

    def close(self) -> None:
        """Nothing is open."""


_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


_SCRATCH, _NOTE, _TREES = "pool-scratch-", "note", "pool-trees-"
#: After it the scratch directory of a process that has ended is nobody's any more, and an old tree neither.
_SCRATCH_KEPT_S, _TREE_KEPT_S = 600.0, 7 * 86_400.0


def _notes() -> Iterator[tuple[_Note, Path]]:
    """Of the processes of all daemons of this user, with their scratch directories."""
    for path in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*/{_NOTE}"):
        with contextlib.suppress(OSError, ValueError):  # it is just written or removed
            if path.stat().st_uid == os.geteuid():
                yield _Note(*json.loads(path.read_text(encoding="utf-8"))), path.parent


def _remove_what_killed_daemons_left() -> None:
    for note, scratch in _notes():
        if start_of(note.pid) != note.started and _age_s(scratch / _NOTE) > _SCRATCH_KEPT_S:
            shutil.rmtree(scratch, ignore_errors=True)


def _age_s(path: Path) -> float:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime
    return 0.0


def _shared_tree() -> Path:
    """The tree and its bytecode are written once for each content and user. Another user's is never taken for it.

    A lock holds for the check as well: without it one process removed what another had just made and was reading.
    """
    wanted = sources.digest(assets.runner_tree())
    trees = Path(tempfile.gettempdir()) / f"{_TREES}{os.geteuid()}"
    with _locked(trees):
        tree = trees / wanted[:16]
        if not tree.is_dir() or sources.digest(sources.read_tree(tree)) != wanted:
            made = lay_out(Path(tempfile.mkdtemp(dir=trees)))
            shutil.rmtree(tree, ignore_errors=True)
            made.rename(tree)
        os.utime(tree)
        for other in trees.iterdir():
            if _age_s(other) > _TREE_KEPT_S:
                shutil.rmtree(other, ignore_errors=True)
    return tree


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Makes this user's directory if there is none. Raises StartError if it is another user's, or no directory."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise StartError(
            f"{directory} is not this user's directory ({error.strerror}); remove it, or set TMPDIR"
        ) from error
    try:
        if os.fstat(opened).st_uid != os.geteuid():
            raise StartError(f"{directory} belongs to another user; remove it, or set TMPDIR")
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def lay_out(root: Path) -> Path:
    """The tree of the image, as files, so that the runner's digest is the one that the daemon expects."""
    for name, content in assets.runner_tree().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def _localize(spec: WorkerSpec, scratch: Path) -> list[str]:
    """The command with host paths: mounts are undone, and scratch is a directory of its own, never the host's /tmp."""
    command = [*spec.command, "--orphan-s", "20", "--isolation", "none"]
    for at, word in enumerate(command):
        for mount in spec.mounts:
            if word == mount.target or word.startswith(mount.target + "/"):
                command[at] = str(mount.source) + word.removeprefix(mount.target)
            elif word.endswith(f"={mount.target}"):
                command[at] = f"{word.removesuffix(mount.target)}{mount.source}"
        if command[at - 1] == "--scratch":
            command[at] = str(scratch / word.strip("/").replace("/", "-"))
            Path(command[at]).mkdir()
    return command


#: For a test's own daemon to be ready, and to end. Generous: test machines are busy.
_READY_S, _STOP_S = 120.0, 60.0


@contextlib.contextmanager
def daemon(**template: object) -> Iterator[str]:
    """A daemon in a process of its own, with the pool `default` of plain processes; yields its endpoint.

    `template`: keys of the pool, as in config/pool.yaml. NO ISOLATION of any kind.
    """
    home = Path(tempfile.mkdtemp(prefix="pool-"))
    run_dir, config, log = home / "run", home / "pool.yaml", home / "log"
    pool = {"size": {"min": 1, "max": 2}, "preload": {"modules": []}, **template}
    own = {"run_dir": str(run_dir), "state_dir": str(home / "state"), "durability": "none"}
    config.write_text(json.dumps({"daemon": own, "pools": {"default": pool}}), encoding="utf-8")
    with log.open("wb") as output:
        command = [sys.executable, "-m", "pool.testing", "--config", str(config)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _await_ready(process, run_dir / "submit.sock", log)
        yield str(run_dir / "submit.sock")
    finally:
        process.terminate()
        process.wait(_STOP_S)
        shutil.rmtree(home, ignore_errors=True)


def _await_ready(process: subprocess.Popen[bytes], endpoint: Path, log: Path) -> None:
    """Until a job has run. Raises StartError with the daemon's own words."""
    from pool.client.sandbox import SandboxExecutor

    deadline = time.monotonic() + _READY_S
    reason = ""
    while process.poll() is None and time.monotonic() < deadline:
        with SandboxExecutor(endpoint, wait_s=1.0) as sandbox:
            result = sandbox.execute("result = None", entry=None)
        if result.success:
            return
        reason = result.error
    words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise StartError(f"the daemon for the tests did not become ready: {reason}\n{words}")


__all__ = ["ProcessContainer", "ProcessEngine", "daemon", "lay_out"]


def main() -> None:
    """`python -m pool.testing --config FILE`: a daemon whose workers are plain processes. For tests only."""
    import argparse

    from pool import config
    from pool.daemon.daemon import Daemon
    from pool.daemon.systemd import setup_logging
    from pool.inherited import end_at_signals, put_right

    put_right()
    end_at_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    settings = config.load(parser.parse_args().config)
    setup_logging(settings.daemon)
    sys.exit(Daemon(settings, make_engine=ProcessEngine).run())


if __name__ == "__main__":
    main()

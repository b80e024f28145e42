"""Workers as OCI containers without a Docker Engine: `runc` on the unpacked root of an image.

    image_dir/                       unpacked images, see roots.py
    directory/ state/                runc's own
               containers/<id>/      config.json: the whole container, labels included, as annotations
                               out   a pipe: its stdout and stderr
                               pid   host pid of its first process

A container has no supervisor. Its first process becomes a child of the daemon (PR_SET_CHILD_SUBREAPER), which gets its
exit status. After a restart of the daemon the process is a child of init, and its exit status is not known. Its output
goes to a pipe whose both ends it holds open. Nobody has to read it: a write that does not fit fails without blocking.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pool.assets import seccomp_profile
from pool.engines import bundle, runc
from pool.engines.base import EngineFacts, FoundContainer, ImageFacts, WorkerSpec
from pool.engines.diagnosis import GONE, RUNNING, ending, readable
from pool.engines.lockdown import INSTANCE_LABEL, OWNER_LABEL, WORKER_LABEL, container_name
from pool.engines.roots import Roots, missing
from pool.engines.runc import Runc, RuncError
from pool.errors import EngineError, EngineUnavailableError, StartError

#: The cgroup below which all containers of this host are.
CGROUP = "/pool-oci"
#: How long a killed process may take to end. runc thaws a frozen one first.
END_TIMEOUT_S = 1.0
#: How long a start that an earlier daemon began may still take.
BEGUN_TIMEOUT_S = 10.0
#: The bytes of a container's output that are kept.
OUTPUT_BYTES = 65536

_PR_SET_CHILD_SUBREAPER = 36


class OciContainer:
    """One started container."""

    def __init__(self, engine_runc: Runc, place: Path, pid: int | None) -> None:
        """`place`: its directory. `pid`: of its first process, None if that has ended."""
        self.id = place.name
        self._runc = engine_runc
        self._place = place
        self._pid = pid
        self._pidfd: int | None = None
        self._output: _Output | None = None  # None: not attached
        self._code: int | None = None
        self._killing = threading.Lock()

    def __repr__(self) -> str:
        return f"OciContainer({self.id})"

    def attach(self) -> None:
        """Open the pidfd and the output pipe. `kill` closes them."""
        if self._output is None and self._place.exists():
            self._pidfd = _open_pidfd(self._pid, self.id)
            self._output = _Output(self._place / "out")

    def kill(self) -> None:
        with self._killing:
            if not self._place.exists():
                return
            self.attach()
            self._end()
            self._reap()
            # A call of runc costs as much as half a start of the container.
            if not (self._pidfd is not None and self._ended() and self._runc.forget(self.id, _cgroup(self.id))):
                self._delete()
            self._forget()

    def diagnose(self) -> str:
        if not self._place.exists():
            return GONE
        self.attach()
        words = RUNNING
        if self._ended():
            self._reap()
            words = ending(self._code, out_of_memory=runc.was_out_of_memory(_cgroup(self.id)))
        return f"{words}\n{readable(self.output())}".rstrip()

    def pid(self) -> int | None:
        return self._pid if self._place.exists() else None

    def output(self) -> bytes:
        """The last part of its output so far."""
        self.attach()
        return self._output.read() if self._output is not None else b""

    def wait(self, timeout_s: float) -> int | None:
        """Wait until it has ended. Its exit code, 128 and the signal if it was killed; None if that is not known."""
        self.attach()
        if not self._ended(timeout_s):
            raise EngineError(f"the container {self.id} runs on after {timeout_s:g} s")
        self._reap()
        return self._code

    def _delete(self) -> None:
        try:
            self._runc.delete(self.id, log=self._place / "runc.log")
        except RuncError as error:
            raise EngineError(f"the container {self.id} could not be removed: {error.message}") from error
        self._reap()

    def _end(self) -> None:
        """Kill its first process. The kernel then ends all others of the pid namespace."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._ended(END_TIMEOUT_S)

    def _ended(self, timeout_s: float = 0) -> bool:
        return self._pidfd is None or bool(select.select([self._pidfd], [], [], timeout_s)[0])

    def _reap(self) -> None:
        """Take the exit status of a first process that has ended, if it is a child of this one."""
        if self._pidfd is None or self._code is not None:
            return
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if found is not None:
                self._code = found.si_status + (0 if found.si_code == os.CLD_EXITED else 128)

    def _forget(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        if self._output is not None:
            self._output.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


class OciEngine:
    """runc, with unpacked images. Needs root."""

    name = "oci"

    def __init__(self, directory: Path, image_dir: Path, *, seccomp: str | None = None) -> None:
        """`directory`: for this engine's own files; `image_dir`: for images, which several engines may share."""
        self.images = Roots(image_dir)
        self._containers = directory / "containers"
        self.directory = directory
        self._runc = Runc(directory / "state")
        self._seccomp = seccomp_profile() if seccomp is None else seccomp

    def facts(self) -> EngineFacts:
        if not runc.is_root():
            raise EngineUnavailableError(
                "the oci engine starts containers itself and needs root; run the daemon as root, or use engine: docker"
            )
        version = self._runc.version()
        runc.require_cgroups(CGROUP)
        try:
            self._containers.mkdir(parents=True, exist_ok=True)
            self.directory.chmod(0o700)
        except OSError as error:
            raise EngineUnavailableError(f"{self.directory} cannot be used: {error.strerror}") from error
        _adopt_orphans(wanted=True)
        return EngineFacts(name=self.name, version=version, runtime=runc.PROGRAM, cgroups=runc.cgroup_version())

    def image(self, name: str) -> ImageFacts:
        """An image of this host's Docker Engine is copied, once for each content."""
        from pool.engines import transfer  # the Docker SDK

        known = self.images.find(name)
        if known is None or known.copied:
            there = transfer.docker_image(name)
            if there is not None and (known is None or known.id != there.id):
                known = transfer.copy(name, there, self.images)
        if known is None:
            raise missing(name, self.images.directory)
        return known.facts

    def launch(self, spec: WorkerSpec) -> OciContainer:
        if spec.runtime not in (None, runc.PROGRAM):
            raise StartError(
                f"the oci engine has the runtime {runc.PROGRAM} only, and not {spec.runtime!r}; set `runtime: null`, "
                "or take engine: docker, which has those of the Docker Engine",
                runtime=spec.runtime,
            )
        place = self._prepare(spec)
        try:
            with _open_output(place) as output, _held(place / "config.json") as held:
                pid = self._runc.run(place.name, place, output=output, held=held)
                _unblock(output)
                container = OciContainer(self._runc, place, pid)
                container.attach()
                return container
        except EngineError as error:
            self._give_up(place)
            if isinstance(error, RuncError):
                raise StartError(_refusal(spec, error.message), **error.fields) from error
            raise

    def find(self, *, owner: str) -> list[FoundContainer]:
        known = self._runc.list() if self._containers.exists() else {}
        return [
            self._found(place, known, labels) for place, labels in self._places() if labels.get(OWNER_LABEL) == owner
        ]

    def close(self) -> None:
        _adopt_orphans(wanted=False)

    def _prepare(self, spec: WorkerSpec) -> Path:
        """Write all files that runc needs. The directory appears complete, so that `find` sees no part of it."""
        name = container_name(spec)
        content = bundle.config(
            spec,
            self.images.root(spec.image),
            seccomp=self._seccomp,
            cgroup=_cgroup(name),
            swap=runc.counts_swap(),
        )
        fresh, place = self.directory / f"{name}.new", self._containers / name
        try:
            fresh.mkdir(mode=0o700)
            os.mkfifo(fresh / "out", 0o600)
            (fresh / "config.json").write_text(json.dumps(content), encoding="utf-8")
            fresh.rename(place)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise StartError(
                f"the files of worker {spec.worker_id} cannot be written to {place}: {error.strerror}"
            ) from error
        return place

    def _give_up(self, place: Path) -> None:
        """Remove everything of a failed start."""
        with contextlib.suppress(EngineError):
            self._runc.delete(place.name)
            shutil.rmtree(place, ignore_errors=True)

    def _places(self) -> Iterator[tuple[Path, dict[str, str]]]:
        """Every container's directory, and its labels."""
        for place in sorted(self._containers.glob("*")):
            try:
                _await_begun(place / "config.json")
                config: dict[str, Any] = json.loads((place / "config.json").read_bytes())
            except FileNotFoundError:
                continue  # it has just been removed
            except (OSError, ValueError) as error:
                raise EngineError(f"{place} cannot be read: {error}; remove it") from error
            yield place, config["annotations"]

    def _found(self, place: Path, known: dict[str, dict[str, Any]], labels: dict[str, str]) -> FoundContainer:
        state = known.get(place.name, {})
        running = state.get("status") in {"running", "paused"}
        return FoundContainer(
            OciContainer(self._runc, place, state["pid"] if running else None),
            worker_id=labels.get(WORKER_LABEL, ""),
            instance=labels.get(INSTANCE_LABEL, ""),
            running=state.get("status") == "running",
        )


def _cgroup(container_id: str) -> str:
    return f"{CGROUP}/{container_id}"


def _refusal(spec: WorkerSpec, words: str) -> str:
    return f"runc refused to start worker {spec.worker_id}: {words}"


def _adopt_orphans(*, wanted: bool) -> None:
    """Whether processes whose parent ends become children of this process, and not of init."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def _open_pidfd(pid: int | None, container_id: str) -> int | None:
    """None if the process has ended and is not a child of this one, or if another process has its number now."""
    if pid is None:
        return None
    with contextlib.suppress(OSError):
        opened = os.pidfd_open(pid)
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        if int(status[1]) == os.getpid() or container_id in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii"):
            return opened
        os.close(opened)
    return None


# ---- a start that has begun ----


@contextlib.contextmanager
def _held(path: Path) -> Iterator[int]:
    """A lock on a container's configuration that lasts as long as its start: runc has the descriptor too, so that a
    later daemon knows of a start that goes on after its daemon was killed.
    """
    held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield held
    finally:
        os.close(held)


def _await_begun(path: Path) -> None:
    """Return when nobody is starting this container. Raises EngineError if that lasts too long."""
    deadline = time.monotonic() + BEGUN_TIMEOUT_S
    with path.open("rb") as file:
        while not _lock(file.fileno()):
            if time.monotonic() > deadline:
                raise EngineError(f"the container {path.parent.name} is still being started")
            time.sleep(0.02)


def _lock(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# ---- output ----


@contextlib.contextmanager
def _open_output(place: Path) -> Iterator[int]:
    output = os.open(place / "out", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield output
    finally:
        os.close(output)


def _unblock(output: int) -> None:
    """Make the pipe non-blocking again after runc. One page is read for a container that waits because it is full."""
    os.set_blocking(output, False)
    poller = select.poll()
    poller.register(output, select.POLLOUT)
    if not poller.poll(0):
        os.read(output, mmap.PAGESIZE)


class _Output:
    """The reading end of a container's pipe, which keeps what the container wrote before it ended."""

    def __init__(self, path: Path) -> None:
        self._kept = b""
        try:
            self._pipe: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._pipe = None
        self._reading = threading.Lock()

    def read(self) -> bytes:
        """The last part of what was written."""
        with self._reading, contextlib.suppress(BlockingIOError):
            while self._pipe is not None and (more := os.read(self._pipe, OUTPUT_BYTES)):
                self._kept = (self._kept + more)[-OUTPUT_BYTES:]
        return self._kept

    def close(self) -> None:
        with self._reading:
            if self._pipe is not None:
                os.close(self._pipe)
                self._pipe = None

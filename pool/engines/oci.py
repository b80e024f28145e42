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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pool.assets import seccomp_profile
from pool.engines import bundle, runc
from pool.engines.base import EngineFacts, FoundContainer, ImageFacts, WorkerSpec
from pool.engines.lockdown import INSTANCE_LABEL, OWNER_LABEL, WORKER_LABEL, container_name
from pool.engines.oci_container import CGROUP, OciContainer, cgroup
from pool.engines.roots import Roots, missing
from pool.engines.runc import Runc, RuncError
from pool.errors import EngineError, EngineUnavailableError, StartError

#: How long a start that an earlier daemon began may still take.
BEGUN_TIMEOUT_S = 10.0

_PR_SET_CHILD_SUBREAPER = 36


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
            self._give_up(place, error)
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
            spec, self.images.root(spec.image), seccomp=self._seccomp, cgroup=cgroup(name), swap=runc.counts_swap()
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

    def _give_up(self, place: Path, failed: EngineError) -> None:
        """Remove all of a failed start. Raises EngineUnavailableError if it stays: then it is looked for later."""
        try:
            self._runc.delete(place.name)
        except EngineError as error:
            raise EngineUnavailableError(f"{failed.message}; the container stays: {error.message}") from error
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


def _refusal(spec: WorkerSpec, words: str) -> str:
    return f"runc refused to start worker {spec.worker_id}: {words}"


def _adopt_orphans(*, wanted: bool) -> None:
    """Whether processes whose parent ends become children of this process, and not of init."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


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

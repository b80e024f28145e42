"""The port that starts and stops containers, shaped after `subprocess.Popen`, and the container's spec as plain values.

Everything here may block for as long as the engine takes, and is called from the daemon's engine threads only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: Labels of a worker image, written by `pool.images`.
RUNNER_LABEL = "pool.runner.version"
SOURCES_LABEL = "pool.runner.sources"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What answered, for `status` and the log."""

    name: str  #: docker | oci | local
    version: str
    runtime: str  #: the OCI runtime in use
    cgroups: str  #: "v1" | "v2"
    isolates: bool = True  #: whether its workers are locked down, and have to prove it before they are leased


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    id: str
    runner: str  #: version of the project the runner was built from, from the image's label; "" if it has none
    sources: str  #: digest of the runner's sources, from the image's label
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A host path that the container sees, read-only, always."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """All that is asked of an engine for one worker. Lockdown that is the same for every worker is not here but in
    `lockdown.py`, so that nobody can leave it out.
    """

    worker_id: str
    pool: str
    owner: str  #: identity of the daemon's state directory: containers of other owners are never touched
    instance: str  #: identity of the run of the daemon that starts it
    image: str
    runtime: str | None  #: OCI runtime by name; None: the engine's default
    uid: int  #: the user inside, one of its own for each worker, so that per-user kernel limits are not shared
    command: tuple[str, ...]  #: arguments for the runner
    mounts: tuple[Mount, ...]
    memory_bytes: int  #: hard limit, memory and swap together
    cpus: float  #: CPU quota, in cores
    processes: int  #: pids limit of the whole container
    tmp_bytes: int  #: size of each scratch tmpfs
    tmp_inodes: int
    nofile: int
    apparmor: str | None = None  #: a profile that is loaded on the host; None: the engine's default


class Container(Protocol):
    """One started container."""

    id: str

    def kill(self) -> None:
        """Kill it and remove it; called by an engine thread when the worker stops. Idempotent; a container that is
        gone already is no error. Raises EngineError when the engine cannot say that it is gone.
        """

    def diagnose(self) -> str:
        """Exit code and last words, for a person, after a failed start; never raises."""

    def pid(self) -> int | None:
        """Host pid of the runner, for memory figures; None if the engine does not know."""


@dataclass(frozen=True, slots=True)
class FoundContainer:
    """A container that exists, whoever started it."""

    container: Container
    worker_id: str
    instance: str  #: of the spec that it was launched with
    running: bool


class Engine(Protocol):
    """Starts, finds and removes the containers of one daemon."""

    name: str

    def facts(self) -> EngineFacts:
        """Called once at start. Raises EngineUnavailableError with what to do."""

    def image(self, name: str) -> ImageFacts:
        """Called for each template at start. Raises ImageMissingError with the command that builds it."""

    def launch(self, spec: WorkerSpec) -> Container:
        """Create and start. Raises EngineError; then nothing is left behind. After EngineUnavailableError that is not
        known: the Engine may have created it, or may yet be at it.
        """

    def find(self, *, owner: str) -> list[FoundContainer]:
        """The containers of this owner, by their labels. Called at start. Raises EngineError: then it is not known."""

    def close(self) -> None:
        """Give up connections."""

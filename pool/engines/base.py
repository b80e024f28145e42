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
    """Facts about the engine that answered, for `status` and the log."""

    name: str  #: docker | oci | local
    version: str
    runtime: str  #: the OCI runtime in use
    cgroups: str  #: "v1" | "v2"
    isolates: bool = (
        True  #: whether its workers are locked down and have to pass the lockdown probe before their first job
    )


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
    """Everything that the engine needs to start one worker. Lockdown that is the same for every worker is in
    `lockdown.py` instead, so that no caller can leave it out.
    """

    worker_id: str
    pool: str
    owner: str  #: identity of the daemon's state directory: containers of other owners are never touched
    instance: str  #: identity of the run of the daemon that starts it
    image: str
    runtime: str | None  #: OCI runtime by name; None: the engine's default
    uid: int  #: the user inside; each worker has its own, so that workers do not share per-user kernel limits
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
        """Kill and remove it. Called by an engine thread when the worker stops. Idempotent: a container that is already
        gone is no error. Raises EngineError unless the engine confirms that it is gone.
        """

    def diagnose(self) -> str:
        """Exit code and last output, as text, after a failed start. Never raises."""

    def pid(self) -> int | None:
        """Host pid of the runner, for memory figures; None if the engine does not know."""


@dataclass(frozen=True, slots=True)
class FoundContainer:
    """An existing container, also one of an earlier daemon."""

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
        known: the Engine may have created the container, or may still create it.
        """

    def find(self, *, owner: str) -> list[FoundContainer]:
        """The containers of this owner, by their labels. Called at start. Raises EngineError if they are unknown."""

    def close(self) -> None:
        """Close the connections."""

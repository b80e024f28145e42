"""Which engine each pool has: the one that its template names; for `auto`, docker where it answers, else oci.

Each engine that a pool has is made once, asked once what it is, and closed with the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from pool.config import Settings
from pool.config.settings import DaemonSettings
from pool.engines.base import RUNNER_LABEL, Engine, EngineFacts
from pool.errors import ConfigError, EngineError, EngineUnavailableError

log = structlog.get_logger(__name__)

MakeEngine = Callable[[], Engine]


@dataclass(frozen=True, slots=True)
class Chosen:
    """An engine that has answered."""

    engine: Engine
    facts: EngineFacts


class Engines:
    """The engines of one daemon."""

    def __init__(self, make: Mapping[str, MakeEngine]) -> None:
        """`make`: how each is made, by the word that a template has for it."""
        self._make = make
        self._opened: dict[str, Chosen] = {}
        self._silent: EngineUnavailableError | None = None  # why there is no Docker Engine

    def choose(self, word: str, image: str) -> Chosen:
        """The engine for a template's word. Raises EngineUnavailableError with what to do."""
        if word != "auto":
            return self._open(word)
        if self._silent is None:
            try:
                return self._open("docker")
            except EngineUnavailableError as error:
                self._silent = error
        return self._instead(image, self._silent)

    def close(self) -> None:
        for chosen in self._opened.values():
            chosen.engine.close()

    def _instead(self, image: str, silent: EngineUnavailableError) -> Chosen:
        """The oci engine, if it can start workers of this image."""
        try:
            chosen = self._open("oci")
            chosen.engine.image(image)
        except EngineError as error:
            message = f"{silent.message}; and the engine oci cannot be used instead: {error.message}"
            raise EngineUnavailableError(message) from error
        return chosen

    def _open(self, name: str) -> Chosen:
        if name not in self._opened:
            engine = self._make[name]()
            try:
                facts = engine.facts()
            except EngineError:
                engine.close()
                raise
            told = {"engine": facts.name, "version": facts.version, "runtime": facts.runtime}
            log.info("the engine answers", action="engine", **told)
            self._opened[name] = Chosen(engine, facts)
        return self._opened[name]


def makers(settings: DaemonSettings) -> dict[str, MakeEngine]:
    """How the engines of the configuration are made. Each is imported when a pool has it."""
    return {"docker": _docker, "oci": lambda: _oci(settings.state_dir, settings.images)}


def _docker() -> Engine:
    from pool.engines.docker import DockerEngine

    return DockerEngine()


def _oci(state_dir: Path, image_dir: Path) -> Engine:
    from pool.engines.oci import OciEngine

    return OciEngine(state_dir / "oci", image_dir)


def require_supported(settings: Settings) -> None:
    """Refuse or log settings that this daemon does not carry out, instead of doing something else."""
    for name, template in settings.pools.items():
        if template.engine == "local":
            raise ConfigError(
                f"pools.{name}.engine: a daemon has the engines docker and oci; 'local' works without a daemon: "
                "pool.run_once, pool-admin run --local, SandboxExecutor(fallback='local')"
            )
    if not settings.sandbox.enabled:
        raise ConfigError("sandbox.enabled: it is false, and the daemon runs code only in the sandbox; set it to true")
    if settings.sandbox.fallback == "local":
        log.warning(
            "sandbox.fallback: local is carried out by each loop's SandboxExecutor, which takes it from its own "
            "environment (SANDBOX_FALLBACK=local) or argument; the daemon runs jobs in containers only",
            action="fallback",
        )


def image_of(engine: Engine, pool: str, image: str) -> str:
    """The id of a pool's image. Raises EngineError if there is none, or if it is no worker image."""
    facts = engine.image(image)
    if not facts.runner:
        raise EngineError(
            f"pools.{pool}.image: {image!r} is no worker image: it lacks the label {RUNNER_LABEL}; build one with "
            "`pool-admin image build`, or name an image that is built from one",
            image=image,
        )
    return facts.id

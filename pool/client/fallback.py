"""The fallback of SandboxExecutor: the user's choice, and the local engine, which is imported when it is first used."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pool.client import checks, job
from pool.client.options import Code, JobOptions
from pool.client.routing import FALLBACKS, Fallback
from pool.errors import ConfigError
from pool.model import JobResult

if TYPE_CHECKING:
    from pool.client.local import LocalWorkers


def chosen(fallback: Fallback | None) -> Fallback:
    """`fallback`, else the variable SANDBOX_FALLBACK, else "refuse". Raises ConfigError."""
    word = fallback if fallback is not None else os.environ.get("SANDBOX_FALLBACK") or "refuse"
    for each in FALLBACKS:
        if word == each:
            return each
    raise ConfigError(f"fallback (or SANDBOX_FALLBACK): got {word!r:.40}; allowed: local or refuse")


def is_enabled(*, given: bool | None) -> bool:
    """`given`, else the variable SANDBOX_ENABLED, else True. Raises ConfigError or InvalidJobError."""
    if given is not None:
        return checks.flag("enabled", given)
    word = os.environ.get("SANDBOX_ENABLED", "").strip().lower() or "true"
    if word not in {"true", "false"}:
        raise ConfigError(f"SANDBOX_ENABLED: got {word!r:.40}; allowed: true or false")
    return word == "true"


class LocalFallback:
    """Local workers, made at the first program. Thread-safe."""

    def __init__(self) -> None:
        self._making = threading.Lock()
        self._workers: LocalWorkers | None = None

    def run(self, code: Code, asked: Mapping[str, Any]) -> JobResult:
        """Raises JobRefusedError for a mistake, EngineError where this host cannot run it: then it did not run."""
        from pool.client.local import LocalWorkers
        from pool.client.results import to_result

        options: JobOptions = {**asked, "queue_timeout": None, "pool": None}  # type: ignore[typeddict-item]
        submission = job.build(code, options, pool="local")
        with self._making:
            self._workers = self._workers or LocalWorkers(modules=_loaded())
        return to_result(self._workers.run(submission))

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()


def _loaded() -> tuple[str, ...]:
    """What this process has imported of that which a local worker can load ahead: its programs mostly use it too."""
    from pool.client.local import PRELOADED

    return tuple(name for name in PRELOADED if name in sys.modules)

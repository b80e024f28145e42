"""Runs untrusted code in warm, locked-down containers. The names in `__all__` are the public interface.

Each is imported when it is first used, so that `import pool` is quick and imports no library.
"""

from typing import TYPE_CHECKING

from pool._version import __version__

if TYPE_CHECKING:
    from pool import errors
    from pool.client import Client, PoolExecutor
    from pool.client.aio import AsyncClient
    from pool.client.in_job import datasets
    from pool.client.local import run_once
    from pool.client.sandbox import ExecutionResult, SandboxExecutor
    from pool.client.strategy import Market
    from pool.model import Finding, JobError, JobResult, Limits, Outcome, OutputEvent
    from pool.screen import check
else:
    _WHERE = {
        "AsyncClient": "pool.client.aio",
        "Client": "pool.client",
        "PoolExecutor": "pool.client",
        "ExecutionResult": "pool.client.sandbox",
        "Finding": "pool.model",
        "JobError": "pool.model",
        "JobResult": "pool.model",
        "Limits": "pool.model",
        "Market": "pool.client.strategy",
        "Outcome": "pool.model",
        "OutputEvent": "pool.model",
        "SandboxExecutor": "pool.client.sandbox",
        "check": "pool.screen",
        "datasets": "pool.client.in_job",
        "run_once": "pool.client.local",
    }

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name == "errors":
            return import_module("pool.errors")
        if name not in _WHERE:
            raise AttributeError(f"module 'pool' has no attribute {name!r}")
        return getattr(import_module(_WHERE[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "AsyncClient",
    "Client",
    "ExecutionResult",
    "Finding",
    "JobError",
    "JobResult",
    "Limits",
    "Market",
    "Outcome",
    "OutputEvent",
    "PoolExecutor",
    "SandboxExecutor",
    "__version__",
    "check",
    "datasets",
    "errors",
    "run_once",
]

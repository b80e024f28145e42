"""Slow work runs in threads, so that the loop never waits for it; its outcome comes back on the loop's thread.

loop ──launch, stop──▶ EngineExecutor ──▶ LoopExecutor.submit ──▶ a thread ──call_soon──▶ loop: on_done(future)
loop ──hash a large submission──────────▶ LoopExecutor.submit
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import structlog

from pool.engines.base import Container, Engine, WorkerSpec
from pool.errors import EngineError, PoolError

log = structlog.get_logger(__name__)

T = TypeVar("T")
CallSoon = Callable[[Callable[[], None]], None]


class LoopExecutor:
    """A thread pool for functions that the loop must not wait for. `call_soon` has the loop call a function."""

    def __init__(self, threads: int, *, name: str, call_soon: CallSoon) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._call_soon = call_soon

    def submit(self, work: Callable[[], T], on_done: Callable[[Future[T]], None]) -> Future[T]:
        """Run `work` in a thread, then `on_done` on the loop's thread with a future that is done.

        What `work` raises is raised by the future's `result()`. The future that is returned is done when the loop has
        been told, so that whoever waits for it in another thread comes after `on_done`.
        """

        def run() -> T:
            outcome: Future[T] = Future()
            try:
                outcome.set_result(work())
            except Exception as error:  # noqa: BLE001 - it is raised again by result()
                outcome.set_exception(error)
            self._call_soon(lambda: on_done(outcome))
            return outcome.result()

        return self._threads.submit(run)

    def close(self) -> None:
        """Wait for the work that was submitted. Its `on_done` is called only if the loop goes on."""
        self._threads.shutdown(wait=True)


@dataclass(frozen=True, slots=True)
class Launched:
    """A container that was started, its first process on the host, and a pidfd that becomes readable at its end."""

    container: Container
    pid: int | None = None
    pidfd: int | None = None


class EngineExecutor:
    """Launches and stops containers. All methods are called from the loop's thread, and so are the callbacks.

    The calls for one worker come one after the other: its stop waits for its launch.
    """

    def __init__(self, engine: Engine, executor: LoopExecutor) -> None:
        self._engine = engine
        self._executor = executor
        self._launches: dict[str, Future[Launched]] = {}

    def launch(
        self, spec: WorkerSpec, *, on_up: Callable[[Launched], None], on_failed: Callable[[PoolError], None]
    ) -> None:
        """Start a container; one of the two callbacks follows."""

        def done(future: Future[Launched]) -> None:
            error = future.exception()
            if error is None:
                on_up(future.result())
            elif isinstance(error, PoolError):
                on_failed(error)
            else:
                on_failed(EngineError(f"the engine failed: {type(error).__name__}: {error}"))

        self._launches[spec.worker_id] = self._executor.submit(lambda: _identify(self._engine.launch(spec)), done)

    def attach(self, worker_id: str, container: Container, *, on_up: Callable[[Launched], None]) -> None:
        """As `launch`, of a container that is there already. It is stopped like one that was launched."""
        self._launches[worker_id] = self._executor.submit(
            lambda: _identify(container), lambda future: on_up(future.result())
        )

    def discard(self, container: Container) -> None:
        """Kill and remove a container that belongs to no worker of this daemon."""
        self._executor.submit(lambda: _remove(container, container.id), lambda _: None)

    def stop(self, worker_id: str, *, diagnose: bool, on_gone: Callable[[str], None]) -> None:
        """Kill and remove a worker's container, once its launch is over.

        `on_gone` gets the end of the container's output if `diagnose` is set, else "".
        """
        launch = self._launches.pop(worker_id, None)
        self._executor.submit(lambda: _stop(launch, worker_id, diagnose=diagnose), lambda done: on_gone(done.result()))

    def diagnose(self, container: Container, on_done: Callable[[str], None]) -> None:
        """Get the end of a container's output without stopping it."""
        self._executor.submit(container.diagnose, lambda done: on_done(done.result()))


def _stop(launch: Future[Launched] | None, worker_id: str, *, diagnose: bool) -> str:
    if launch is None or launch.exception() is not None:
        return ""
    container = launch.result().container
    words = container.diagnose() if diagnose else ""
    _remove(container, worker_id)
    return words


def _remove(container: Container, name: str) -> None:
    try:
        container.kill()
    except Exception:
        log.exception("a container could not be removed", action="remove", worker=name)


def _identify(container: Container) -> Launched:
    pid = container.pid()
    if pid is None:
        return Launched(container)
    try:
        return Launched(container, pid, os.pidfd_open(pid))
    except OSError:  # ended already, or the daemon does not see the host's pids
        return Launched(container, pid)

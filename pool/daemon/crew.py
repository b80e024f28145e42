"""Engine calls in a few threads: they take up to a second each, and the loop never waits for one.

A worker's calls come one after the other: its stop waits for its launch. What comes of a call goes to the inbox as
a plain function, and the loop runs it.
"""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from pool.daemon.transport import Wakeup
from pool.engines.base import Container, Engine, WorkerSpec
from pool.errors import EngineError, PoolError

log = structlog.get_logger(__name__)

Deliver = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Launched:
    """A container that was started: its first process on the host, and a descriptor that tells of its end."""

    container: Container
    pid: int | None = None
    pidfd: int | None = None


class Crew:
    """Launches and stops containers. All methods are called from the loop's thread."""

    def __init__(self, engine: Engine, *, threads: int, wakeup: Wakeup) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="engine")
        self._wakeup = wakeup
        self._inbox: queue.SimpleQueue[Deliver] = queue.SimpleQueue()
        self._launches: dict[str, Future[Container]] = {}

    def launch(
        self, spec: WorkerSpec, *, on_up: Callable[[Launched], None], on_failed: Callable[[PoolError], None]
    ) -> None:
        """Start a container; the loop then hears of it by one of the two."""

        def work() -> Container:
            try:
                container = self._engine.launch(spec)
            except PoolError as error:
                failure = error
                self.deliver(lambda: on_failed(failure))
                raise
            except Exception as error:
                failure = EngineError(f"the engine failed: {type(error).__name__}: {error}")
                self.deliver(lambda: on_failed(failure))
                raise failure from error
            launched = _identify(container)
            self.deliver(lambda: on_up(launched))
            return container

        self._launches[spec.worker_id] = self._threads.submit(work)

    def stop(self, worker_id: str, *, diagnose: bool, on_gone: Callable[[str], None]) -> None:
        """Kill and remove a worker's container, once its launch is over; `on_gone` gets its last words or ""."""
        launch = self._launches.pop(worker_id, None)

        def work() -> None:
            container = _settled(launch)
            words = ""
            if container is not None:
                words = container.diagnose() if diagnose else ""
                self._kill(container, worker_id)
            self.deliver(lambda: on_gone(words))

        self._threads.submit(work)

    def diagnose(self, container: Container, deliver: Callable[[str], None]) -> None:
        """Ask for a container's last words without stopping it."""

        def work() -> None:
            words = container.diagnose()
            self.deliver(lambda: deliver(words))

        self._threads.submit(work)

    def settle(self) -> None:
        """Run what the threads have delivered."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get_nowait()()

    def deliver(self, call: Deliver) -> None:
        """Have the loop run it; called from any thread."""
        self._inbox.put(call)
        self._wakeup.set()

    def close(self) -> None:
        """Wait for the calls that are under way."""
        self._threads.shutdown(wait=True)

    def _kill(self, container: Container, worker_id: str) -> None:
        try:
            container.kill()
        except Exception:
            log.exception("a container could not be removed", action="remove", worker=worker_id)


def _settled(launch: Future[Container] | None) -> Container | None:
    """The container, or None if it never came to be."""
    if launch is None or launch.exception() is not None:
        return None
    return launch.result()


def _identify(container: Container) -> Launched:
    pid = container.pid()
    if pid is None:
        return Launched(container)
    try:
        return Launched(container, pid, os.pidfd_open(pid))
    except OSError:  # ended already, or the host's pids are not ours to see
        return Launched(container, pid)

"""Slow work runs in threads, so that the loop never waits for it; its outcome comes back on the loop's thread.

loop ──launch, stop──▶ EngineExecutor ──▶ LoopExecutor.submit ──▶ a thread ──call_soon──▶ loop: on_done(future)
loop ──hash a large submission──────────▶ LoopExecutor.submit

A container may outlive its worker: its removal failed, or its launch had no answer. If the Engine does
not answer, nothing is concluded from that. It is asked again, less and less often, until it has listed the containers
that there are and every container without a worker is removed.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from pool.core.policy import jittered
from pool.engines.base import Container, Engine, WorkerSpec
from pool.errors import EngineError, EngineUnavailableError, PoolError

log = structlog.get_logger(__name__)

#: The first and the longest wait before the Engine is asked again for containers that are left.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
#: An Engine that was away may still be creating containers from old requests, so it is asked once more after this.
CHECK_AFTER_S = 10.0

_RNG = random.Random()  # noqa: S311 - spreads the calls of several daemons

T = TypeVar("T")
CallSoon = Callable[[Callable[[], None]], None]


class LoopExecutor:
    """A thread pool for functions that the loop must not wait for. `call_soon` has the loop call a function."""

    def __init__(self, threads: int, *, name: str, call_soon: CallSoon) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._call_soon = call_soon

    def submit(self, work: Callable[[], T], on_done: Callable[[Future[T]], None]) -> Future[T]:
        """Run `work` in a thread, then `on_done` on the loop's thread with a future that is done.

        What `work` raises is raised by the future's `result()`. The returned future is done when the call of
        `on_done` is queued for the loop.
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

    def __init__(self, engine: Engine, executor: LoopExecutor, *, owner: str = "", instance: str = "") -> None:
        """`owner` and `instance`: of the containers that it launches."""
        self.left = Leftovers()
        self._engine = engine
        self._executor = executor
        self._owner = owner
        self._instance = instance
        self._launches: dict[str, Future[Launched]] = {}
        self._workers: set[str] = set()  # those that have a container, or may have one; read by engine threads

    def launch(
        self, spec: WorkerSpec, *, on_up: Callable[[Launched], None], on_failed: Callable[[PoolError], None]
    ) -> None:
        """Start a container; one of the two callbacks follows."""

        def done(future: Future[Launched]) -> None:
            error = future.exception()
            if error is None:
                on_up(future.result())
            elif isinstance(error, PoolError):
                if isinstance(error, EngineUnavailableError):
                    self._workers.discard(spec.worker_id)
                    self.left.add(error)
                on_failed(error)
            else:
                on_failed(EngineError(f"the engine failed: {type(error).__name__}: {error}"))

        self._workers.add(spec.worker_id)
        self._launches[spec.worker_id] = self._executor.submit(lambda: _identify(self._engine.launch(spec)), done)

    def attach(self, worker_id: str, container: Container, *, on_up: Callable[[Launched], None]) -> None:
        """As `launch`, of a container that is there already. It is stopped like one that was launched."""
        self._workers.add(worker_id)
        self._launches[worker_id] = self._executor.submit(
            lambda: _identify(container), lambda future: on_up(future.result())
        )

    def discard(self, container: Container) -> Future[None]:
        """Kill and remove a container that belongs to no worker of this daemon. The future tells when it is gone."""
        return self._executor.submit(container.kill, lambda done: self._removed(container, done.exception()))

    def stop(self, worker_id: str, *, diagnose: bool, on_gone: Callable[[str, bool], None]) -> None:
        """Kill and remove a worker's container, once its launch is over.

        `on_gone` gets the end of the container's output if `diagnose` is set, else "", and whether the Engine did not
        answer. A launch that has not begun is dropped: an Engine that was away has enough to do.
        """
        launch = self._launches.pop(worker_id, None)
        if launch is not None and launch.cancel():
            launch = None

        def done(future: Future[Stopped]) -> None:
            self._workers.discard(worker_id)
            stopped = future.result()
            if stopped.container is not None:
                self._removed(stopped.container, stopped.error)
            on_gone(stopped.output, isinstance(stopped.error, EngineUnavailableError))

        self._executor.submit(lambda: _stop(launch, diagnose=diagnose), done)

    def diagnose(self, container: Container, on_done: Callable[[str], None]) -> None:
        """Get the end of a container's output without stopping it."""
        self._executor.submit(container.diagnose, lambda done: on_done(done.result()))

    # ---- what is left ----

    def ask_again(self) -> None:
        """Ask the Engine which containers are left; to be called at `left.ask_at`."""
        self.left.ask_at = math.inf  # until the answer is there
        containers = dict(self.left.containers)
        self._executor.submit(lambda: self._clean(containers.values()), lambda done: self._cleaned(containers, done))

    def _removed(self, container: Container, error: BaseException | None) -> None:
        if error is not None:
            log.warning("a container could not be removed", action="remove", container=container.id, reason=str(error))
            self.left.add(error, container)

    def _clean(self, containers: Collection[Container]) -> int:
        """Remove these, and every container of ours that no worker has. How many there were. Raises EngineError."""
        found = [
            each.container
            for each in self._engine.find(owner=self._owner)
            if each.instance == self._instance and each.worker_id not in self._workers
        ]
        for container in (*containers, *found):
            container.kill()
        return len({each.id for each in (*containers, *found)})

    def _cleaned(self, asked: Mapping[str, Container], done: Future[int]) -> None:
        error = done.exception()
        if error is not None:
            self.left.failed(error)
            return
        log.info("the engine has told what is left", action="reconcile", removed=done.result())
        later = {each.id: each for each in self.left.containers.values() if each.id not in asked}
        again = later or self.left.launched
        self.left = Leftovers(later)
        if again:
            self.left.ask_at = time.monotonic() + CHECK_AFTER_S


@dataclass(slots=True)
class Leftovers:
    """Containers that may be there though no worker has them, and when the Engine is asked about them."""

    containers: dict[str, Container] = field(default_factory=dict)  #: whose removal failed
    since: float | None = None  #: monotonic seconds; None: nothing is left
    launched: bool = False  #: a launch had no answer
    reason: str = ""  #: what the Engine said last
    ask_at: float = math.inf
    wait_s: float = FIRST_WAIT_S

    def add(self, error: BaseException, container: Container | None = None) -> None:
        """A container could not be removed, or (None) a launch had no answer."""
        if container is not None:
            self.containers[container.id] = container
        else:
            self.launched = True
        if self.since is None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """The Engine did not answer. Ask again later, and the next time later still."""
        self.since = time.monotonic() if self.since is None else self.since
        self.reason = str(error)
        self.ask_at = time.monotonic() + jittered(self.wait_s, _RNG)
        self.wait_s = min(2 * self.wait_s, LONGEST_WAIT_S)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The outcome of a stop: the container, the end of its output, and why it could not be removed."""

    container: Container | None = None
    output: str = ""
    error: Exception | None = None


def _stop(launch: Future[Launched] | None, *, diagnose: bool) -> Stopped:
    if launch is None or launch.exception() is not None:
        return Stopped()
    container = launch.result().container
    output = container.diagnose() if diagnose else ""
    try:
        container.kill()
    except Exception as error:  # noqa: BLE001 - it is tried again
        return Stopped(container, output, error)
    return Stopped(container, output)


def _identify(container: Container) -> Launched:
    pid = container.pid()
    if pid is None:
        return Launched(container)
    try:
        return Launched(container, pid, os.pidfd_open(pid))
    except OSError:  # ended already, or the daemon does not see the host's pids
        return Launched(container, pid)

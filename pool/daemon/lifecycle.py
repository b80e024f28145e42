"""A worker's start and its end: the container, its link, and the handshake in between.

    StartWorker ─▶ link bound ─▶ engine: container ─▶ boot.py: the handshake ──▶ WorkerReady, or
                                      └── it fails, or ends before its first word ──▶ WorkerFailed
    its link breaks ──▶ WorkerVanished             StopWorker ─▶ link closed ─▶ engine: container gone ──▶ WorkerRemoved

Nothing here waits: engine calls run in threads, and their outcome comes back on the loop's thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import structlog

from pool import wire
from pool.core import events as ev
from pool.daemon.berth import Apply, Berth, Pool
from pool.daemon.boot import Boot, BootError, Step
from pool.daemon.conduct import Conduct, shown
from pool.daemon.engine_executor import Launched
from pool.daemon.worker_spec import WorkerSpecFactory
from pool.engines.base import Container
from pool.errors import ImageMissingError, PoolError

log = structlog.get_logger(__name__)


class Lifecycle:
    """Starts and stops the workers of one pool, as it is told, and says how that went."""

    def __init__(self, pool: Pool, specs: WorkerSpecFactory, *, apply: Apply) -> None:
        self.failed: tuple[str, Boot] | None = None  #: the last worker whose lockdown did not hold, while none is up
        self._pool = pool
        self._specs = specs
        self._apply = apply
        self._executor = pool.shared.executor
        self._transport = pool.shared.transport

    # ---- start ----

    def start(self, command: ev.StartWorker) -> None:
        worker_id = command.worker_id
        directory = self._transport.links.open(worker_id)
        spec = self._specs.spec(worker_id, directory, self._pool.datasets.of(command.edition))
        conduct = Conduct(heartbeat_s=self._pool.template.heartbeat_s)
        self._pool.berths[worker_id] = Berth(boot=self._specs.boot(), conduct=conduct, uid=spec.uid)
        log.info(
            "starting a worker",
            action="worker_start",
            pool=self._pool.state.name,
            worker=worker_id,
            edition=command.edition,
            cause=command.cause,
        )
        self._executor.launch(
            spec,
            on_up=lambda launched: self._launched(worker_id, launched),
            on_failed=lambda error: self._launch_failed(worker_id, error),
        )

    def _launched(self, worker_id: str, launched: Launched) -> None:
        berth = self._pool.berths.get(worker_id)
        if berth is not None:
            berth.container, berth.pid = launched.container, launched.pid
        if launched.pidfd is None:
            return
        if berth is None or berth.boot.step is not Step.LAUNCHED:
            os.close(launched.pidfd)
            return
        # Only until its first word: from then on the link tells of its end, after everything it has said.
        berth.pidfd = launched.pidfd
        self._transport.watch(launched.pidfd, lambda: self._died_early(worker_id, launched.container))

    def _launch_failed(self, worker_id: str, error: PoolError) -> None:
        self._boot_failed(worker_id, error.message, permanent=isinstance(error, ImageMissingError))

    def _died_early(self, worker_id: str, container: Container) -> None:
        berth = self._pool.berths.get(worker_id)
        if berth is not None:
            berth.pidfd = None
        self._executor.diagnose(
            container, lambda words: self._boot_failed(worker_id, f"its container ended before it said a word: {words}")
        )

    def hear(self, worker_id: str, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> None:
        """A word of a worker that is not up yet."""
        berth = self._pool.berths[worker_id]
        self._unwatch(berth)
        try:
            if (question := berth.boot.hear(message, payload)) is not None:
                berth.conduct.lease(question.run.job_id, 0)
                self._transport.links.send(worker_id, question.run, question.payload)
        except BootError as error:
            if berth.boot.lockdown == "broken":
                self.failed = worker_id, berth.boot
            self._boot_failed(worker_id, str(error), permanent=error.permanent)
            return
        if berth.boot.step is Step.UP:
            self.failed = None
            self._up(worker_id, berth.boot)

    def _up(self, worker_id: str, boot: Boot) -> None:
        log.info(
            "a worker is idle",
            action="worker_ready",
            pool=self._pool.state.name,
            worker=worker_id,
            boot_ms=boot.boot_ms,
        )
        if boot.missing:
            log.warning(
                "this host refuses parts of a worker's isolation: no worker serves two clients",
                action="worker_degraded",
                worker=worker_id,
                missing=boot.missing,
            )
        self._apply(ev.WorkerReady(worker_id=worker_id, shareable=not boot.missing, cause="lockdown probe"))

    def _boot_failed(self, worker_id: str, reason: str, *, permanent: bool = False) -> None:
        reason = shown(reason)
        worker = self._pool.state.workers.get(worker_id)
        wanted = worker is not None and worker.leaving is None  # a start that is being stopped may fail as it likes
        say = log.error if wanted else log.debug
        say("a worker could not be started", action="worker_failed", worker=worker_id, reason=reason)
        self._apply(ev.WorkerFailed(worker_id=worker_id, reason=reason, permanent=permanent, cause="boot"))

    # ---- end ----

    def lost(self, worker_id: str, reason: str) -> None:
        """The link is of no use any more."""
        berth = self._pool.berths.get(worker_id)
        if berth is None:
            return
        reason = shown(reason)
        if berth.boot.step is Step.UP:
            log.warning("a worker is lost", action="worker_lost", worker=worker_id, reason=reason)
            self._apply(ev.WorkerVanished(worker_id=worker_id, reason=reason, cause="link"))
        else:
            self._boot_failed(worker_id, reason)

    def stop(self, command: ev.StopWorker) -> None:
        worker_id = command.worker_id
        berth = self._pool.berths.get(worker_id)
        self._pool.metrics.recycles[command.reason] += 1
        log.info(
            "stopping a worker", action="worker_stop", worker=worker_id, reason=command.reason, cause=command.cause
        )
        self._transport.links.close(worker_id)
        if berth is not None:
            self._unwatch(berth)
        self._executor.stop(
            worker_id, diagnose=command.reason == "boot_timeout", on_gone=lambda words: self._removed(worker_id, words)
        )

    def _removed(self, worker_id: str, words: str) -> None:
        if words:
            log.error("last words of a worker", action="worker_words", worker=worker_id, words=words)
        self._apply(ev.WorkerRemoved(worker_id=worker_id, cause="engine"))  # a job that died with it is answered now
        self._pool.berths.pop(worker_id, None)

    def _unwatch(self, berth: Berth) -> None:
        if berth.pidfd is not None:
            self._transport.unwatch(berth.pidfd)
            berth.pidfd = None

"""The daemon: one loop that moves bytes between clients, cores and workers, until it is told to stop.

Order at start: directories and locks, engine, leftovers of a dead predecessor, sockets, workers. At the end, on SIGTERM
or SIGINT: no new jobs, running ones finish or are ended at the drain timeout, every container is removed.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType

import structlog

from pool import images, sources, wire
from pool.config import Settings
from pool.core import events as ev
from pool.core.machine import PoolState
from pool.daemon import systemd, worker_spec
from pool.daemon.admin import Admin
from pool.daemon.berth import Shared
from pool.daemon.datasets import DatasetWatcher, PoolDatasets, Report
from pool.daemon.engine_executor import EngineExecutor, LoopExecutor
from pool.daemon.job_store import Job, JobStore
from pool.daemon.keeper import Keeper
from pool.daemon.output import OutputSender
from pool.daemon.run_directories import RunDirectories
from pool.daemon.snapshot import snapshot
from pool.daemon.submit_service import SubmitService
from pool.daemon.worker_spec import WorkerSpecFactory
from pool.daemon.zmtp import ClientListener, Handlers, Transport
from pool.engines.base import Engine, EngineFacts
from pool.errors import ConfigError, PoolError

log = structlog.get_logger(__name__)

#: How long the loop sleeps when nothing is due.
_LONGEST_WAIT_S = 1.0


def docker_engine() -> Engine:
    """The Docker SDK is imported here and not above: nothing else in the daemon needs it."""
    from pool.engines.docker import DockerEngine

    return DockerEngine()


class Daemon:
    """`run()` returns the exit status. All code runs in the thread that calls it, except for calls of the engine."""

    def __init__(self, settings: Settings, *, make_engine: Callable[[], Engine] = docker_engine) -> None:
        self._settings = settings
        self._make_engine = make_engine
        self._born = time.monotonic()
        self._state = "starting"
        self._stop_signal: int | None = None
        self._keepers: dict[str, Keeper] = {}

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Raises PoolError when it cannot start."""
        _require_supported(self._settings)
        directories = RunDirectories(self._settings.daemon.run_dir, self._settings.daemon.state_dir)
        try:
            engine = self._make_engine()
            try:
                return self._run_with(directories, engine)
            finally:
                engine.close()
        finally:
            directories.close()

    def _run_with(self, directories: RunDirectories, engine: Engine) -> int:
        facts = self._survey(directories, engine)
        transport = Transport(
            submit=directories.submit,
            admin=directories.admin,
            links=directories.links,
            submit_mode=self._settings.daemon.submit_bits,
            submit_group=self._settings.daemon.submit_group,
        )
        threads = LoopExecutor(self._settings.daemon.starts + 2, name="engine", call_soon=transport.call_soon)
        watcher = self._make_watcher(directories, transport)
        try:
            self._open(directories, facts, transport, EngineExecutor(engine, threads))
            self._install_signals(transport)
            watcher.start()
            self._serve(transport)
        finally:
            watcher.close()
            threads.close()
            transport.close()
        log.info("the daemon has stopped", action="daemon_stopped")
        return 0

    def _survey(self, directories: RunDirectories, engine: Engine) -> EngineFacts:
        """Is the engine there, are the images, and did somebody leave containers?"""
        facts = engine.facts()
        log.info("the engine answers", action="engine", engine=facts.name, version=facts.version, runtime=facts.runtime)
        for name in {template.image for template in self._settings.pools.values()}:
            engine.image(name)
        swept = engine.sweep(owner=directories.owner, instance=directories.instance)
        if swept:
            log.warning("removed containers of a dead predecessor", action="sweep", count=len(swept))
        return facts

    def _open(
        self, directories: RunDirectories, facts: EngineFacts, transport: Transport, executor: EngineExecutor
    ) -> None:
        settings = self._settings.daemon
        self._jobs = JobStore(ttl_s=settings.result_ttl_s, max_bytes=settings.result_bytes)
        self._outputs = OutputSender(transport.submit)
        self._submits = SubmitService(
            transport.submit, self._keepers, self._jobs, outputs=self._outputs, instance=directories.instance
        )
        self._admin = Admin(
            self._keepers,
            self._jobs,
            lambda: snapshot(
                self._keepers,
                state=self._state,
                born=self._born,
                instance=directories.instance,
                run_dir=str(directories.run_dir),
                engine=facts,
            ),
        )
        shared = Shared(
            transport=transport,
            executor=executor,
            jobs=self._jobs,
            outputs=self._outputs,
            deliver=self._submits.deliver,
        )
        users, digest = worker_spec.uids(directories.owner), sources.digest(images.runner_tree())
        for name, template in self._settings.pools.items():
            plan = WorkerSpecFactory(
                pool=name,
                template=template,
                owner=directories.owner,
                instance=directories.instance,
                sources=digest,
                uids=users,
                isolates=facts.isolates,
            )
            datasets = PoolDatasets(template.preload.datasets)
            state = PoolState(name, worker_spec.policy(template, starts=settings.starts), edition=datasets.newest)
            self._keepers[name] = Keeper(state, template, plan, shared, datasets=datasets)

    def _make_watcher(self, directories: RunDirectories, transport: Transport) -> DatasetWatcher:
        paths = {path for template in self._settings.pools.values() for path in template.preload.datasets.values()}

        def deliver(report: Report) -> None:
            transport.call_soon(lambda: self._stock(watcher, report))

        watcher = DatasetWatcher(sorted(paths), directories.datasets, deliver)
        return watcher

    def _stock(self, watcher: DatasetWatcher, report: Report) -> None:
        for keeper in self._keepers.values():
            keeper.stock(report)
        watcher.keep(report.number, {copy for each in self._keepers.values() for copy in each.datasets.copies()})

    def _install_signals(self, transport: Transport) -> None:
        def note(number: int, _: FrameType | None) -> None:
            self._stop_signal = number
            transport.call_soon(lambda: None)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, note)

    # ---- the loop ----

    def _serve(self, transport: Transport) -> None:
        log.info(
            "the daemon is starting its workers", action="daemon_start", run_dir=str(self._settings.daemon.run_dir)
        )
        for keeper in self._keepers.values():
            keeper.apply(ev.Tick(cause="start"))
        handlers = Handlers(
            on_submit=self._submits.receive,
            on_admin=lambda address, _, frames: self._answer(transport.admin, address, frames),
            on_worker=self._hear,
            on_worker_lost=self._lost,
        )
        while not self._stopped():
            transport.run_once(self._patience_s(), handlers)
            self._after_turn()

    def _after_turn(self) -> None:
        now = time.monotonic()
        for keeper in self._keepers.values():
            keeper.tick(now)
        self._jobs.expire(now, self._forget)
        self._outputs.catch_up()
        if self._stop_signal is not None and self._state != "stopping":
            self._begin_stop(now)
        self._announce()

    def _patience_s(self) -> float:
        if self._outputs.more_to_send:
            return 0.0
        deadlines = [due for keeper in self._keepers.values() if (due := keeper.state.next_deadline()) is not None]
        return min(max(0.0, min(deadlines, default=float("inf")) - time.monotonic()), _LONGEST_WAIT_S)

    def _hear(self, worker_id: str, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> None:
        self._keeper_of(worker_id).hear(worker_id, message, payload)

    def _lost(self, worker_id: str, reason: str) -> None:
        self._keeper_of(worker_id).lost(worker_id, reason)

    def _keeper_of(self, worker_id: str) -> Keeper:
        """Worker ids are made by the core, from the pool's name."""
        return self._keepers[worker_id.rpartition("-")[0]]

    def _forget(self, job: Job) -> None:
        self._keepers[job.pool].apply(ev.JobForgotten(job_id=job.key, cause="its result was dropped"))

    def _answer(self, listener: ClientListener, address: bytes, frames: Sequence[wire.Frame]) -> None:
        request, body = 0, b"null"
        try:
            call, _ = wire.decode(wire.from_admin, frames)
            request = call.request
            body = json.dumps(self._admin.call(call.name, call.arguments)).encode()
            reply = wire.AdminReply(request=request)
        except PoolError as error:
            reply = wire.AdminReply(request=request, code=error.code, message=error.message[:4000], fields=error.fields)
        listener.send(address, reply, [body])

    # ---- begin and end ----

    def _announce(self) -> None:
        """Say once that each pool, and then the daemon, is ready."""
        for name, keeper in self._keepers.items():
            if keeper.ready and not keeper.was_ready:
                keeper.was_ready = True
                log.info("a pool is ready", action="pool_ready", pool=name)
        if self._state == "starting" and all(keeper.was_ready for keeper in self._keepers.values()):
            self._state = "running"
            log.info("the daemon is ready", action="daemon_ready", after_s=round(time.monotonic() - self._born, 2))
            systemd.notify("READY=1")

    def _begin_stop(self, now: float) -> None:
        self._state = "stopping"
        deadline = now + self._settings.daemon.drain_timeout_s
        name = signal.Signals(self._stop_signal or signal.SIGTERM).name
        log.info("the daemon is stopping", action="daemon_stop", signal=name)
        systemd.notify("STOPPING=1")
        for keeper in self._keepers.values():
            keeper.apply(ev.ShutdownRequested(deadline=deadline, cause=name))

    def _stopped(self) -> bool:
        return self._state == "stopping" and all(keeper.state.state == "stopped" for keeper in self._keepers.values())


def _require_supported(settings: Settings) -> None:
    """The configuration may name what later versions have; this one says so instead of doing something else."""
    for name, template in settings.pools.items():
        if template.engine not in {"auto", "docker"}:
            raise ConfigError(f"pools.{name}.engine: this version has the docker engine only, not {template.engine!r}")
    if not settings.sandbox.enabled:
        raise ConfigError("sandbox.enabled: this version does not run code outside the sandbox; set it to true")
    if settings.daemon.durability != "none":
        log.warning(
            "this version keeps jobs in memory: they do not survive a restart of the daemon",
            action="durability",
            asked=settings.daemon.durability,
        )

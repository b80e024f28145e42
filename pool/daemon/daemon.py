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
from pool.daemon import blueprint, service
from pool.daemon.admin import Admin
from pool.daemon.berth import Shared
from pool.daemon.blueprint import Blueprint
from pool.daemon.crew import Crew
from pool.daemon.desk import Desk
from pool.daemon.doors import Door
from pool.daemon.keeper import Keeper
from pool.daemon.ledger import Entry, Ledger
from pool.daemon.links import Link
from pool.daemon.outlet import Outlet
from pool.daemon.premises import Premises
from pool.daemon.shelf import Shelf
from pool.daemon.snapshot import snapshot
from pool.daemon.transport import Source, Transport
from pool.daemon.watch import Report, Watch
from pool.engines.base import Engine, EngineFacts
from pool.errors import ConfigError, PoolError

log = structlog.get_logger(__name__)

#: How long the loop sleeps when nothing is due.
_LONGEST_WAIT_S = 1.0
#: Messages taken from one door in a turn before the workers are heard again.
_PER_TURN = 64


def docker_engine() -> Engine:
    """The Docker SDK is imported here and not above: nothing else in the daemon needs it."""
    from pool.engines.docker import DockerEngine

    return DockerEngine()


class Daemon:
    """`run()` returns the exit status. Everything is used from the thread that calls it, but for the crew's threads."""

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
        premises = Premises(self._settings.daemon.run_dir, self._settings.daemon.state_dir)
        try:
            engine = self._make_engine()
            try:
                return self._run_with(premises, engine)
            finally:
                engine.close()
        finally:
            premises.close()

    def _run_with(self, premises: Premises, engine: Engine) -> int:
        facts = self._survey(premises, engine)
        transport = Transport(
            submit=premises.submit,
            admin=premises.admin,
            links=premises.links,
            submit_mode=self._settings.daemon.submit_bits,
            submit_group=self._settings.daemon.submit_group,
        )
        starts = self._settings.daemon.starts
        crew = Crew(engine, threads=starts + 2, wakeup=transport.wakeup)
        watch = self._make_watch(premises, crew)
        try:
            self._open(premises, facts, transport, crew)
            self._install_signals(transport)
            watch.start()
            self._serve(transport, crew)
        finally:
            watch.close()
            crew.close()
            transport.close()
        log.info("the daemon has stopped", action="daemon_stopped")
        return 0

    def _survey(self, premises: Premises, engine: Engine) -> EngineFacts:
        """Is the engine there, are the images, and did somebody leave containers?"""
        facts = engine.facts()
        log.info("the engine answers", action="engine", engine=facts.name, version=facts.version, runtime=facts.runtime)
        for name in {template.image for template in self._settings.pools.values()}:
            engine.image(name)
        swept = engine.sweep(owner=premises.owner, instance=premises.instance)
        if swept:
            log.warning("removed containers of a dead predecessor", action="sweep", count=len(swept))
        return facts

    def _open(self, premises: Premises, facts: EngineFacts, transport: Transport, crew: Crew) -> None:
        settings = self._settings.daemon
        self._ledger = Ledger(ttl_s=settings.result_ttl_s, max_bytes=settings.result_bytes)
        self._outlet = Outlet(transport.submit)
        self._desk = Desk(
            transport.submit, self._keepers, self._ledger, outlet=self._outlet, instance=premises.instance
        )
        self._admin = Admin(
            self._keepers,
            self._ledger,
            lambda: snapshot(
                self._keepers,
                state=self._state,
                born=self._born,
                instance=premises.instance,
                run_dir=str(premises.run_dir),
                engine=facts,
            ),
        )
        shared = Shared(
            transport=transport, crew=crew, ledger=self._ledger, outlet=self._outlet, deliver=self._desk.deliver
        )
        users, digest = blueprint.uids(premises.owner), sources.digest(images.runner_tree())
        for name, template in self._settings.pools.items():
            plan = Blueprint(
                pool=name,
                template=template,
                owner=premises.owner,
                instance=premises.instance,
                sources=digest,
                uids=users,
                isolates=facts.isolates,
            )
            shelf = Shelf(template.preload.datasets)
            state = PoolState(name, blueprint.policy(template, starts=settings.starts), edition=shelf.newest)
            self._keepers[name] = Keeper(state, template, plan, shared, shelf=shelf)

    def _make_watch(self, premises: Premises, crew: Crew) -> Watch:
        paths = {path for template in self._settings.pools.values() for path in template.preload.datasets.values()}
        watch = Watch(sorted(paths), premises.datasets, lambda report: crew.deliver(lambda: self._stock(watch, report)))
        return watch

    def _stock(self, watch: Watch, report: Report) -> None:
        for keeper in self._keepers.values():
            keeper.stock(report)
        watch.keep(report.number, {copy for each in self._keepers.values() for copy in each.shelf.copies()})

    def _install_signals(self, transport: Transport) -> None:
        def note(number: int, _: FrameType | None) -> None:
            self._stop_signal = number
            transport.wakeup.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, note)

    # ---- the loop ----

    def _serve(self, transport: Transport, crew: Crew) -> None:
        log.info(
            "the daemon is starting its workers", action="daemon_start", run_dir=str(self._settings.daemon.run_dir)
        )
        for keeper in self._keepers.values():
            keeper.apply(ev.Tick(cause="start"))
        while not self._stopped():
            for source in transport.poll(self._patience_s()):
                self._turn(source, transport, crew)
            self._after_turn()

    def _turn(self, source: Source, transport: Transport, crew: Crew) -> None:
        if isinstance(source, Link):
            transport.links.hear(source, on_message=self._hear, on_lost=self._lost)
        elif isinstance(source, int):
            if source == transport.wakeup.fd:
                transport.wakeup.clear()
                crew.settle()
            else:
                transport.fire(source)
        elif source is transport.submit:
            _each(transport.submit, self._desk.serve)
        else:
            _each(transport.admin, lambda address, _, frames: self._answer(transport.admin, address, frames))

    def _after_turn(self) -> None:
        now = time.monotonic()
        for keeper in self._keepers.values():
            keeper.tick(now)
        self._ledger.expire(now, self._forget)
        self._outlet.catch_up()
        if self._stop_signal is not None and self._state != "stopping":
            self._begin_stop(now)
        self._announce()

    def _patience_s(self) -> float:
        if self._outlet.eager:
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

    def _forget(self, entry: Entry) -> None:
        self._keepers[entry.pool].apply(ev.JobForgotten(job_id=entry.key, cause="ledger"))

    def _answer(self, door: Door, address: bytes, frames: Sequence[wire.Frame]) -> None:
        request, body = 0, b"null"
        try:
            call, _ = wire.decode(wire.from_admin, frames)
            request = call.request
            body = json.dumps(self._admin.call(call.name, call.arguments)).encode()
            reply = wire.AdminReply(request=request)
        except PoolError as error:
            reply = wire.AdminReply(request=request, code=error.code, message=error.message[:4000], fields=error.fields)
        door.send(address, reply, [body])

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
            service.notify("READY=1")

    def _begin_stop(self, now: float) -> None:
        self._state = "stopping"
        deadline = now + self._settings.daemon.drain_timeout_s
        name = signal.Signals(self._stop_signal or signal.SIGTERM).name
        log.info("the daemon is stopping", action="daemon_stop", signal=name)
        service.notify("STOPPING=1")
        for keeper in self._keepers.values():
            keeper.apply(ev.ShutdownRequested(deadline=deadline, cause=name))

    def _stopped(self) -> bool:
        return self._state == "stopping" and all(keeper.state.state == "stopped" for keeper in self._keepers.values())


def _each(door: Door, serve: Callable[[bytes, str, Sequence[wire.Frame]], None]) -> None:
    for _ in range(_PER_TURN):
        heard = door.receive()
        if heard is None:
            return
        serve(*heard)


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

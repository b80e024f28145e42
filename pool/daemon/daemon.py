"""The daemon: one loop that serves clients, administrators and workers until SIGTERM, SIGINT or SIGHUP.

Order at start: directories and locks, engine, journal, jobs from the journal, sockets, workers that an earlier daemon
left, new workers. On one of these it takes no new jobs, lets running ones finish or kills them at the drain
timeout, and removes every container. Jobs that wait are left to the next daemon or, without a journal, cancelled.
"""

from __future__ import annotations

import random
import signal
import time
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from types import FrameType

import structlog

from pool import assets, sources
from pool.config import Settings
from pool.core import events as ev
from pool.core.machine import PoolState
from pool.core.records import Numbers
from pool.daemon import systemd, worker_spec
from pool.daemon.admin import AdminService
from pool.daemon.alerts import engine_alerts, journal_alerts
from pool.daemon.controller import PoolController
from pool.daemon.datasets import DatasetWatcher, PoolDatasets, Report
from pool.daemon.engine_choice import Chosen, Engines, MakeEngine, image_of, makers, require_supported
from pool.daemon.engine_executor import EngineExecutor, LoopExecutor
from pool.daemon.frozen_workers import FrozenWorkers
from pool.daemon.job_store import JobStore
from pool.daemon.journal import Journal, NoJournal
from pool.daemon.journal_writer import FileJournal, open_file
from pool.daemon.output import OutputSender
from pool.daemon.recovery import Past, Recovery, read_past
from pool.daemon.run_directories import RunDirectories
from pool.daemon.status import daemon_status, journal_status, whole_status
from pool.daemon.submit_service import SubmitService
from pool.daemon.watch import Watch
from pool.daemon.worker_handle import Services
from pool.daemon.worker_spec import WorkerSpecFactory
from pool.daemon.zmtp import Handlers, Transport
from pool.engines.base import FoundContainer
from pool.inherited import ENDING
from pool.status import Status

log = structlog.get_logger(__name__)

#: The longest wait of the loop when nothing is due.
_LONGEST_WAIT_S = 1.0
#: Leases that one daemon can number before it reaches the numbers of the next one.
EPOCH_BITS = 30
#: For large submissions. They read memory at about 1 GB/s each, without the interpreter's lock.
_DIGEST_THREADS = 2


class Daemon:
    """`run()` returns the exit status. All code runs in the thread that calls it, except for calls of the engines."""

    def __init__(self, settings: Settings, *, make_engine: MakeEngine | None = None) -> None:
        """`make_engine`: makes the engine of every pool, whatever its template says."""
        self._settings = settings
        self._make = makers(settings.daemon) if make_engine is None else dict.fromkeys(("docker", "oci"), make_engine)
        self._started_at = time.monotonic()
        self._state = "starting"
        self._stop_signal: int | None = None
        self._controllers: dict[str, PoolController] = {}
        self._frozen = FrozenWorkers(self._controllers)
        self._chores_at = 0.0  #: monotonic seconds
        self._journal: Journal = NoJournal()
        self._watch: Watch | None = None

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or SIGHUP. Raises PoolError when it cannot start."""
        require_supported(self._settings)
        directories = RunDirectories(self._settings.daemon.run_dir, self._settings.daemon.state_dir)
        with closing(directories), closing(Engines(self._make)) as engines:
            return self._run_with(directories, engines)

    def _run_with(self, directories: RunDirectories, engines: Engines) -> int:
        self._prepare_engines(directories, engines)
        with directories.in_use():
            transport = self._make_transport(directories)
        threads = LoopExecutor(self._settings.daemon.starts + 2, name="engine", call_soon=transport.call_soon)
        digests = LoopExecutor(_DIGEST_THREADS, name="digest", call_soon=transport.call_soon)
        watcher = self._make_watcher(directories, transport)
        try:
            self._executors = {
                name: EngineExecutor(chosen.engine, threads, owner=directories.owner, instance=directories.instance)
                for name, chosen in self._by_name.items()
            }
            with directories.in_use():
                self._open(directories, transport, digests=digests)
            self._install_signals(transport)
            watcher.start()
            self._serve(transport)
            directories.forget_workers()
        finally:
            if self._watch is not None:
                self._watch.close()
            watcher.close()
            threads.close()
            digests.close()
            self._journal.close()
            transport.close()
        log.info("the daemon has stopped", action="daemon_stopped")
        return 0

    def _make_transport(self, directories: RunDirectories) -> Transport:
        settings = self._settings.daemon
        return Transport(
            submit=directories.submit, admin=directories.admin, links=directories.links,
            submit_mode=settings.submit_bits, submit_group=settings.submit_group,
        )  # fmt: skip

    def _prepare_engines(self, directories: RunDirectories, engines: Engines) -> None:
        """Check that the engines answer and have the images, and find the containers that an earlier daemon left."""
        pools = self._settings.pools
        self._chosen = {name: engines.choose(pool.engine, pool.image) for name, pool in pools.items()}
        self._by_name: dict[str, Chosen] = {chosen.facts.name: chosen for chosen in self._chosen.values()}
        self._images = {name: image_of(self._chosen[name].engine, name, pool.image) for name, pool in pools.items()}
        self._found = {name: chosen.engine.find(owner=directories.owner) for name, chosen in self._by_name.items()}

    def _take_over(self, directories: RunDirectories) -> dict[str, Future[None]]:
        """The containers of an earlier daemon: ready workers of our pools may connect again, the others are removed.

        Returns when each of these is gone, by the worker's id.
        """
        numbers, discarded = set(), {}
        for engine, found in ((engine, each) for engine, those in self._found.items() for each in those):
            if (number := self._adopt(engine, found)) is not None:
                numbers.add(number)
            else:
                discarded[found.worker_id] = self._executors[engine].discard(found.container)
        directories.kept.keep_only(numbers)
        if numbers or discarded:
            text = "an earlier daemon left containers"
            log.warning(text, action="take_over", may_be_adopted=len(numbers), removed=len(discarded))
        return discarded

    def _adopt(self, engine: str, found: FoundContainer) -> int | None:
        """The number of a worker that may connect again; None for a container that no pool can use."""
        note = next((n for n in self._notes if (n.instance, n.worker_id) == (found.instance, found.worker_id)), None)
        chosen = None if note is None else self._chosen.get(note.pool)
        if note is None or chosen is None or chosen.facts.name != engine or not found.running:
            return None
        return note.number if self._controllers[note.pool].adoption.find(note, found.container) else None

    def _open(self, directories: RunDirectories, transport: Transport, *, digests: LoopExecutor) -> None:
        settings = self._settings.daemon
        past = self._open_journal(directories, transport)
        self._jobs = JobStore(
            self._journal,
            transport.submit,
            ttl_s=settings.result_ttl_s,
            max_bytes=settings.result_bytes,
            known_since_ns=past.known_since_ns,
        )
        self._outputs = OutputSender(transport.submit)
        services = Services(
            transport=transport,
            executors=self._executors,
            jobs=self._jobs,
            journal=self._journal,
            kept=directories.kept,
            outputs=self._outputs,
        )
        self._add_pools(directories, services, past=past)
        ending = self._take_over(directories)
        Recovery(self._jobs, self._controllers, ending).restore(past.rows)
        self._submits = SubmitService(self._controllers, services, executor=digests, instance=directories.instance)
        self._watch = watch = self._make_watch(past, transport)
        status = partial(self._status, directories, watch)
        self._admin = AdminService(transport.admin, self._controllers, self._jobs, status)

    def _make_watch(self, past: Past, transport: Transport) -> Watch:
        return Watch(
            self._settings,
            self._controllers,
            others=lambda: (
                *journal_alerts(self._journal.trouble, set_aside=past.set_aside, started_at=self._started_at),
                *(alert for each in self._executors.values() for alert in engine_alerts(each.left)),
            ),
            call_soon=transport.call_soon,
        )

    def _status(self, directories: RunDirectories, watch: Watch) -> Status:
        daemon = daemon_status(
            directories,
            [chosen.facts for chosen in self._by_name.values()],
            journal_status(self._settings.daemon.durability, self._journal),
            state=self._state,
            started_at=self._started_at,
            metrics=watch.endpoint,
        )
        return whole_status(daemon, self._controllers, watch.alerts())

    def _open_journal(self, directories: RunDirectories, transport: Transport) -> Past:
        """Open the journal, and read what earlier daemons have written."""
        settings = self._settings.daemon
        file = open_file(settings.durability, directories.journal)
        if file is None:
            directories.note_journal("")
            return Past()
        past = read_past(file, self._settings.pools, last=directories.last_journal())
        directories.note_journal(file.name)
        self._journal = FileJournal(file, max_bytes=settings.journal_bytes, call_soon=transport.call_soon)
        return past

    def _add_pools(self, directories: RunDirectories, services: Services, *, past: Past) -> None:
        self._notes = list(directories.kept.read())
        taken = {each.uid for each in self._notes}
        users = worker_spec.uids(directories.owner, used=sum(past.workers.values()), taken=taken)
        digest, daemon = sources.digest(assets.runner_tree()), self._settings.daemon
        for name, template in self._settings.pools.items():
            facts = self._chosen[name].facts
            specs = WorkerSpecFactory(
                pool=name, template=template, owner=directories.owner, instance=directories.instance, sources=digest,
                engine=facts.name, image_id=self._images[name], uids=users, isolates=facts.isolates,
            )  # fmt: skip
            datasets = PoolDatasets(template.preload.datasets)
            policy = worker_spec.policy(template, starts=daemon.starts, first_starts=daemon.first_starts)
            numbers = Numbers(epoch=past.era << EPOCH_BITS, worker=past.workers.get(name, 0))
            jitter = random.Random()  # noqa: S311 - spreads the tries of several pools
            state = PoolState(name, policy, jitter=jitter, edition=datasets.newest, numbers=numbers)
            self._controllers[name] = PoolController(state, template, specs, services, datasets=datasets)

    def _make_watcher(self, directories: RunDirectories, transport: Transport) -> DatasetWatcher:
        paths = {path for template in self._settings.pools.values() for path in template.preload.datasets.values()}

        def deliver(report: Report) -> None:
            transport.call_soon(lambda: self._update_datasets(watcher, report))

        watcher = DatasetWatcher(sorted(paths), directories.datasets, deliver)
        return watcher

    def _update_datasets(self, watcher: DatasetWatcher, report: Report) -> None:
        for controller in self._controllers.values():
            controller.update_datasets(report)
        needed = {copy for controller in self._controllers.values() for copy in controller.datasets.copies()}
        watcher.keep(report.number, needed)

    def _install_signals(self, transport: Transport) -> None:
        def note(number: int, _: FrameType | None) -> None:
            self._stop_signal = number
            transport.call_soon(lambda: None)

        for number in ENDING:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, note)

    # ---- the loop ----

    def _serve(self, transport: Transport) -> None:
        run_dir = str(self._settings.daemon.run_dir)
        log.info("the daemon is starting its workers", action="daemon_start", run_dir=run_dir)
        for controller in self._controllers.values():
            controller.apply(ev.Tick(cause="start"))
        handlers = Handlers(on_submit=self._submits.receive, on_admin=self._admin.receive)
        wait_s, journal, jobs, outputs, sessions = 0.0, self._journal, self._jobs, self._outputs, self._submits.sessions
        pools = [controller.state for controller in self._controllers.values()]
        while self._state != "stopped":
            transport.run_once(wait_s, handlers)
            if journal.unwritten:
                journal.flush()
            if jobs.to_answer:
                jobs.answer()
            due = min([self._chores_at, jobs.release_at, *[each.wake_at for each in pools]])
            if (
                due <= transport.served_until
                or self._state != "running"
                or self._stop_signal is not None
                or jobs.over
                or sessions.absent
                or outputs.behind
            ):
                due = self._do_due(transport.served_until)
            wait_s = 0.0 if journal.unwritten else max(0.0, min(due - time.monotonic(), _LONGEST_WAIT_S))

    def _do_due(self, served_until: float) -> float:
        """Do what is due. Returns when the next thing is due.

        A deadline of a worker or client is judged in a turn that began after it. So everything that it sent in time has
        been received by then, even if the daemon did not run for a while, because of a slow disk or SIGSTOP.
        """
        due = self._tick(served_until)
        if served_until >= self._chores_at or self._jobs.over:
            self._do_chores(served_until)
        if served_until >= self._jobs.release_at:
            self._jobs.release(served_until)
        due = min(due, self._chores_at, self._jobs.release_at)
        if self._submits.sessions.absent:
            due = min(due, self._submits.sessions.tick(served_until))
        if self._outputs.behind:
            self._outputs.catch_up()
        if self._stop_signal is not None or self._state == "starting":
            self._change_state(time.monotonic())
        return 0.0 if self._outputs.behind and self._outputs.more_to_send else due

    def _do_chores(self, now: float) -> None:
        """The periodic work. Frozen workers are looked for most often; everything else is done at the same moments."""
        for controller in self._controllers.values():
            controller.metrics.count()
        for executor in self._executors.values():
            if now >= executor.left.ask_at:
                executor.ask_again()
        self._journal.look()
        if now >= self._frozen.look_at:
            self._frozen.look()
        if self._watch is not None and now >= self._watch.look_at:
            self._watch.look()
        if now >= self._jobs.tidy_at or self._jobs.over:
            self._jobs.tidy(now)
        self._chores_at = self._frozen.look_at

    def _tick(self, until: float) -> float:
        """Tell the pools that have a deadline of the time. Returns when the next deadline comes."""
        for controller in self._controllers.values():
            if controller.state.wake_at <= until:
                controller.apply(ev.Tick(until=until, cause="clock"))
        return min(controller.state.wake_at for controller in self._controllers.values())

    # ---- begin and end ----

    def _change_state(self, now: float) -> None:
        if self._stop_signal is not None and self._state != "stopping":
            self._begin_stop(now, self._stop_signal)
        elif self._state == "stopping" and self._finished():
            self._state = "stopped"
        elif self._state == "starting" and all(each.was_ready for each in self._controllers.values()):
            self._state = "running"
            log.info("the daemon is ready", action="daemon_ready", after_s=round(now - self._started_at, 2))
            systemd.notify("READY=1")

    def _finished(self) -> bool:
        """Whether every pool has stopped and every client has had its answer."""
        stopped = all(each.state.state == "stopped" for each in self._controllers.values())
        return stopped and not self._submits.digesting and self._journal.idle

    def _begin_stop(self, now: float, number: int) -> None:
        self._state = "stopping"
        deadline = now + self._settings.daemon.drain_timeout_s
        name = signal.Signals(number).name
        log.info("the daemon is stopping", action="daemon_stop", signal=name)
        systemd.notify("STOPPING=1")
        for controller in self._controllers.values():
            controller.apply(ev.ShutdownRequested(deadline=deadline, keep_waiting=self._journal.durable, cause=name))

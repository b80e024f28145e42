"""A simulation around a PoolState: an engine with containers, workers with jobs, clients, and faults of every kind.

It knows only the commands it was given, never the pool's records, and asserts what must hold for whoever carries them
out. Each action takes a number and makes its choices from it, so that hypothesis and a plain random walk can drive it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TypeVar

from pool.core import events as ev
from pool.core.machine import InvalidTransition, PoolState
from pool.core.policy import PoolPolicy
from pool.model import Outcome, WorkerState
from tests.support.core import with_dispatches

T = TypeVar("T")

CLIENTS = ("ann", "bob", "cid")
CODES = ("", "tame", "wild", "wilder")
ANSWERS = (Outcome.OK, Outcome.ERROR, Outcome.TIMEOUT, Outcome.CRASH)
KILLED = {Outcome.TIMEOUT, Outcome.CANCELLED}
#: Reasons for which a worker is stopped that may count against its job's code.
COSTLY = {"vanished", "dirty", "job_deadline"}


@dataclass(slots=True)
class Container:
    """What the engine has."""

    ready: bool = False
    edition: int = 1
    stopping: bool = False
    lease: ev.Dispatch | None = None
    cleaning: bool = False
    started: bool = False
    served: list[str] = field(default_factory=list)
    jobs: int = 0
    code: str = ""  #: of its latest job


class World:
    def __init__(self, policy: PoolPolicy, *, seed: int = 0) -> None:
        self.pool = PoolState("p", policy, seed=seed)
        self.now = 100.0
        self.max_workers = policy.max_workers
        self.containers: dict[str, Container] = {}
        self.removed: list[str] = []
        self.answered: set[str] = set()
        self.accepted: dict[str, str] = {}  # job -> client
        self.codes: dict[str, str] = {}
        self.cost: Counter[str] = Counter()  # workers that each code may have cost
        self.finished: dict[str, ev.Finish] = {}
        self.retries: dict[str, int] = {}  # what the submitter of each job allows
        self.attempts: dict[str, ev.Dispatch] = {}  # the latest one of each job
        self.shutting_down = False
        self.scope = policy.reuse_scope
        self.submitted = 0
        self.edition = 1
        self.seen: dict[str, int] = {}  # client -> the newest data it had a job on
        self.events = 0
        self.play(ev.Tick())

    # ---- events in, commands out ----

    def play(self, event: ev.Event) -> None:
        self.events += 1
        commands = self.pool.handle(event, self.now)
        self.pool.validate()
        if isinstance(event, ev.JobSubmitted) and event.job_id not in self.accepted:
            answer = commands[0]
            assert isinstance(answer, ev.Accept | ev.Refuse)
            assert answer.attachment == event.attachment
            if isinstance(answer, ev.Refuse) and answer.error.code == "poisoned_code":
                self.check_poison(event.job_id)
            if isinstance(answer, ev.Accept):
                self.accepted[event.job_id] = event.client
        if isinstance(event, ev.WorkerReady) and not event.shareable and not self.containers[event.worker_id].stopping:
            self.scope = "client"  # for good
        assert self.pool.policy.reuse_scope == self.scope, "workers that are not isolated are shared, or others are not"
        if self.pool.breaker.open:
            self.seen.clear()  # while nothing can be started, older data are better than none
        for command in with_dispatches(commands):
            self.carry_out(command)
        if isinstance(event, ev.Tick):
            assert self.pool.next_deadline() > self.now, "a Tick left a deadline behind: the loop would spin"

    def carry_out(self, command: ev.Command) -> None:
        match command:
            case ev.StartWorker():
                self.start_worker(command.worker_id, command.edition)
            case ev.StopWorker():
                assert not self.containers[command.worker_id].stopping, "stopped twice"
                self.containers[command.worker_id].stopping = True
                if command.reason in COSTLY:
                    self.cost[self.containers[command.worker_id].code] += 1
            case ev.ProbeWorker():
                assert self.containers[command.worker_id].lease is None, "a busy worker is not probed"
            case ev.Dispatch():
                self.dispatch(command)
            case ev.KillJob():
                lease = self.containers[command.worker_id].lease
                assert lease is not None, "there is nothing to kill"
                assert (lease.job_id, lease.epoch) == (command.job_id, command.epoch)
            case ev.Finish():
                self.finish(command)
            case ev.Accept() | ev.Refuse():
                assert command.job_id not in self.answered, "a submission was answered twice"
                self.answered.add(command.job_id)

    def start_worker(self, worker_id: str, edition: int) -> None:
        assert worker_id not in self.containers
        assert worker_id not in self.removed, "ids are not used twice"
        assert not self.shutting_down, "nothing is started in a shutdown"
        assert edition <= self.edition, "started on data that nobody offered"
        self.containers[worker_id] = Container(edition=edition)
        live = [each for each in self.containers.values() if not each.stopping]
        starting = [each for each in live if not each.ready]
        assert len(live) <= self.max_workers, "more workers than may live"
        assert len(self.containers) <= 2 * self.max_workers or self.max_workers < len(live) + 1
        assert len(starting) <= self.pool.policy.start_concurrency, "too many starts at the same time"

    def dispatch(self, command: ev.Dispatch) -> None:
        container = self.containers[command.worker_id]
        assert container.ready, "a job went to a worker that is not ready"
        assert not container.stopping, "a job went to a worker that is being stopped"
        assert container.lease is None, "two jobs on one worker"
        assert not container.cleaning, "a job went to a worker that is not clean yet"
        self.check_attempt(command)
        container.lease, container.started = command, False
        container.jobs += 1
        container.code = self.codes[command.job_id]
        client = self.accepted[command.job_id]
        assert container.jobs <= self.pool.policy.max_jobs, "a worker served more than its share"
        # Jobs that it served before the pool knew that its workers are not isolated do not count.
        assert self.scope == "any" or container.served[-1:] in ([], [client]), "a worker served two clients"
        container.served.append(client)
        assert container.edition >= self.seen.get(client, 0), "a client got older data after newer ones"
        self.seen[client] = container.edition

    def check_attempt(self, command: ev.Dispatch) -> None:
        """One more than before, within what the submitter allows, and only when the one before is gone with its worker."""
        before = self.attempts.get(command.job_id)
        assert command.attempt <= 1 + self.retries.get(command.job_id, 0), "a job was tried too often"
        if before is not None:
            assert command.epoch > before.epoch, "each attempt has a new epoch"
            assert command.attempt <= before.attempt + 1
            assert before.worker_id not in self.containers, "two attempts side by side"
        self.attempts[command.job_id] = command

    def finish(self, command: ev.Finish) -> None:
        assert command.job_id in self.accepted, "a job ended that was never accepted"
        assert command.job_id not in self.finished, "a job ended twice"
        self.finished[command.job_id] = command
        if command.outcome is Outcome.REJECTED:
            assert command.worker_id is None, "a job that had run was rejected"
            self.check_poison(command.job_id)
        if command.outcome in KILLED and command.worker_id is not None and command.attachment is None:
            assert command.worker_id not in self.containers, "said to be killed while its container is still there"

    def check_poison(self, job_id: str) -> None:
        code, kills = self.codes[job_id], self.pool.policy.poison_kills
        assert code, "code without a digest was refused"
        assert 0 < kills <= self.cost[code], f"{code} has cost {self.cost[code]} workers and was refused"

    # ---- choices ----

    @staticmethod
    def choose(found: Sequence[T], number: int) -> T | None:
        return found[number % len(found)] if found else None

    def with_container(self, number: int, act: Callable[[str, Container], None], **wanted: bool) -> None:
        found = [
            (worker_id, each)
            for worker_id, each in self.containers.items()
            if wanted.get("leased", each.lease is not None) == (each.lease is not None)
            and wanted.get("stopping", each.stopping) == each.stopping
            and wanted.get("ready", each.ready) == each.ready
        ]
        if chosen := self.choose(found, number):
            act(*chosen)

    def open_jobs(self) -> list[str]:
        return [job_id for job_id in self.accepted if job_id not in self.finished]

    # ---- what clients do ----

    def submit(self, number: int) -> None:
        self.submitted += 1
        self.codes[f"j{self.submitted}"] = CODES[number // 108 % 4]
        self.retries[f"j{self.submitted}"] = (0, 0, 1, 3)[number // 432 % 4]
        self.play(
            ev.JobSubmitted(
                job_id=f"j{self.submitted}",
                client=CLIENTS[number % 3],
                wall_s=(1.0, 5.0, 60.0)[number // 3 % 3],
                priority=number // 9 % 3 - 1,
                queue_timeout_s=(None, None, 3.0, 20.0)[number // 27 % 4],
                code=self.codes[f"j{self.submitted}"],
                retries=self.retries[f"j{self.submitted}"],
                follow_up=number % 7 == 0,
                attachment=self.submitted,
            )
        )

    def restore(self, number: int) -> None:
        """A job of an earlier daemon, at its start."""
        if self.shutting_down:
            return
        self.submitted += 1
        job_id, client = f"j{self.submitted}", CLIENTS[number % 3]
        self.codes[job_id], self.accepted[job_id] = "", client
        self.play(ev.JobRestored(job_id=job_id, client=client, wall_s=1.0, submitted_at=self.now - number % 7))

    def submit_again(self, number: int) -> None:
        if job_id := self.choose(self.open_jobs(), number):
            self.play(ev.JobSubmitted(job_id=job_id, client=self.accepted[job_id], wall_s=1.0))

    def cancel(self, number: int) -> None:
        self.play(ev.CancelRequested(job_id=self.choose([*self.open_jobs(), *self.accepted, "nobody"], number)))

    # ---- what workers and the engine do ----

    def ready(self, number: int) -> None:
        def act(worker_id: str, container: Container) -> None:
            container.ready = True
            self.play(ev.WorkerConnected(worker_id=worker_id))
            self.play(ev.WorkerReady(worker_id=worker_id, shareable=number % 20 != 0))

        self.with_container(number, act, ready=False)

    def fail(self, number: int) -> None:
        def act(worker_id: str, container: Container) -> None:
            self.play(ev.WorkerFailed(worker_id=worker_id, reason="no", permanent=number % 5 == 0))
            container.lease = None

        self.with_container(number // 5, act, **({} if number % 7 == 0 else {"ready": False}))

    def vanish(self, number: int) -> None:
        def act(worker_id: str, container: Container) -> None:
            has_job = container.lease is not None and number // 7 % 2 > 0
            if not container.stopping:
                container.lease = None
            self.play(ev.WorkerVanished(worker_id=worker_id, reason="link closed", has_job=has_job))

        self.with_container(number, act)

    def freeze(self, number: int) -> None:
        def act(worker_id: str, container: Container) -> None:
            if container.ready and not container.stopping:
                container.lease = None
            self.play(ev.WorkerFrozen(worker_id=worker_id, reason="paused"))

        self.with_container(number, act)

    def remove(self, number: int) -> None:
        """The engine answers a stop."""
        self.with_container(number, self.gone, stopping=True)

    def remove_unasked(self, number: int) -> None:
        self.with_container(number, self.gone, stopping=False)

    def gone(self, worker_id: str, _container: Container) -> None:
        del self.containers[worker_id]
        self.removed.append(worker_id)
        self.play(ev.WorkerRemoved(worker_id=worker_id))

    def remove_again(self, number: int) -> None:
        if worker_id := self.choose(self.removed, number):
            kinds = (ev.WorkerRemoved, ev.WorkerReady, ev.Heartbeat)
            self.play(kinds[number % 3](worker_id=worker_id))

    def withdraw(self, number: int) -> None:
        """The daemon has not sent the job: it could not write the lease."""

        def act(worker_id: str, container: Container) -> None:
            if container.lease is not None and not container.started:
                job_id, container.lease, container.jobs = container.lease.job_id, None, container.jobs - 1
                self.play(ev.JobWithdrawn(job_id=job_id, outcome=Outcome.LOST, reason="not sent"))
                assert job_id in self.finished

        self.with_container(number, act, leased=True, stopping=False)

    def job_starts(self, number: int) -> None:
        def act(worker_id: str, container: Container) -> None:
            if container.stopping or not container.started:
                container.started = True
                self.play(ev.JobStarted(worker_id=worker_id))

        self.with_container(number, act, leased=True)

    def job_ends(self, number: int) -> None:
        def act(worker_id: str, container: Container) -> None:
            if not container.stopping:
                container.lease, container.cleaning = None, True
            self.play(self.answer(worker_id, number))

        self.with_container(number, act, leased=True)

    def freed(self, number: int) -> None:
        """The worker has cleaned up after its job."""

        def act(worker_id: str, container: Container) -> None:
            if container.stopping or container.cleaning:
                container.cleaning = False
                self.play(ev.WorkerFreed(worker_id=worker_id, residue="a file" if number % 11 == 0 else ""))

        self.with_container(number, act, leased=False)

    @staticmethod
    def answer(worker_id: str, number: int) -> ev.JobEnded:
        return ev.JobEnded(worker_id=worker_id, outcome=ANSWERS[number // 11 % 4], attachment=number)

    def heartbeat(self, number: int) -> None:
        self.with_container(number, lambda worker_id, _: self.play(ev.Heartbeat(worker_id=worker_id)))

    # ---- what must not happen ----

    def illegal(self, number: int) -> None:
        living = [(name, each) for name, each in self.containers.items() if each.ready and not each.stopping]
        wrong: list[ev.Event] = [ev.WorkerReady(worker_id=name) for name, _ in living]
        wrong += [ev.JobStarted(worker_id=name) for name, each in living if each.lease is None or each.started]
        wrong += [self.answer(name, number) for name, each in living if each.lease is None]
        wrong += [ev.WorkerFreed(worker_id=name) for name, each in living if not each.cleaning]
        if event := self.choose(wrong, number):
            self.events += 1
            before = repr((dict(self.pool.workers), dict(self.pool.jobs), self.pool.next_deadline(), self.pool.breaker))
            try:
                self.pool.handle(event, self.now)
            except InvalidTransition:
                after = repr(
                    (dict(self.pool.workers), dict(self.pool.jobs), self.pool.next_deadline(), self.pool.breaker)
                )
                assert before == after, "an illegal event changed something"
                self.pool.validate()
                return
            raise AssertionError(f"{event} was taken")

    # ---- the operator and the clock ----

    def drain(self, _number: int) -> None:
        self.play(ev.DrainRequested())

    def resume(self, _number: int) -> None:
        self.play(ev.ResumeRequested())

    def recycle(self, number: int) -> None:
        self.play(ev.RecycleRequested(worker_id=self.choose([None, "nobody", *self.containers], number)))

    def offer(self, _number: int) -> None:
        self.edition += 1
        self.play(ev.EditionOffered(edition=self.edition))

    def pardon(self, number: int) -> None:
        code = (None, *CODES[1:])[number % 4]
        self.play(ev.PardonRequested(code=code))
        for each in [code] if code else CODES:
            self.cost[each] = 0

    def resize(self, number: int) -> None:
        low, more = number % 3, number // 3 % 4
        # Workers above a lowered maximum may still be finishing their jobs; nothing is started until they are gone.
        self.max_workers = max(1, low + more)
        self.play(ev.ResizeRequested(min_workers=low, max_workers=self.max_workers))

    def shut_down(self, number: int) -> None:
        self.shutting_down = True
        self.play(ev.ShutdownRequested(deadline=self.now + number % 10))

    def wait(self, number: int) -> None:
        self.now += (0.01, 0.3, 1.0, 4.0, 30.0, 300.0)[number % 6]
        self.play(ev.Tick())

    def wait_for_deadline(self, _number: int) -> None:
        due = self.pool.next_deadline()
        if due < inf:
            self.now = max(self.now, due)
            self.play(ev.Tick())

    # ---- the end ----

    def come_to_rest(self) -> None:
        """All workers and the engine answer; then every job has ended, and the pool has its target size."""
        if self.pool.state == "draining" or not self.shutting_down:
            self.play(ev.ResumeRequested())
        for _ in range(3000):
            self.answer_all()
            if self.at_rest():
                break
            if not any(
                each.stopping or not each.ready or each.lease or each.cleaning for each in self.containers.values()
            ):
                self.wait_for_deadline(0)
        assert not self.open_jobs(), "jobs were left behind"
        assert self.at_rest(), f"{self.pool.target} wanted, {[str(each.state) for each in self.pool.workers.values()]}"
        if self.shutting_down:
            assert self.pool.state == "stopped"

    def answer_all(self) -> None:
        for worker_id, container in list(self.containers.items()):
            if container.stopping:
                self.gone(worker_id, container)
            elif not container.ready:
                container.ready = True
                self.play(ev.WorkerReady(worker_id=worker_id))
            elif container.lease:
                container.lease, container.cleaning = None, True
                self.play(self.answer(worker_id, 1))
            elif container.cleaning:
                container.cleaning = False
                self.play(ev.WorkerFreed(worker_id=worker_id))
            else:
                self.play(ev.Heartbeat(worker_id=worker_id))

    def at_rest(self) -> bool:
        idle = [each for each in self.pool.workers.values() if each.state is WorkerState.IDLE]
        return not self.open_jobs() and len(idle) == len(self.pool.workers) == len(self.containers) == self.pool.target


#: Every action with its weight in a random walk.
ACTIONS: dict[Callable[[World, int], None], int] = {
    World.submit: 12,
    World.submit_again: 1,
    World.cancel: 2,
    World.ready: 10,
    World.fail: 2,
    World.vanish: 1,
    World.freeze: 1,
    World.remove: 8,
    World.remove_unasked: 1,
    World.remove_again: 1,
    World.job_starts: 8,
    World.withdraw: 1,
    World.restore: 1,
    World.job_ends: 10,
    World.freed: 12,
    World.heartbeat: 4,
    World.illegal: 1,
    World.drain: 1,
    World.resume: 2,
    World.recycle: 1,
    World.resize: 1,
    World.offer: 1,
    World.pardon: 1,
    World.wait: 2,
    World.wait_for_deadline: 4,
}

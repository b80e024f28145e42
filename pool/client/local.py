"""run_once: one job in the local engine, without Docker and without a daemon. LocalWorkers: many, for a fallback.

    build ─▶ Submit ─▶ Run ─▶ LocalWorker ─▶ Done ─▶ Result ─▶ to_result ─▶ JobResult
                        and a second Run for the grade, in another child

This module does for one job what the daemon does between Submit and Run, and between Done and Result.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, Self, Unpack

import msgspec
import zmq

from pool import wire
from pool.client import job
from pool.client.job import Submission
from pool.client.options import Code, JobOptions
from pool.client.pending import Delivery
from pool.client.results import STREAMS, Listeners, OnText, Text, to_result
from pool.errors import EngineError
from pool.local.worker import LocalWorker, WorkerLimits
from pool.model import JobResult, Outcome, StartKind

#: The limits of a job that names none: the defaults of a pool.
DEFAULTS: Final = wire.JobLimits(
    wall_s=60.0, cpu_s=60.0, memory=512 << 20, tmp=64 << 20, output=1 << 20, result=16 << 20, processes=64
)
#: Loaded before the job if its code names them and this Python has them, so that they do not count for its limits.
PRELOADED = ("numpy", "pandas")
#: As `recycle.max_jobs` of a pool: a worker is replaced after so many jobs.
MAX_JOBS = 100
NAME = "local"
_NS_PER_MS = 1e6
Piece = Callable[[wire.StreamName, int, bytes], object]


def run_once(
    code: Code, /, *, on_stdout: OnText | None = None, on_stderr: OnText | None = None, **options: Unpack[JobOptions]
) -> JobResult:
    r"""Run one job on this host, locked down, without Docker and without a daemon.

        pool.run_once("def main(x):\n    return x * 2", entry="main", args=[21]).value

    As `Client.run`, with the libraries of this Python. The job has a worker of its own, which is started for it and
    then ended; that takes most of the time (docs/local.md). Options about queues, pools and retries mean nothing here.

    Raises NoLockdownError, with the part and the remedy, where the host cannot lock the job down: then nothing was run.
    """
    teller = None
    if on_stdout is not None or on_stderr is not None:
        teller = _Teller(Listeners(on_stdout, on_stderr))
    submission = job.build(code, options, pool=NAME, stream=teller is not None)
    with LocalWorkers() as workers:
        delivery = workers.run(submission, on_piece=teller.put if teller else None)
    if teller is not None:
        teller.rest(delivery.payload)
    return to_result(delivery)


class LocalWorkers:
    """Local workers of one caller. Idle ones are kept; one is started when none has the needed limits. Thread-safe.

    As many jobs run at a time as this process may use cores; other threads wait. `modules`: what each worker loads
    before its first job; what the code of a job names of PRELOADED is loaded anyway.
    """

    def __init__(self, modules: Sequence[str] = ()) -> None:
        self._modules: Final = tuple(modules)
        self._begin()

    def _begin(self) -> None:
        """Begin with no workers; also in a forked child, which cannot use the workers and locks of its parent."""
        self._idle: list[LocalWorker] = []
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))
        self._pid = os.getpid()
        self._end = weakref.finalize(self, _close, self._idle, self._pid)

    def run(self, submission: Submission, *, on_piece: Piece | None = None) -> Delivery:
        """Raises EngineError if no worker can be started: the job did not run. If its worker fails, it is `lost`."""
        received_ns = time.monotonic_ns()
        if self._pid != os.getpid():
            self._begin()
        message = submission.message
        payload: Sequence[wire.Frame] = [_plain(each) for each in submission.frames[2:]]
        grader: Sequence[wire.Frame] = ()
        if message.grade is not None:
            own = len(payload) - 1 - message.grade.arguments
            payload, grader = payload[:own], payload[own:]
        run = _run_of(message)
        with self._turns:
            worker, start = self._take(_room(run, payload, self._modules))
            try:
                own_part = _Part(worker, run, payload, start, received_ns).result(on_piece)
                if message.grade is not None:
                    own_part = _graded(worker, run, message.grade, grader, own_part)
            except BaseException:
                worker.close()
                raise
            self._give_back(worker)
        return own_part

    def close(self) -> None:
        """End the idle workers. Busy ones are ended after their jobs."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, wanted: WorkerLimits) -> tuple[LocalWorker, StartKind]:
        with self._lock:
            for worker in self._idle:
                if _fits(worker.limits, wanted):
                    self._idle.remove(worker)
                    return worker, StartKind.PARKED
        return LocalWorker(wanted), StartKind.COLD

    def _give_back(self, worker: LocalWorker) -> None:
        if self._end.alive and worker.usable and worker.jobs < MAX_JOBS:
            with self._lock:
                self._idle.append(worker)
        else:
            worker.close()


def _close(idle: list[LocalWorker], owner: int) -> None:
    while idle and os.getpid() == owner:
        idle.pop().close()


def _plain(frame: bytes | zmq.Frame) -> wire.Frame:
    return frame.buffer if isinstance(frame, zmq.Frame) else frame


def _run_of(message: wire.Submit) -> wire.Run:
    """The Run message with every limit set: the job's own, or the default."""
    fields = {name: getattr(message, name) for name in wire.JobFields.__struct_fields__}
    names = wire.JobLimits.__struct_fields__
    asked = {name: getattr(message.limits, name) for name in names}
    limits: dict[str, Any] = {
        name: getattr(DEFAULTS, name) if value is None else value for name, value in asked.items()
    }
    return wire.Run(epoch=0, **fields, **limits)


def _room(run: wire.Run, payload: Sequence[wire.Frame], modules: Sequence[str]) -> WorkerLimits:
    code = bytes(payload[0])
    named = [name for name in PRELOADED if name.encode() in code and find_spec(name) is not None]
    loaded = tuple(dict.fromkeys([*modules, *named]))
    return WorkerLimits(
        memory=run.memory, processes=run.processes, tmp=run.tmp, result=2 * run.output + run.result, modules=loaded
    )


def _fits(has: WorkerLimits, wanted: WorkerLimits) -> bool:
    if not set(has.modules) >= set(wanted.modules):
        return False
    return all(getattr(has, each) >= getattr(wanted, each) for each in ("memory", "processes", "tmp", "result"))


class _Part(NamedTuple):
    """One Run: the job itself, or its grade."""

    worker: LocalWorker
    run: wire.Run
    payload: Sequence[wire.Frame]
    start: StartKind
    received_ns: int

    def result(self, on_piece: Piece | None = None) -> Delivery:
        leased_ns = time.monotonic_ns()
        try:
            done, frames = self.worker.run(self.run, self.payload, on_piece=on_piece)
        except EngineError as error:
            self.worker.close()
            result = wire.Result(job_id=self.run.job_id, outcome=Outcome.LOST, reason=error.message[:4096], attempt=1)
            return Delivery(result, (b"", b"", b""))
        if done.outcome is not Outcome.LOST:
            self.worker.free()
        return Delivery(self._result(done, leased_ns, time.monotonic_ns()), frames)

    def _result(self, done: wire.Done, leased_ns: int, now_ns: int) -> wire.Result:
        started_ns = min(max(done.started_ns, leased_ns), now_ns)
        ended_ns = min(max(done.ended_ns, started_ns), now_ns)
        return wire.Result(
            **{name: getattr(done, name) for name in wire.EndFields.__struct_fields__},
            worker=NAME,
            attempt=1,
            start=self.start,
            queue_ms=(leased_ns - self.received_ns) / _NS_PER_MS,
            dispatch_ms=(started_ns - leased_ns) / _NS_PER_MS,
            run_ms=(ended_ns - started_ns) / _NS_PER_MS,
            collect_ms=(now_ns - ended_ns) / _NS_PER_MS,
            total_ms=(now_ns - self.received_ns) / _NS_PER_MS,
        )


def _graded(
    worker: LocalWorker, run: wire.Run, grade: wire.Grader, grader: Sequence[wire.Frame], ended: Delivery
) -> Delivery:
    """The job's result with its grade. The grader runs in another child, which has never held the job's code."""
    result, answer = ended
    value = answer[wire.FIXED_FRAMES + len(result.files) :]
    if reason := _obstacle(result, value, worker):
        return Delivery(msgspec.structs.replace(result, grade=wire.Grade(reason=reason)), answer)
    program = {name: getattr(grade, name) for name in ("entry", "pickled", "python")}
    grading = msgspec.structs.replace(run, files=(), argv=(), explain=False, graded=len(value), **program)
    payload = [grader[0], b"", *grader[1:], *value]
    end, frames = _Part(worker, grading, payload, StartKind.PARKED, time.monotonic_ns()).result()
    kept = (frames[wire.FIXED_FRAMES - 1], *frames[wire.FIXED_FRAMES + len(end.files) :])
    how = wire.Grade(outcome=end.outcome, reason=end.reason, frames=len(kept))
    return Delivery(msgspec.structs.replace(result, grade=how, grade_ms=end.total_ms), (*answer, *kept))


def _obstacle(result: wire.Result, value: Sequence[wire.Frame], worker: LocalWorker) -> str:
    """The reason why the value cannot be graded; empty if it can."""
    if result.outcome is not Outcome.OK:
        return f"it ended {result.outcome}"
    if not value:
        return "it has no value"
    return "" if worker.usable else "its worker could not be cleaned up after it"


class _Teller:
    """Passes a job's output to the caller's listeners as text, each byte once."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._texts = {name: Text(name) for name in STREAMS}

    def put(self, name: wire.StreamName, offset: int, piece: bytes, *, final: bool = False) -> None:
        text = self._texts[name]
        if offset == text.fed and (event := text.event(piece, final=final)) is not None:
            self._listeners.tell(event)

    def rest(self, payload: Sequence[wire.Frame]) -> None:
        """Pass on the rest of the output, which did not come in pieces."""
        for name, whole in zip(STREAMS, payload, strict=False):
            told = self._texts[name].fed
            self.put(name, told, bytes(whole)[told:], final=True)

"""The messages that a worker may send in each phase: handshake, self-tests and jobs as one state machine.

    NEW ──Hello──▶ STARTING ──Ready──▶ TEST_SENT ──[Started──▶ TEST_RUNNING]──Done──▶ TEST_CLEANUP
                                           ▲ next self-test                               │ Freed
                                           └──────────────────────────────────────────────┤
                                                                                          ▼ after the last one
    FOUND ──Resume──▶ IDLE, RUNNING or CLEANUP, as the runner says                         │
    RUNNING ◀──Started── LEASED ◀──lease()── IDLE ◀───────────────────────────────────────┘
       │ Printed*          │ Done: of a      ▲
       │                   ▼ short job       │
       └──Done────────▶ CLEANUP ──Freed──────┘            Heartbeat: whenever no job runs         Broken: in any phase

A message that the table does not allow raises RemoteProtocolError, and the controller destroys the worker: an honest
runner never sends one. So does a message about another job or epoch than the one that was leased, Printed that was not
asked for, and heartbeats that come much more often than configured.
"""

from __future__ import annotations

import hmac
import signal
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from operator import attrgetter
from typing import NamedTuple

import msgspec
from msgspec.inspect import BoolType, EnumType, FloatType, IntType, type_info

from pool import wire
from pool.config import TemplateLimits
from pool.daemon.self_tests import StartCheck
from pool.errors import RemoteProtocolError
from pool.model import Outcome
from pool.printable import visible

#: Characters of a worker's text that are kept or shown.
MAX_TEXT = 4096
#: The count begins with the first heartbeat: many may have queued up while the loop was busy.
_HEARTBEATS_AT_ONCE = 16
_HEARTBEATS_PER_INTERVAL = 3
_STREAMS = frozenset({"stdout", "stderr"})


class Phase(Enum):
    """The value completes the sentence "it sent Done while it ..."."""

    NEW = "had not sent Hello"
    FOUND = "had not sent Resume"
    STARTING = "was starting"
    TEST_SENT = "had been sent a self-test"
    TEST_RUNNING = "ran a self-test"
    TEST_CLEANUP = "cleaned up after a self-test"
    IDLE = "had no job"
    LEASED = "had been sent a job"
    RUNNING = "ran a job"
    CLEANUP = "cleaned up after a job"

    __hash__ = object.__hash__  # that of Enum is a function in Python


class Effect(Enum):
    """The controller's next action after a message."""

    NOTHING = auto()
    CONNECTED = auto()  #: the runner of a new worker has sent Hello
    SEND_TEST = auto()
    READY = auto()  #: the last self-test has passed
    RESUMED = auto()  #: the runner of an earlier daemon has proved itself
    HEARTBEAT = auto()
    STARTED = auto()
    PRINTED = auto()
    DONE = auto()
    FREED = auto()
    BROKEN = auto()

    __hash__ = object.__hash__


class Step(NamedTuple):
    phase: Phase
    effect: Effect


P, E = Phase, Effect
TABLE: Mapping[Phase, Mapping[type[wire.Message], Step]] = {
    P.NEW: {wire.Hello: Step(P.STARTING, E.CONNECTED)},
    P.FOUND: {wire.Resume: Step(P.IDLE, E.RESUMED)},
    P.STARTING: {wire.Ready: Step(P.TEST_SENT, E.SEND_TEST)},
    P.TEST_SENT: {
        wire.Started: Step(P.TEST_RUNNING, E.NOTHING),
        wire.Done: Step(P.TEST_CLEANUP, E.NOTHING),
        wire.Heartbeat: Step(P.TEST_SENT, E.NOTHING),
    },
    P.TEST_RUNNING: {wire.Done: Step(P.TEST_CLEANUP, E.NOTHING)},
    P.TEST_CLEANUP: {wire.Freed: Step(P.TEST_SENT, E.SEND_TEST), wire.Heartbeat: Step(P.TEST_CLEANUP, E.NOTHING)},
    P.IDLE: {wire.Heartbeat: Step(P.IDLE, E.HEARTBEAT)},
    P.LEASED: {
        wire.Started: Step(P.RUNNING, E.STARTED),
        wire.Done: Step(P.CLEANUP, E.DONE),
        wire.Heartbeat: Step(P.LEASED, E.HEARTBEAT),
    },
    P.RUNNING: {wire.Printed: Step(P.RUNNING, E.PRINTED), wire.Done: Step(P.CLEANUP, E.DONE)},
    P.CLEANUP: {wire.Freed: Step(P.IDLE, E.FREED), wire.Heartbeat: Step(P.CLEANUP, E.HEARTBEAT)},
}
_RESUMED = {"idle": P.IDLE, "running": P.RUNNING, "answered": P.RUNNING, "cleaning": P.CLEANUP}
_AFTER_THE_LAST_TEST = Step(P.IDLE, E.READY)
#: Messages about the job that was sent.
_OF_A_JOB = (wire.Started, wire.Printed, wire.Done, wire.Freed)
#: Names of files, and the reason. An honest answer has up to 51,000 bytes of names and 1,000 of reason.
_MOST_NAMED_BYTES = wire.MAX_HEADER_BYTES - 8192
_HAS_JOB = frozenset({P.LEASED, P.RUNNING, P.CLEANUP})
_STARTING = frozenset({P.NEW, P.STARTING, P.TEST_SENT, P.TEST_RUNNING, P.TEST_CLEANUP})


class WorkerProtocol:
    """The conversation with one worker. Pure: the clock is an argument."""

    def __init__(self, start: StartCheck, *, heartbeat_s: float, token: str = "") -> None:
        """`token`: the one that the runner of a found worker must send; "" for a new worker."""
        self.phase = Phase.FOUND if token else Phase.NEW
        self.start = start
        self._token = token
        self._heartbeat_s = heartbeat_s
        self._lease = ("", 0)
        self.streams = False  #: whether the output of the present job was asked for
        self._heartbeats = 0
        self._heartbeats_since = 0.0

    @property
    def starting(self) -> bool:
        """Whether the worker has not passed its self-tests yet."""
        return self.phase in _STARTING

    @property
    def has_job(self) -> bool:
        """Whether it was sent a job and has not said yet that it is free again."""
        return self.phase in _HAS_JOB

    def lease(self, job_id: str, epoch: int) -> None:
        """A Run was sent to the idle worker."""
        assert self.phase is Phase.IDLE, self.phase
        self.phase, self._lease, self.streams = Phase.LEASED, (job_id, epoch), False

    def collected(self) -> wire.Collected:
        """The message by which a runner that resumes drops the answer that it holds. Freed comes next."""
        self.phase, (job_id, epoch) = Phase.CLEANUP, self._lease
        return wire.Collected(job_id=job_id, epoch=epoch)

    def stream(self) -> wire.Stream | None:
        """The message that asks for the job's output; None if it was asked for before, or the job has ended."""
        if self.streams or self.phase not in {Phase.LEASED, Phase.RUNNING}:
            return None
        self.streams = True
        job_id, epoch = self._lease
        return wire.Stream(job_id=job_id, epoch=epoch)

    def receive(
        self, message: wire.FromRunner, payload: Sequence[wire.Frame], now: float
    ) -> tuple[Effect, wire.FromRunner]:
        """Enter the next phase. Returns what has to be done, and the message with printable text.

        Raises RemoteProtocolError for a message that is not allowed now, StartFailed if a check of the start fails.
        """
        step = TABLE[self.phase].get(type(message))
        if step is None:
            if isinstance(message, wire.Broken):
                return Effect.BROKEN, _printable(message)
            raise RemoteProtocolError(f"it sent {type(message).__name__} while it {self.phase.value}")
        if isinstance(message, _OF_A_JOB):
            job_id, epoch = self._lease
            if message.epoch != epoch or (not isinstance(message, wire.Freed) and message.job_id != job_id):
                raise self._not_due(message)
            if isinstance(message, wire.Printed) and not self.streams:
                raise RemoteProtocolError("it sent Printed, which nobody had asked for")
        elif isinstance(message, wire.Heartbeat):
            self._count_heartbeat(now)
        elif isinstance(message, wire.Resume):
            step = self._take_resume(step, message)
        if (texts_of := _TEXTS_OF.get(type(message))) is not None and any(texts_of(message)):
            message = _printable(message)
        if self.phase in _STARTING:
            step = self._check_start(step, message, payload)
        self.phase = step.phase
        return step.effect, message

    def _not_due(self, message: wire.Started | wire.Printed | wire.Done | wire.Freed) -> RemoteProtocolError:
        job_id = self._lease[0] if isinstance(message, wire.Freed) else message.job_id
        return RemoteProtocolError(
            f"it sent {type(message).__name__} of job {job_id}, epoch {message.epoch}; "
            f"it had been sent {self._lease[0]}, epoch {self._lease[1]}"
        )

    def _take_resume(self, step: Step, resume: wire.Resume) -> Step:
        """Every other process in the container may have connected first, so the token decides."""
        if not hmac.compare_digest(resume.token.encode(), self._token.encode()):
            raise RemoteProtocolError("it does not have the worker's token")
        self._lease = (resume.job_id, resume.epoch)
        return step._replace(phase=_RESUMED[resume.state])

    def _count_heartbeat(self, now: float) -> None:
        if not self._heartbeats:
            self._heartbeats_since = now
        self._heartbeats += 1
        passed_s = now - self._heartbeats_since
        if self._heartbeats > _HEARTBEATS_AT_ONCE + _HEARTBEATS_PER_INTERVAL * passed_s / self._heartbeat_s:
            raise RemoteProtocolError(f"it sent {self._heartbeats} heartbeats in {passed_s:.3g} s")

    def _check_start(self, step: Step, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> Step:
        """The step to take; raises StartFailed."""
        match message:
            case wire.Hello():
                self.start.check_hello(message)
            case wire.Ready():
                self.start.take_ready(message)
            case wire.Done():
                self.start.check_done(message, payload)
            case wire.Freed():
                self.start.check_freed(message)
        if step.effect is not Effect.SEND_TEST:
            return step
        if self.start.test is None:
            return _AFTER_THE_LAST_TEST
        self._lease = (self.start.test.run.job_id, 0)
        return step


def largest_answer(limits: TemplateLimits) -> int:
    """Bytes that an honest Done can have: two streams, an error, and the value."""
    return 2 * limits.output + limits.result + 2 * wire.MAX_CODE_BYTES


#: What few answers claim. One that claims none of it has an outcome and frames, and no more to check.
claims_of = attrgetter("files", "exit_code", "signal", "truncated")


def check_answer(done: wire.Done, payload: Sequence[wire.Frame], *, largest: int) -> None:
    """Raise RemoteProtocolError for an answer that an honest worker does not give. That of a chunk may be larger; the
    link bounds what comes from a worker that has none.
    """
    if done.outcome is Outcome.LOST:
        raise RemoteProtocolError("a worker cannot report the outcome lost")
    if done.files and (not all(map(wire.is_relative_name, done.files)) or len(set(done.files)) < len(done.files)):
        raise RemoteProtocolError("the file names of an answer must be different, plain, relative names")
    if done.files and len("".join((done.reason, *done.files)).encode()) > _MOST_NAMED_BYTES:
        raise RemoteProtocolError("the file names of an answer leave no room for the other fields of its result")
    codes_exist = 0 <= (done.exit_code or 0) <= 255 and 0 <= (done.signal or 0) <= signal.NSIG
    if not codes_exist or not _STREAMS.issuperset(done.truncated):
        raise RemoteProtocolError("an answer has an exit code, a signal or a stream that does not exist")
    if len(payload) < wire.FIXED_FRAMES + len(done.files):
        raise RemoteProtocolError("an answer must have stdout, stderr, error and the files that it names")
    size = sum(map(len, payload))
    if size > largest * (wire.CHUNK_ANSWERS if done.calls else 1):
        raise RemoteProtocolError(f"an answer has {size} bytes, the pool's limits allow {largest}")


def printable(text: str) -> str:
    """A worker's text as it may be kept: at most MAX_TEXT characters, all of them visible."""
    return visible(text[:MAX_TEXT])[:MAX_TEXT]


def _texts(kind: type[wire.FromRunner]) -> tuple[str, ...]:
    """The fields of a message that may hold text of any kind. Not a job's id, which is checked when it is decoded, and
    not the names of its files: with other names they would no longer be different, or short enough.
    """
    fields = [each for each in msgspec.structs.fields(kind) if each.name not in {"job_id", "files"}]
    return tuple(each.name for each in fields if not isinstance(type_info(each.type), _WITHOUT_TEXT))


_WITHOUT_TEXT = (IntType, FloatType, BoolType, EnumType)
#: By the kind of message: the names of these fields, and what gets all of their values; of a single text, itself.
_WITH_TEXT: tuple[type[wire.FromRunner], ...] = (
    wire.Done, wire.Freed, wire.Hello, wire.Ready, wire.Resume, wire.Broken,
)  # fmt: skip
_TEXTS = {kind: _texts(kind) for kind in _WITH_TEXT}
_TEXTS_OF = {kind: attrgetter(*names) for kind, names in _TEXTS.items()}


def _printable(message: wire.FromRunner) -> wire.FromRunner:
    changed: dict[str, object] = {}
    for name in _TEXTS[type(message)]:
        value = getattr(message, name)
        if not value:
            continue
        if isinstance(value, str):
            if not value.isprintable():
                changed[name] = printable(value)
        elif isinstance(value, tuple) and not "".join(map(str, value)).isprintable():
            changed[name] = tuple(map(printable, value))
    return msgspec.structs.replace(message, **changed) if changed else message

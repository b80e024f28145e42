"""The handshake of a starting worker: Hello, Ready, and jobs of the daemon's own through the whole path.

    launched ─Hello─▶ greeted ─Ready─▶ trying ─Done─▶ done ─Freed─▶ trying ─Done─▶ done ─Freed─▶ up
                                       no-op job                    lockdown probe               may be leased

Anything else, in any other order, is a failed start with a reason. Failures that another start cannot mend are
permanent: they open the breaker at once. So is a lockdown that does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from pool import values, wire
from pool._version import __version__
from pool.daemon import lockdown_probe
from pool.errors import RemoteProtocolError, ValueCodecError
from pool.model import Outcome

NOOP_ID = "noop"
NOOP_CODE = b"def main(x):\n    return [x, x + 1]\n"
NOOP_ARGUMENT = 41
_NOOP_ANSWER = [41, 42]
#: Characters of what a job of ours that failed has to say.
_MOST_WORDS = 500


class Step(Enum):
    LAUNCHED = "launched"
    GREETED = "greeted"
    TRYING = "trying"
    DONE = "done"
    UP = "up"


class BootError(Exception):
    """The worker cannot be used."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class Question(NamedTuple):
    """A job of the daemon's own, and what its answer has to be."""

    run: wire.Run
    payload: list[wire.Frame]
    judge: Callable[[Sequence[wire.Frame]], None]


@dataclass(slots=True, kw_only=True)
class Boot:
    """Where one worker's start stands. `sources` is the digest that this daemon's own runner would have."""

    sources: str
    limits: dict[str, Any]  #: of the daemon's own jobs: the template's defaults
    allow: tuple[str, ...] = ()  #: what the template lets its jobs do beyond computing
    verified: bool = True  #: whether the worker must prove its lockdown; False for an engine that has none
    step: Step = Step.LAUNCHED
    isolation: str = ""
    missing: tuple[str, ...] = ()
    boot_ms: float = 0.0
    rows: tuple[lockdown_probe.Row, ...] = ()  #: of the lockdown probe
    _questions: list[Question] = field(default_factory=list)

    def hear(self, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> Question | None:
        """Take the next word; the job to be sent now, if there is one. Raises BootError."""
        if isinstance(message, wire.Broken):
            raise BootError(message.reason, permanent=True)
        if isinstance(message, wire.Hello) and self.step is Step.LAUNCHED:
            self._greet(message)
            return None
        if isinstance(message, wire.Ready) and self.step is Step.GREETED:
            return self._begin(message)
        if self.step is Step.TRYING and isinstance(message, wire.Done):
            self._judge(message, payload)
        elif self.step is Step.DONE and isinstance(message, wire.Freed):
            return self._go_on(message)
        elif not isinstance(message, wire.Started | wire.Heartbeat):
            raise BootError(f"it said {type(message).__name__} while its start was {self.step.value}")
        return None

    @property
    def lockdown(self) -> str:
        """In one word, for the status."""
        if not self.verified:
            return "none"
        if not self.rows:
            return "unproven"
        if lockdown_probe.broken(self.rows):
            return "broken"
        return "degraded" if self.missing else "verified"

    def _greet(self, hello: wire.Hello) -> None:
        if hello.sources != self.sources:
            raise BootError(
                f"the image holds runner {hello.runner}, sources {hello.sources[:12]}; this daemon is {__version__} "
                f"and needs {self.sources[:12]}; run: pool-admin image build, then: pool-admin resume",
                permanent=True,
            )
        self.step = Step.GREETED

    def _begin(self, ready: wire.Ready) -> Question:
        self.isolation, self.missing, self.boot_ms = ready.isolation, ready.missing, ready.boot_ms
        self._questions.append(Question(*noop(self.limits), _judge_noop))
        if self.verified:
            asked = lockdown_probe.job(self.limits, missing=self.missing, allow=self.allow)
            self._questions.append(Question(*asked, self._judge_lockdown))
        self.step = Step.TRYING
        return self._questions[0]

    def _judge(self, done: wire.Done, payload: Sequence[wire.Frame]) -> None:
        """The only payloads that the daemon ever decodes: answers to its own questions, and small ones."""
        question = self._questions.pop(0)
        if done.outcome is not Outcome.OK:
            words = f"{done.reason} {_complaint(payload)}".strip()
            raise BootError(f"its {question.run.job_id} job ended {done.outcome}: {words}")
        question.judge(payload)
        self.step = Step.DONE

    def _judge_lockdown(self, payload: Sequence[wire.Frame]) -> None:
        try:
            self.rows = lockdown_probe.table(payload)
        except RemoteProtocolError as error:
            raise BootError(str(error), permanent=True) from None
        if words := lockdown_probe.broken(self.rows):
            raise BootError(f"its lockdown does not hold: {words}; see pool-admin doctor", permanent=True)

    def _go_on(self, freed: wire.Freed) -> Question | None:
        if freed.residue:
            raise BootError(f"a job of the daemon's own left something behind: {freed.residue}")
        self.step = Step.TRYING if self._questions else Step.UP
        return self._questions[0] if self._questions else None


def _complaint(payload: Sequence[wire.Frame]) -> str:
    """What a job of our own that failed has left in words: on stderr, or as its error."""
    if len(payload) < 3:
        return ""
    if said := bytes(payload[1][:_MOST_WORDS]).decode(errors="replace"):
        return said
    try:
        fault = wire.decode_fault(payload[2])
    except RemoteProtocolError:
        return ""
    return f"{fault.type}: {fault.message}"[:_MOST_WORDS]


def _judge_noop(payload: Sequence[wire.Frame]) -> None:
    if sum(memoryview(frame).nbytes for frame in payload) > 4096:
        raise BootError("its no-op job gave too much")
    try:
        value = values.decode(payload[3:])
    except ValueCodecError as error:
        raise BootError(f"its no-op job gave no value: {error}") from None
    if value != _NOOP_ANSWER:
        raise BootError("its no-op job gave a wrong value")


def noop(limits: dict[str, Any]) -> tuple[wire.Run, list[wire.Frame]]:
    """The no-op job, as it goes over the link."""
    arguments = values.encode(((NOOP_ARGUMENT,), {}), max_bytes=4096)
    return wire.Run(job_id=NOOP_ID, epoch=0, entry="main", screened=False, **limits), [NOOP_CODE, b"", *arguments]

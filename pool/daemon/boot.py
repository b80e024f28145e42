"""The handshake of a starting worker: Hello, Ready, and one no-op job through the whole path. Then it may be leased.

    launched ──Hello──▶ greeted ──Ready──▶ trying (no-op job sent) ──Started, Done(ok)──▶ done ──Freed──▶ up

Anything else, in any other order, is a failed start with a reason. Failures that another start cannot mend are
permanent: they open the breaker at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pool import values, wire
from pool._version import __version__
from pool.errors import ValueCodecError
from pool.model import Outcome

NOOP_ID = "noop"
NOOP_CODE = b"def main(x):\n    return [x, x + 1]\n"
NOOP_ARGUMENT = 41
_NOOP_ANSWER = [41, 42]


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


@dataclass(slots=True)
class Boot:
    """Where one worker's start stands. `sources` is the digest that this daemon's own runner would have."""

    sources: str
    step: Step = Step.LAUNCHED
    isolation: str = ""
    boot_ms: float = 0.0

    def hear(self, message: wire.FromRunner, payload: Sequence[wire.Frame]) -> bool:
        """Take the next word; True when the no-op job is to be sent now. Raises BootError."""
        if isinstance(message, wire.Broken):
            raise BootError(message.reason, permanent=True)
        if isinstance(message, wire.Hello) and self.step is Step.LAUNCHED:
            self._greet(message)
            return False
        if isinstance(message, wire.Ready) and self.step is Step.GREETED:
            self.step, self.isolation, self.boot_ms = Step.TRYING, message.isolation, message.boot_ms
            return True
        if self.step is Step.TRYING and isinstance(message, wire.Done):
            self._judge(message, payload)
        elif self.step is Step.DONE and isinstance(message, wire.Freed):
            self._take_in(message)
        elif not isinstance(message, wire.Started | wire.Beat):
            raise BootError(f"it said {type(message).__name__} while its start was {self.step.value}")
        return False

    def _greet(self, hello: wire.Hello) -> None:
        if hello.sources != self.sources:
            raise BootError(
                f"the image holds runner {hello.runner}, sources {hello.sources[:12]}; this daemon is {__version__} "
                f"and needs {self.sources[:12]}; run: pool-admin image build, then: pool-admin resume",
                permanent=True,
            )
        self.step = Step.GREETED

    def _judge(self, done: wire.Done, payload: Sequence[wire.Frame]) -> None:
        """The one payload that the daemon ever decodes: the answer to its own question, and a tiny one."""
        if done.outcome is not Outcome.OK or sum(memoryview(frame).nbytes for frame in payload) > 4096:
            words = bytes(payload[1][:500]).decode(errors="replace") if len(payload) > 1 else ""
            raise BootError(f"its no-op job ended {done.outcome}: {done.reason} {words}".strip())
        try:
            value = values.decode(payload[3:])
        except ValueCodecError as error:
            raise BootError(f"its no-op job gave no value: {error}") from None
        if value != _NOOP_ANSWER:
            raise BootError("its no-op job gave a wrong value")
        self.step = Step.DONE

    def _take_in(self, freed: wire.Freed) -> None:
        if freed.dirty:
            raise BootError(f"its no-op job left something behind: {freed.dirty}")
        self.step = Step.UP


def noop(limits: dict[str, Any]) -> tuple[wire.Run, list[wire.Frame]]:
    """The no-op job, as it goes over the link."""
    arguments = values.encode(((NOOP_ARGUMENT,), {}), max_bytes=4096)
    return wire.Run(job_id=NOOP_ID, epoch=0, entry="main", screened=False, **limits), [NOOP_CODE, b"", *arguments]

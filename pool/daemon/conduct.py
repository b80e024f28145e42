"""What a worker may say now. The first word that it may not say is its last: the keeper destroys it.

    NEW ──Hello──▶ GREETED ──Ready──▶ IDLE ──(lease)──▶ LEASED ──Started──▶ RUNNING ──Done──▶ CLEARING ──Freed──▶ IDLE

Started, Printed and Done are about the lease, by job and epoch, Freed by epoch. Printed comes only after it was asked
for; what it may hold is `tape.py`'s to say. Beat may come whenever no job runs, also when a Run has crossed it on the
way, and not much more often than it is asked for. Broken may come at any time. An honest runner cannot say anything
else, so there is nothing to be lenient about.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from pool import wire
from pool.errors import RemoteProtocolError
from pool.printable import visible

#: Text of a worker that is kept or shown, in characters.
MAX_TEXT = 4096
#: Beats are counted from the first one on, since they may have piled up here while the loop was busy.
_BEATS_AT_ONCE = 16
_BEATS_PER_HEARTBEAT = 3


class Phase(Enum):
    NEW = "has not said Hello"
    GREETED = "gets ready"
    IDLE = "has no job"
    LEASED = "was given a job"
    RUNNING = "runs a job"
    CLEARING = "clears up after a job"


_MAY: dict[type[wire.Message], tuple[frozenset[Phase], Phase | None]] = {
    wire.Hello: (frozenset({Phase.NEW}), Phase.GREETED),
    wire.Ready: (frozenset({Phase.GREETED}), Phase.IDLE),
    wire.Started: (frozenset({Phase.LEASED}), Phase.RUNNING),
    wire.Printed: (frozenset({Phase.RUNNING}), None),
    wire.Done: (frozenset({Phase.RUNNING}), Phase.CLEARING),
    wire.Freed: (frozenset({Phase.CLEARING}), Phase.IDLE),
    wire.Heartbeat: (frozenset({Phase.IDLE, Phase.LEASED, Phase.CLEARING}), None),
    wire.Broken: (frozenset(Phase), None),
}


class Conduct:
    """One worker's side of the conversation. Pure: the clock is an argument."""

    def __init__(self, *, heartbeat_s: float) -> None:
        self.phase = Phase.NEW
        self._heartbeat_s = heartbeat_s
        self._lease = ("", 0)
        self._streams = False
        self._beats = 0
        self._beats_since = 0.0

    def lease(self, job_id: str, epoch: int) -> None:
        """A Run goes out."""
        assert self.phase is Phase.IDLE, self.phase
        self.phase, self._lease, self._streams = Phase.LEASED, (job_id, epoch), False

    def stream(self) -> wire.Stream | None:
        """What to say to have the job's output while it runs; None when it was said before, or is too late."""
        if self._streams or self.phase not in {Phase.LEASED, Phase.RUNNING}:
            return None
        self._streams = True
        job_id, epoch = self._lease
        return wire.Stream(job_id=job_id, epoch=epoch)

    def hear(self, message: wire.FromRunner, now: float) -> wire.FromRunner:
        """The message, with text that can be shown. Raises RemoteProtocolError when it may not be said now."""
        phases, after = _MAY[type(message)]
        if self.phase not in phases:
            raise RemoteProtocolError(f"it said {type(message).__name__} while it {self.phase.value}")
        if isinstance(message, wire.Heartbeat):
            self._count_beat(now)
        elif isinstance(message, wire.Started | wire.Printed | wire.Done):
            self._check_lease(message, (message.job_id, message.epoch))
            if isinstance(message, wire.Printed) and not self._streams:
                raise RemoteProtocolError("it said Printed, which nobody had asked for")
        elif isinstance(message, wire.Freed):
            self._check_lease(message, (self._lease[0], message.epoch))
        self.phase = after or self.phase
        return _shown(message)

    def _check_lease(self, message: wire.Message, about: tuple[str, int]) -> None:
        if about != self._lease:
            raise RemoteProtocolError(
                f"it said {type(message).__name__} of job {about[0]}, epoch {about[1]}; "
                f"it was given {self._lease[0]}, epoch {self._lease[1]}"
            )

    def _count_beat(self, now: float) -> None:
        if not self._beats:
            self._beats_since = now
        self._beats += 1
        most = _BEATS_AT_ONCE + _BEATS_PER_HEARTBEAT * (now - self._beats_since) / self._heartbeat_s
        if self._beats > most:
            raise RemoteProtocolError(f"it beat {self._beats} times in {now - self._beats_since:.3g} s")


def shown(text: str) -> str:
    """Text of a worker as it may be kept: every character can be seen, and there are not too many."""
    return visible(text[:MAX_TEXT])[:MAX_TEXT]


def _shown(message: wire.FromRunner) -> wire.FromRunner:
    changed: dict[str, object] = {}
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, str):
            if not value.isprintable():
                changed[name] = shown(value)
        elif isinstance(value, tuple) and not all(map(str.isprintable, value)):
            changed[name] = tuple(map(shown, value))
    return msgspec.structs.replace(message, **changed) if changed else message

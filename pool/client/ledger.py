"""What was asked of the daemon and is not answered yet: decides, sends nothing, takes the time as an argument.

    request      ends with                     after a break or a restart of the daemon it is asked again as
    ─────────    ──────────────────────────    ─────────────────────────────────────────────────────────────
    Submit       Accepted | Refused            Watch: a job is never submitted twice by itself
      watch      Result   | Refused            Watch
    Watch        Result   | Refused            Watch
    Cancel       Accepted | Refused            Cancel

Rules:
1. Nothing is sent while nothing is open. The first request on a new socket goes with a Ping, so that the daemon's
   instance is known; after that a Ping goes out while something has been open for a second, once a second.
2. Nothing heard for `timeout_s` and a Ping unanswered: everything open fails with DaemonUnreachableError. A Submit or
   Cancel that a living daemon leaves unanswered for that long fails alone.
3. A broken connection, or another instance in Pong: answers may have been lost, so what is open is asked again. A
   job that had been accepted and is not known any more ended `lost`.
4. Bytes that are no message: which request they should have answered is not known, so everything open fails. A valid
   message that answers nothing is counted and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from pool import wire
from pool.client.endpoint import unreachable
from pool.errors import DaemonUnreachableError, PoolError, RemoteProtocolError, UnknownJobError, from_code
from pool.model import Outcome

#: A second is short enough to notice a restart and long enough to cost nothing.
PING_INTERVAL_S = 1.0
#: An answer that breaks the connection each time it is sent, as one over the frame cap does, is not asked for for ever.
MAX_AGAIN = 10


class Delivery(NamedTuple):
    """A Result as it came; `pool.client.results` makes a JobResult of it."""

    header: wire.Result
    payload: Sequence[wire.Frame]


OnOutput = Callable[[wire.Output, Sequence[wire.Frame]], None]


@dataclass(eq=False, slots=True)
class Request:
    """One question. `answer` is resolved on the I/O thread: with the Delivery, or with None for Accepted."""

    message: wire.Submit | wire.Watch | wire.Cancel
    frames: list[wire.Frame]
    answer: Future[Delivery | None] = field(default_factory=Future)
    on_output: OnOutput | None = None  #: called on the I/O thread, with pieces of what the job prints
    accepted: bool = False  #: the daemon is known to have it
    again: int = 0  #: how often it was asked again
    asked_at: float = 0.0

    @property
    def wants_result(self) -> bool:
        return isinstance(self.message, wire.Watch) or (isinstance(self.message, wire.Submit) and self.message.watch)

    @property
    def job_id(self) -> str:
        return self.message.job_id

    def send_off(self) -> list[wire.Frame]:
        """The frames, which are not kept: they may be large and are never sent twice."""
        frames, self.frames = self.frames, []
        return frames

    def ask_again(self) -> list[wire.Frame]:
        self.again += 1
        if isinstance(self.message, wire.Cancel):
            return wire.encode(self.message)
        stream = self.on_output is not None
        return wire.encode(wire.Watch(request=self.message.request, job_id=self.job_id, stream=stream))


Outgoing = list[list[wire.Frame]]


class Ledger:
    """Used by one thread only. Every method that takes `now` may return messages, which are to be sent in order."""

    def __init__(self, endpoint: str, timeout_s: float, *, number: Callable[[], int]) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._interval_s = min(PING_INTERVAL_S, timeout_s / 4)
        self._number = number
        self._open: dict[int, Request] = {}
        self._by_job: dict[str, list[Request]] = {}  # an index into _open
        self._instance: str | None = None
        self._pings: dict[int, float] = {}  # number to when it was sent; unanswered ones only
        self._pinged_at = 0.0
        self._heard_at = 0.0
        self.garbage = 0  #: messages that could not be read
        self.strays = 0  #: messages that answered nothing

    # ---- from the callers ----

    def open(self, request: Request, now: float) -> Outgoing:
        """Take the request; its answer will be resolved, whatever happens."""
        if not self._open:
            self._heard_at = now
        request.asked_at = now
        outgoing = [] if self._instance or self._pings else [self._ping(now)]
        self._open[request.message.request] = request
        self._by_job.setdefault(request.job_id, []).append(request)
        return [*outgoing, request.send_off()]

    def forget(self, request: Request) -> None:
        """The asker does not wait any more."""
        if self._open.get(request.message.request) is request:
            self._close(request)

    # ---- from the daemon ----

    def receive(self, frames: Sequence[wire.Frame], now: float) -> Outgoing:
        try:
            message, payload = wire.decode(wire.to_client, frames)
        except RemoteProtocolError as error:
            self.garbage += 1
            self.fail(error)
            return []
        self._heard_at = now
        match message:
            case wire.Output():
                self._on_output(message, payload)
            case wire.Result():
                self._on_result(message, payload)
            case wire.Accepted():
                self._on_accepted(message)
            case wire.Refused():
                self._on_refused(message)
            case wire.Pong():
                return self._on_pong(message)
        return []

    def _on_output(self, message: wire.Output, payload: Sequence[wire.Frame]) -> None:
        readers = [each.on_output for each in self._by_job.get(message.job_id, ()) if each.on_output is not None]
        self.strays += not readers
        for read in readers:
            read(message, payload)

    def _on_result(self, message: wire.Result, payload: Sequence[wire.Frame]) -> None:
        waiting = [
            each
            for each in self._by_job.get(message.job_id, ())
            if each.wants_result or (each.again and isinstance(each.message, wire.Submit))
        ]
        self.strays += not waiting
        for request in waiting:
            self._close(request)
            request.answer.set_result(Delivery(message, payload) if request.wants_result else None)

    def _on_accepted(self, message: wire.Accepted) -> None:
        request = self._open.get(message.request)
        if request is None or isinstance(request.message, wire.Watch):
            self.strays += 1
        elif request.job_id != message.job_id:
            self._fail(request, RemoteProtocolError(f"job {request.job_id} was accepted as {message.job_id}"))
        elif request.wants_result:
            request.accepted = True
        else:
            self._close(request)
            request.answer.set_result(None)

    def _on_refused(self, message: wire.Refused) -> None:
        request = self._open.get(message.request)
        if request is None:
            self.strays += 1
            return
        error = _rebuild(message)
        if not (request.again and isinstance(error, UnknownJobError)) or isinstance(request.message, wire.Cancel):
            self._fail(request, error)
        elif request.accepted:
            self._close(request)
            request.answer.set_result(_lost(request.job_id))
        elif isinstance(request.message, wire.Watch):
            self._fail(request, error)
        else:
            self._fail(request, _not_taken(request.job_id, "was started anew before it accepted"))

    def _on_pong(self, message: wire.Pong) -> Outgoing:
        sent_at = self._pings.get(message.request)
        if sent_at is None:
            self.strays += 1
            return []
        self._pings = {number: at for number, at in self._pings.items() if number > message.request}
        before, self._instance = self._instance, message.instance
        if before not in {None, message.instance}:
            return self._ask_again()
        for request in self._open.values():
            # Answers come in order: a Watch that was sent before this Ping was not refused, so the job is known.
            if isinstance(request.message, wire.Watch) and request.asked_at < sent_at:
                request.accepted = True
        return []

    def disconnected(self, now: float) -> Outgoing:
        """The connection broke; on the next one the daemon takes us for somebody new."""
        self.reset()
        for request in [each for each in self._open.values() if each.again >= MAX_AGAIN]:
            self._fail(
                request, RemoteProtocolError(f"the connection broke {MAX_AGAIN} times over job {request.job_id}")
            )
        return [self._ping(now), *self._ask_again()] if self._open else []

    def _ask_again(self) -> Outgoing:
        return [request.ask_again() for request in self._open.values()]

    # ---- from the clock ----

    def tick(self, now: float) -> Outgoing:
        """Raises DaemonUnreachableError, for `fail`, when the daemon has been silent for too long."""
        if self._open and now >= self._silent_until():
            raise unreachable(self._endpoint, self._timeout_s)
        if not self._open or now < self._ping_due():
            return []
        for request in list(self._untaken(now - self._timeout_s)):
            self._fail(request, _not_taken(request.job_id, f"took longer than {self._timeout_s:g} s to accept"))
        return [self._ping(now)] if self._open else []

    def wait_s(self, now: float) -> float | None:
        """Seconds until `tick` has something to do; None: only a request or a message can change anything."""
        return max(0.0, min(self._silent_until(), self._ping_due()) - now) if self._open else None

    def _silent_until(self) -> float:
        # A process that was stopped for an hour has heard nothing, and may not judge before it has asked.
        asked = self._pinged_at + self._interval_s / 2 if self._pings else float("inf")
        return max(self._heard_at + self._timeout_s, asked)

    def _ping_due(self) -> float:
        oldest = next(iter(self._open.values()))
        return max(oldest.asked_at, self._pinged_at) + self._interval_s

    def _untaken(self, asked_before: float) -> Iterator[Request]:
        for request in self._open.values():
            if (
                not request.accepted
                and request.asked_at <= asked_before
                and not isinstance(request.message, wire.Watch)
            ):
                yield request

    def _ping(self, now: float) -> list[wire.Frame]:
        number = self._number()
        self._pings[number] = self._pinged_at = now
        return wire.encode(wire.Ping(request=number))

    # ---- ends ----

    def fail(self, error: PoolError) -> None:
        """Everything that is open ends with this error, each with a copy of its own."""
        for request in list(self._open.values()):
            self._fail(request, type(error)(error.message, **error.fields))

    def reset(self) -> None:
        """A new socket: who answers there is not known."""
        self._instance = None
        self._pings.clear()

    def _fail(self, request: Request, error: PoolError) -> None:
        self._close(request)
        request.answer.set_exception(error)

    def _close(self, request: Request) -> None:
        del self._open[request.message.request]
        siblings = self._by_job[request.job_id]
        siblings.remove(request)
        if not siblings:
            del self._by_job[request.job_id]


def _rebuild(refused: wire.Refused) -> PoolError:
    try:
        return from_code(refused.code, refused.message, refused.fields)
    except TypeError:  # a field that is named like a parameter
        return from_code(refused.code, refused.message, {})


def _lost(job_id: str) -> Delivery:
    reason = "the daemon was restarted while the job was under way and does not know it; whether it ran is unknown"
    return Delivery(wire.Result(job_id=job_id, outcome=Outcome.LOST, reason=reason), (b"", b"", b""))


def _not_taken(job_id: str, what: str) -> DaemonUnreachableError:
    return DaemonUnreachableError(
        f"the daemon {what} job {job_id}, so whether it ran is unknown; "
        "ask with result(job_id), or submit it again under the same job id",
        job_id=job_id,
    )

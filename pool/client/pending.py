"""Requests that the daemon has not answered yet. It decides what to send, sends nothing and is given the time.

    request      ends with                     sent again, after a lost connection or a restart of the daemon, as
    ─────────    ──────────────────────────    ──────────────────────────────────────────────────────────────────
    Submit       Accepted | Refused            Watch; then as it was, if it is certain that it was not accepted
      watch      Result   | Refused            the same
    Watch        Result   | Refused            Watch
    Cancel       Accepted | Refused            Cancel

Rules:
1. While nothing is open, nothing is sent. The first request on a new socket is sent with a Ping, to learn the daemon's
   instance and to name this client. From then on a Ping is sent each second while a request has been open for a second.
   Only a client with jobs that end with it, and that it does not wait for, connects again without a request.
2. When nothing was received for `timeout_s` and a Ping is unanswered, every open request fails with
   DaemonUnreachableError. A Submit or Cancel that stays unanswered for that long while the daemon answers fails alone.
   A daemon that was not there before is not waited for: the first attempt to connect that fails ends every request.
3. After a lost connection, or when Pong names another instance, answers may have been lost: open requests are sent
   again. A job that had been accepted and that the daemon does not know any more ends `lost`. One that had not been
   accepted, and would be in the daemon's journal if it had been, has not run and is submitted again.
4. After bytes that are no message every open request fails: which one they should have answered is unknown. A valid
   message that answers no open request is dropped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from math import inf
from typing import Any, NamedTuple, TypeVar

import zmq

from pool import wire
from pool.client import waiting
from pool.client.endpoint import absent, not_accepted, unanswered, unreachable, was_not_accepted
from pool.errors import DaemonUnreachableError, PoolError, RemoteProtocolError, UnknownJobError, from_code
from pool.model import Outcome

T = TypeVar("T")

#: Short enough to notice a restart soon, long enough to cost nothing.
PING_INTERVAL_S = 1.0
#: The least wait for an acceptance: the daemon holds it for up to 50 ms, to send it with the result.
LEAST_ACCEPT_S = 0.1
#: An answer that breaks the connection whenever it is sent, as one over the frame cap does, is asked for so often.
MAX_REPEATS = 10


class Delivery(NamedTuple):
    """A Result as it was received; `pool.client.results` makes a JobResult of it."""

    header: wire.Result
    payload: Sequence[wire.Frame]


OnOutput = Callable[[wire.Output, Sequence[wire.Frame]], None]
Frames = Sequence[wire.Frame | zmq.Frame]


class JobFuture(Future[T]):
    """A future that names its job."""

    job_id: str
    accepted = False  #: the daemon is known to have the job

    def until_done(self, wait_s: float | None = None) -> bool:
        """Return when it is done, or after `wait_s` seconds (None: whenever that is): whether it is done. Signals can
        end the wait.
        """
        deadline = inf if wait_s is None else time.monotonic() + wait_s
        if self.done():
            return True
        if threading.get_ident() in waiting.receiving:
            raise waiting.never_answered()
        with self._condition:  # `concurrent.futures.wait` makes an Event and a waiter for each call
            while not self.done():
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                self._condition.wait(min(left_s, waiting.SLICE_S))
        return True


class Request(JobFuture[Delivery | None]):
    """One message to the daemon, resolved on the I/O thread: with the Delivery, or with None for Accepted.

    `on_output` is called on the I/O thread with each piece of output of the job.
    """

    def __init__(
        self, message: wire.Submit | wire.Watch | wire.Cancel, frames: Frames = (), on_output: OnOutput | None = None
    ) -> None:
        super().__init__()
        self.job_id = message.job_id
        self.message = message
        self.frames = frames or wire.encode(message)  #: of a Submit: kept until it is accepted
        self.on_output = on_output
        self.repeats = 0  #: how often it was sent again
        self.sent_at = 0.0
        self.wants_result = isinstance(message, wire.Watch) or (isinstance(message, wire.Submit) and message.watch)

    def repetition(self) -> Frames:
        self.repeats += 1
        if isinstance(self.message, wire.Cancel):
            return wire.encode(self.message)
        stream = self.on_output is not None
        return wire.encode(wire.Watch(request=self.message.request, job_id=self.job_id, stream=stream))


Outgoing = list[Frames]
#: Requests of callers, and whether each is to be forgotten.
Inbox = deque[tuple[Request, bool]]


class PendingRequests:
    """Used by one thread. Methods that return messages: they are to be sent in order."""

    def __init__(
        self, endpoint: str, timeout_s: float, inbox: Inbox, *, number: Callable[[], int], session: str
    ) -> None:
        self._endpoint = endpoint
        self.inbox = inbox
        self._session = session
        self._must_stay = False  # jobs that nobody waits for are cancelled when this client is gone
        self._timeout_s = timeout_s
        self._interval_s = min(PING_INTERVAL_S, timeout_s / 4)
        self._number = number
        self.open: dict[int, Request] = {}  #: the oldest first
        self._by_job: dict[str, list[Request]] = {}  # an index into it
        #: These calls resolve the requests that have ended. To be made last in a turn, and while no lock is held:
        #: callbacks take locks, and callers who are woken need the interpreter at once.
        self.ended: deque[Callable[[], None]] = deque()
        self.instance: str | None = None  #: of the daemon that answers; None while that is not known
        self._pings: dict[int, float] = {}  # number to the time it was sent; unanswered ones only
        self._pinged_at = 0.0
        self._received_at = 0.0
        self._was_there = False  # a connection was made since the last time that the daemon was unreachable
        self.wake_at = inf  #: when `tick` has to be called; while nothing is open, a while after the last answer

    # ---- from callers ----

    def take(self, now: float) -> Outgoing:
        """Take the requests in the inbox: they will be resolved, whatever happens. Returns the messages of those that
        their callers have not sent themselves.
        """
        outgoing: Outgoing = []
        while self.inbox:
            request, forget = self.inbox.popleft()
            if forget:
                if self.open.get(request.message.request) is request:  # it was not answered meanwhile
                    self._close(request)
                continue
            if not self.open:
                self._received_at = request.sent_at or now
            self.open[request.message.request] = request
            self._by_job.setdefault(request.job_id, []).append(request)
            if isinstance(request.message, wire.Submit) and request.message.session and not request.message.watch:
                self._must_stay = True
            if not request.sent_at:
                request.sent_at = now
                outgoing += [request.frames] if self.instance or self._pings else [self._ping(now), request.frames]
            self.wake_at = min(self.wake_at, request.sent_at + self._interval_s)
        return outgoing

    # ---- from the daemon ----

    def receive(self, frames: Sequence[wire.Frame], now: float) -> Outgoing:
        try:
            message, payload = wire.decode(wire.to_client, frames)
        except RemoteProtocolError as error:
            self.fail(error)
            return []
        self._received_at, self._was_there = now, True
        match message:
            case wire.Output():
                self._on_output(message, payload)
            case wire.Result():
                self._on_result(Delivery(message, payload))
            case wire.Accepted():
                self._on_accepted(message)
            case wire.Refused():
                return self._on_refused(message, now)
            case wire.Pong():
                return self._on_pong(message)
        return []

    def _on_output(self, message: wire.Output, payload: Sequence[wire.Frame]) -> None:
        readers = [each.on_output for each in self._by_job.get(message.job_id, ()) if each.on_output is not None]
        for read in readers:
            read(message, payload)

    def _on_result(self, delivery: Delivery) -> None:
        job_id = delivery.header.job_id
        requests = self._by_job.pop(job_id, [])
        ended = [
            each for each in requests if each.wants_result or (each.repeats and isinstance(each.message, wire.Submit))
        ]
        if len(ended) < len(requests):  # the others ask for another answer
            self._by_job[job_id] = [each for each in requests if each not in ended]
        for request in ended:
            del self.open[request.message.request]
            self.ended.append(partial(request.set_result, delivery if request.wants_result else None))

    def _on_accepted(self, message: wire.Accepted) -> None:
        request = self.open.get(message.request)
        if request is None or isinstance(request.message, wire.Watch):
            return
        if request.job_id != message.job_id:
            self._end(request, RemoteProtocolError(f"job {request.job_id} was accepted as {message.job_id}"))
        elif request.wants_result:
            request.accepted = True
            request.frames = ()  # they may be large
        else:
            self._end(request, None)

    def _on_refused(self, message: wire.Refused, now: float) -> Outgoing:
        request = self.open.get(message.request)
        if request is None:
            return []
        error = from_code(message.code, message.message, message.fields)
        forgotten = request.repeats and isinstance(error, UnknownJobError)
        if forgotten and request.accepted and not isinstance(request.message, wire.Cancel):
            self._end(request, _lost(request.job_id))
        elif forgotten and isinstance(request.message, wire.Submit):
            if was_not_accepted(error, sent_at=request.sent_at):
                request.sent_at, self.open[message.request] = now, self.open.pop(message.request)  # the youngest now
                return [request.frames]
            self._end(request, not_accepted(request.job_id, "was restarted before it accepted"))
        else:
            self._end(request, error)
        return []

    def _on_pong(self, message: wire.Pong) -> Outgoing:
        sent_at = self._pings.get(message.request)
        if sent_at is None:
            return []
        self._pings = {number: at for number, at in self._pings.items() if number > message.request}
        before, self.instance = self.instance, message.instance
        if before not in {None, message.instance}:
            return self._repetitions()
        for request in self.open.values():
            # Answers come in order: a Watch that was sent before this Ping was not refused, so the job is known.
            if isinstance(request.message, wire.Watch) and request.sent_at < sent_at:
                request.accepted = True
        return []

    def disconnected(self, now: float) -> Outgoing:
        """The connection was lost; on the next one the daemon does not recognize this client."""
        self.new_socket()
        self._was_there = True
        for request in [each for each in self.open.values() if each.repeats >= MAX_REPEATS]:
            error = RemoteProtocolError(
                f"the connection was lost {MAX_REPEATS} times over job {request.job_id}: the daemon refuses more than "
                "256 connections of one user (share a Client), or the answer is larger than a message may be"
            )
            self._end(request, error)
        return [self._ping(now), *self._repetitions()] if self.open or self._must_stay else []

    def not_connected(self) -> None:
        """A connect has failed. Raises DaemonUnreachableError unless this is a daemon that may come back."""
        if self.open and not self._was_there and (error := absent(self._endpoint)) is not None:
            raise error

    def _repetitions(self) -> Outgoing:
        return [request.repetition() for request in self.open.values()]

    # ---- from the clock ----

    def tick(self, now: float) -> Outgoing:
        """Do what is due, and set `wake_at`. Raises DaemonUnreachableError, which is meant for `fail`, when nothing was
        received for too long.
        """
        outgoing: Outgoing = []
        if self.open and now >= self._silent_until():
            self._was_there = False
            raise unreachable(self._endpoint, self._timeout_s)
        if self.open and now >= self._ping_due():
            accept_s = max(self._timeout_s, LEAST_ACCEPT_S)
            for request in self._not_accepted_since(now - accept_s):
                what = f"took longer than {accept_s:g} s to accept"
                self._end(request, not_accepted(request.job_id, what))
            outgoing = [self._ping(now)] if self.open else []
        self.wake_at = self._next_deadline(now)
        return outgoing

    def _next_deadline(self, now: float) -> float:
        if self.open:
            return min(self._silent_until(), self._ping_due())
        rest_until = self._received_at + self._interval_s
        return rest_until if rest_until > now and self.instance is not None else inf

    def _silent_until(self) -> float:
        # A process that was stopped for an hour has received nothing meanwhile, and has to ask before it judges.
        asked = self._pinged_at + self._interval_s / 2 if self._pings else inf
        return max(self._received_at + self._timeout_s, asked)

    def _ping_due(self) -> float:
        oldest = next(iter(self.open.values()))
        return max(oldest.sent_at, self._pinged_at) + self._interval_s

    def _not_accepted_since(self, time: float) -> list[Request]:
        return [
            each
            for each in self.open.values()
            if not each.accepted and each.sent_at <= time and not isinstance(each.message, wire.Watch)
        ]

    def _ping(self, now: float) -> Frames:
        number = self._number()
        self._pings[number] = self._pinged_at = now
        return wire.encode(wire.Ping(request=number, session=self._session))

    # ---- ends ----

    def fail(self, error: PoolError) -> None:
        """Every open request ends with this error, each with a copy of its own."""
        for request in list(self.open.values()):
            sent = request.repeats or "timeout_s" in error.fields
            if isinstance(error, DaemonUnreachableError) and isinstance(request.message, wire.Submit) and sent:
                self._end(request, unanswered(error, request.job_id, sent_at=request.sent_at))
            else:
                self._end(request, type(error)(error.message, **error.fields))

    def new_socket(self) -> None:
        """Which instance of the daemon answers on it is not known."""
        self.instance = None
        self._pings.clear()

    def _end(self, request: Request, outcome: Delivery | PoolError | None) -> None:
        self._close(request)
        resolve: Callable[[Any], None] = request.set_exception if isinstance(outcome, PoolError) else request.set_result
        self.ended.append(partial(resolve, outcome))

    def _close(self, request: Request) -> None:
        del self.open[request.message.request]
        siblings = self._by_job[request.job_id]
        siblings.remove(request)
        if not siblings:
            del self._by_job[request.job_id]


def _lost(job_id: str) -> Delivery:
    reason = "the daemon was restarted while the job was under way and does not know it; whether it ran is unknown"
    return Delivery(wire.Result(job_id=job_id, outcome=Outcome.LOST, reason=reason), (b"", b"", b""))

"""The connection to the daemon: one socket and one I/O thread, for all threads of a process.

    any thread                      I/O thread, started by the first request                    daemon
    ┌──────────────┐  inbox, wake   ┌──────────────────────────────────────────────┐  DEALER   ┌────────┐
    │ send, forget │───────────────▶│ PendingRequests: what is open, due, waited   │◀─────────▶│ ROUTER │
    │ Request      │◀───────────────│ for                DaemonSocket: the bytes   │           └────────┘
    └──────────────┘   resolved     └──────────────────────────────────────────────┘

1. One thread at a time uses the socket. Callers put a Request into the inbox and wake the thread through an eventfd.
   Nothing polls. Within a second of the last answer the thread wakes up by itself. Until then, the caller of the
   first job sends it himself, and the thread finds it in the inbox when it wakes up, at the latest with the answer:
   that saves two changes of threads. Jobs that follow at once are sent together by the thread, which is cheaper.
2. Requests are resolved on the I/O thread. Only code of this package may add a callback to one, and the callback must
   not block: futures that users may wait for or add callbacks to are resolved elsewhere (`futures.py`).
3. After a fork the child has a context, socket and thread of its own from its first request on. It never touches the
   parent's. Answers to the parent's requests go to the parent only: a child that waits for one waits in vain.
4. LINGER is 0 and the thread is a daemon thread: neither `close` nor the end of the interpreter waits for the peer.
   The socket is replaced when the daemon stays silent, so that a request that failed is not sent hours later, and when
   the connection is lost, because ZeroMQ does not tell which messages were lost with it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import select
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import zmq

from pool import wire
from pool.client import waiting
from pool.client.dealer import Dealer
from pool.client.endpoint import path_of
from pool.client.job import LARGE_BYTES, Submission
from pool.client.pending import Frames, Inbox, OnOutput, PendingRequests, Request
from pool.client.per_process import PerProcess
from pool.errors import BusyError, ClosedError, DaemonUnreachableError, PoolError

#: Messages read in one turn, so that requests are sent while many results arrive.
MESSAGES_PER_TURN = 64
#: As plain numbers: each operation with an Enum makes another one.
_POLLIN, _POLLOUT = int(zmq.POLLIN), int(zmq.POLLOUT)
_NOBLOCK, _SNDMORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
#: `close` waits this long for the thread, which does not wait for anything itself.
JOIN_S = 5.0
#: A caller uses the socket for microseconds, unless a signal handler, a destructor or a debugger runs in between. The
#: thread then goes on with another socket, because these may wait for an answer.
CALLER_S = 1.0


class Connection:
    """Sends requests to one daemon, from any thread and in any process that this one forks."""

    def __init__(self, endpoint: str, *, timeout_s: float) -> None:
        self.endpoint: Final = endpoint
        self.next_number: Final = itertools.count(1).__next__  # atomic
        self._closed = threading.Event()
        self.io: Final = PerProcess(partial(IOThread, endpoint, timeout_s, self.next_number, self._closed))
        # The thread of a client that was dropped without being closed ends, too.
        weakref.finalize(self, _release, self.io).atexit = False

    def submit(self, submission: Submission, on_output: OnOutput | None = None) -> Request:
        """Send the job. `on_output` gets its output while it runs, if its message has `stream`.

        Raises ClosedError, as the other methods; every other error resolves the request.
        """
        request, io = Request(*submission, on_output), self.io[os.getpid()]
        if io.socket is None or not io.socket.send(request):
            io.post(request)
        return request

    def watch(self, job_id: str, on_output: OnOutput | None = None) -> Request:
        """Ask for the result of a job, and for its output if `on_output` is given."""
        message = wire.Watch(request=self.next_number(), job_id=job_id, stream=on_output is not None)
        return self.io[os.getpid()].post(Request(message, on_output=on_output))

    def cancel(self, job_id: str) -> Request:
        return self.io[os.getpid()].post(Request(wire.Cancel(request=self.next_number(), job_id=job_id)))

    def forget(self, request: Request) -> None:
        """Nobody waits for this request any more; the job goes on."""
        if (io := self.io.get(os.getpid())) is not None and not request.done():
            with contextlib.suppress(ClosedError):
                io.post(request, forget=True)

    def give_up(self, request: Request) -> Request:
        """Cancel the job of this request and forget the request."""
        self.forget(request)
        return self.cancel(request.job_id)

    def close(self) -> None:
        """Fail open requests with ClosedError and end the thread. Any number of times, from any thread."""
        self._closed.set()
        _release(self.io, wait=True)


def _release(threads: PerProcess[IOThread], *, wait: bool = False) -> None:
    if (io := threads.get(os.getpid())) is not None:
        io.close(wait=wait)


class IOThread:
    """One process's part of a Connection: the inbox, and the thread while there is one."""

    def __init__(self, endpoint: str, timeout_s: float, number: Callable[[], int], closed: threading.Event) -> None:
        self.session: Final = uuid.uuid4().hex  #: names this process's client to the daemon, over all its connections
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._number = number
        self._lock = threading.RLock()  # a signal's handler may use the client that its thread is using
        self._inbox: Inbox = deque()
        self._wake = -1
        self._thread: threading.Thread | None = None
        self.socket: DaemonSocket | None = None  #: the last one
        self._closed = closed

    def post(self, request: Request, *, forget: bool = False) -> Request:
        """Have the thread send the request, or forget it."""
        with self._lock:
            if self._closed.is_set():
                raise ClosedError("this client has been closed; make a new one")
            if self._thread is None:
                self._start()
            elif self._thread.ident is None:  # the handler of a signal that came in `_start`
                raise BusyError("this client is starting its thread; call it again when the signal's handler has ended")
            self._inbox.append((request, forget))
            os.eventfd_write(self._wake, 1)
        return request

    def close(self, *, wait: bool) -> None:
        with self._lock:
            self._closed.set()
            if (thread := self._thread) is not None:
                os.eventfd_write(self._wake, 1)
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_S)

    def _start(self) -> None:
        wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        name = f"pool client {path_of(self._endpoint)}"
        thread = threading.Thread(target=self._run, args=(wake,), name=name, daemon=True)
        if self._thread is not None:  # a signal's handler has started it meanwhile
            os.close(wake)
            return
        self._wake, self._thread = wake, thread
        try:
            thread.start()
        except BaseException:
            if thread not in threading.enumerate():
                self._thread = None
                os.close(wake)
            raise

    def _run(self, wake: int) -> None:
        """The I/O thread. However it ends, no caller is left waiting, and the next request starts another one."""
        pending = PendingRequests(
            self._endpoint, self._timeout_s, self._inbox, number=self._number, session=self.session
        )
        reason: PoolError = ClosedError("the client was closed before the answer came")
        waiting.receiving.add(me := threading.get_ident())
        try:
            with contextlib.ExitStack() as stack:
                context = zmq.Context()
                stack.callback(context.destroy, linger=0)  # unlike `term`, it closes a socket instead of waiting for it
                self.socket = socket = DaemonSocket(context, self._endpoint, wake, pending=pending)
                stack.callback(socket.close)
                socket.run(self._closed)
        except Exception as error:  # noqa: BLE001 - the thread has no caller, but others wait for it
            reason = PoolError(f"the connection to {self._endpoint} failed: {error!r}; the job may go on")
        with self._lock:
            os.close(wake)
            self._thread = None
            self._inbox = deque()
        pending.take(0.0)
        pending.fail(reason)
        while pending.ended:
            pending.ended.popleft()()
        waiting.receiving.discard(me)


class DaemonSocket:
    """The socket and the messages that wait to be sent on it. Used by the I/O thread only, except for `send`."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, wake: int, *, pending: PendingRequests
    ) -> None:
        self._wake, self._pending = wake, pending
        self._outbox: deque[Frames] = deque()
        self._settled = False  # whether nothing can be sent or received before a descriptor is readable
        self._is_free = False  # whether a caller may send: the thread will look into the inbox soon
        self._epoll = select.epoll()
        self._epoll.register(wake, select.EPOLLIN)
        self._make_dealer = partial(Dealer, context, endpoint, self._epoll)
        self._dealer = self._make_dealer()
        self._left: list[Dealer] = []  # to be closed when their callers do not use them any more
        self._is_repeating = False  # whether a caller has sent a request with one of these

    def close(self) -> None:
        if not self._dealer.using.acquire(timeout=CALLER_S):
            self._replace()
        self._is_free = False
        self._dealer.close()
        self._dealer.using.release()
        self._epoll.close()

    def send(self, request: Request) -> bool:
        """Send a request on the thread of its caller. False: the I/O thread has to take it.

        A signal may interrupt the caller anywhere. The thread then opens another socket and sends again what is open.
        """
        dealer = self._dealer
        if self._pending.inbox or not dealer.using.acquire(blocking=False):
            return False
        try:
            if dealer is not self._dealer or not self._is_free or dealer.is_torn:
                return False
            dealer.is_torn, request.sent_at = True, time.monotonic()
            sent, told = _send(dealer.socket, request.frames), int(dealer.socket.get(zmq.EVENTS)) & _POLLIN
            dealer.is_torn = False
            if not sent:
                request.sent_at = 0.0
                return False
            self._pending.inbox.append((request, False))
            if told and not dealer.is_left:  # the thread sleeps on, and these calls have taken the notice for it
                os.eventfd_write(self._wake, 1)
            return not dealer.is_left or self._is_taken(request)
        except zmq.ZMQError:
            if not dealer.is_left:
                raise
            return False  # the client was closed meanwhile
        finally:
            dealer.using.release()

    def _is_taken(self, request: Request) -> bool:
        """Whether the thread, which has another socket now, has this request from the inbox already."""
        self._is_repeating = True
        try:
            self._pending.inbox.remove((request, False))
        except ValueError:
            return True
        return False

    def run(self, closed: threading.Event) -> None:
        """Wait until something happens, do what is due, and so on until the client is closed."""
        pending = self._pending
        while not closed.is_set():
            wait_s = max(0.0, pending.wake_at - time.monotonic()) if self._settled else 0.0
            ready = dict(self._epoll.poll(None if wait_s == math.inf else wait_s))
            if self._wake in ready:
                os.eventfd_read(self._wake)
            if not self._dealer.using.acquire(timeout=CALLER_S):
                self._replace()
            dealer = self._dealer
            try:
                events = dealer.events() if not self._settled or dealer.descriptors[1] in ready else set()
                now, self._settled = time.monotonic(), False
                if self._is_repeating:
                    dealer.is_torn, self._is_repeating = True, False
                self._outbox += pending.take(now)
                if not dealer.is_torn:
                    if self._outbox:
                        self._flush()
                    self._receive(now)
                if events or dealer.is_torn or now >= pending.wake_at:
                    self._check(now, events)
                    self._settled = False
                answered = not pending.open and pending.instance is not None and pending.wake_at < math.inf
                self._is_free = answered and self._settled and not self._outbox
            finally:
                dealer.using.release()
            while pending.ended:
                pending.ended.popleft()()

    def _replace(self) -> None:
        """Leave the socket to the caller who uses it for long, and open another one, locked for this thread."""
        for each in [each for each in self._left if each.using.acquire(blocking=False)]:
            self._left.remove(each)
            each.close()
        following = self._make_dealer()
        following.using.acquire()
        self._dealer.leave()
        self._left.append(self._dealer)
        self._dealer, self._is_repeating = following, True

    def _check(self, now: float, events: set[int]) -> None:
        try:
            if zmq.EVENT_DISCONNECTED in events or self._dealer.is_torn:
                # ZeroMQ would connect again by itself, but not after a frame over the cap.
                self._dealer.reopen()
                self._outbox += self._pending.disconnected(now)
            elif events:
                self._pending.not_connected()
            self._outbox += self._pending.tick(now)
        except DaemonUnreachableError as error:
            self._dealer.reopen()
            self._outbox.clear()
            self._pending.fail(error)
            self._pending.new_socket()

    def _flush(self) -> None:
        """Send what the socket takes."""
        if not self._dealer.connected:
            self._dealer.connect()
        while self._outbox and _send(self._dealer.socket, self._outbox[0]):
            self._outbox.popleft()

    def _receive(self, now: float) -> None:
        """Take all messages from the socket. Its descriptor is readable only after a change, so it is waited for when
        EVENTS has told that there are no more.

        Large frames stay in libzmq's memory, writable, so that an array needs no copy. A copy of a small frame is
        cheaper than a handle.
        """
        dealer = self._dealer
        for _ in range(MESSAGES_PER_TURN):
            events = int(dealer.socket.get(zmq.EVENTS))
            if not events & _POLLIN:
                self._settled = not (self._outbox and events & _POLLOUT)
                return
            frames: list[wire.Frame] = []
            more, receive = True, dealer.socket.recv
            while more:
                frame = receive(_NOBLOCK, copy=False)
                frames.append(frame.buffer if len(frame) >= LARGE_BYTES else frame.bytes)
                more = frame.more
            self._outbox += self._pending.receive(frames, now)


def _send(socket: zmq.Socket[bytes], message: Frames) -> bool:
    """Whether the socket has taken the message. Large frames are zmq.Frames already (see job.py)."""
    if not int(socket.get(zmq.EVENTS)) & _POLLOUT:
        return False
    *frames, last = message
    try:
        for frame in frames:
            socket.send(frame, _SNDMORE)
        socket.send(last, _NOBLOCK)
    except zmq.Again:  # the connection has ended between two frames; the monitor reports it
        return False
    return True

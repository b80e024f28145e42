"""The way to the daemon: one thread that owns the socket, for all threads of a process.

    any thread                      I/O thread, started by the first request                    daemon
    ┌──────────────┐  inbox, wake   ┌──────────────────────────────────────────────┐  DEALER   ┌────────┐
    │ ask, forget  │───────────────▶│ ledger: what is open, what is due, who waits │◀─────────▶│ ROUTER │
    │ Request      │◀───────────────│                                              │           └────────┘
    └──────────────┘  its Future    └──────────────────────────────────────────────┘

1. ZeroMQ sockets belong to one thread; callers hand over a Request and an eventfd wakes the thread. Nothing polls.
2. `Request.answer` is resolved on the I/O thread. Only code of this package may hang a callback on it, and the callback
   must not wait for anything: what users may wait or hang callbacks on is resolved elsewhere (`executor.py`).
3. After a fork the child has a context, socket and thread of its own, from its first request on. It never touches the
   parent's, and what the parent had asked is answered to the parent only: a child that waits for it waits in vain.
4. LINGER is 0 and the thread is a daemon thread: neither `close` nor the end of the interpreter waits for the peer.
   When the daemon falls silent the socket is replaced, so that what failed at the caller is not sent hours later; and
   when the connection breaks, because ZeroMQ does not tell which messages went down with it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, Self

import zmq

from pool import wire
from pool.client.endpoint import path_of
from pool.client.feed import Feed
from pool.client.ledger import Ledger, Request
from pool.client.process import PerProcess
from pool.errors import ClosedError, DaemonUnreachableError, PoolError

#: Messages that wait in ZeroMQ in each direction; more wait with us.
HIGH_WATER_MARK = 1000
#: First and longest pause between attempts to connect: a new daemon is found soon, an absent one costs little.
RECONNECT_MS = (20, 500)
#: Messages read in one turn, so that requests go out while results flood in.
BATCH = 64
#: `close` waits this long for the thread, which has nothing to wait for itself.
JOIN_S = 5.0
#: pyzmq copies frames below this when it sends; copying them when they arrive is cheaper than a handle, too.
LARGE_BYTES = 65_536


class Connection:
    """Questions to one daemon, from any thread and in any process that this one forks."""

    def __init__(self, endpoint: str, *, timeout_s: float) -> None:
        self.endpoint: Final = endpoint
        self.timeout_s: Final = timeout_s
        self._numbers = itertools.count(1)
        self._closed = False
        self._line = PerProcess(partial(Line, endpoint, timeout_s, self._numbers))
        # A client that nobody closed and nobody has any more takes its thread with it.
        weakref.finalize(self, _release, self._line).atexit = False

    def number(self) -> int:
        """A request number; `next` of a count is atomic."""
        return next(self._numbers)

    def ask(
        self,
        message: wire.Submit | wire.Watch | wire.Cancel,
        payload: Sequence[wire.Frame] = (),
        *,
        feed: Feed | None = None,
    ) -> Request:
        """Send the question. Raises ClosedError, and LocalProtocolError over a cap; all else comes as the answer.

        `feed`: where the job's output goes while it runs, for a message with `stream`.
        """
        if self._closed:
            raise _closed()
        request = Request(message, wire.encode(message, payload), on_output=None if feed is None else feed.put)
        if feed is not None:
            request.answer.add_done_callback(feed.end)
        self._line.get().post(request)
        return request

    def forget(self, request: Request) -> None:
        """Nobody waits for this answer any more."""
        line = self._line.peek()
        if line is not None and not request.answer.done():
            with contextlib.suppress(ClosedError):
                line.post(Forget(request))

    def close(self) -> None:
        """Fail what is open with ClosedError and end the thread. Any number of times, from any thread."""
        self._closed = True
        line = self._line.peek()
        if line is not None:
            line.close()


def _release(lines: PerProcess[Line]) -> None:
    line = lines.peek()
    if line is not None:
        line.close(wait=False)


class Forget:
    """For the inbox: drop this request."""

    __slots__ = ("request",)

    def __init__(self, request: Request) -> None:
        self.request = request


class Line:
    """One process's part of a Connection: the inbox, and the thread while there is one."""

    def __init__(self, endpoint: str, timeout_s: float, numbers: itertools.count[int]) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._numbers = numbers
        self._lock = threading.Lock()
        self._inbox: deque[Request | Forget] = deque()
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._closed = False

    def post(self, item: Request | Forget) -> None:
        with self._lock:
            if self._closed:
                raise _closed()
            if self._thread is None:
                self._start()
            self._inbox.append(item)
            os.eventfd_write(self._wake, 1)

    def close(self, *, wait: bool = True) -> None:
        with self._lock:
            self._closed = True
            thread = self._thread
            if thread is not None:
                os.eventfd_write(self._wake, 1)
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_S)

    def _start(self) -> None:
        wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        name = f"pool client {path_of(self._endpoint)}"
        thread = threading.Thread(target=self._run, args=(wake,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            os.close(wake)
            raise
        self._wake, self._thread = wake, thread

    def _run(self, wake: int) -> None:
        """The I/O thread. Whatever ends it, nobody is left waiting, and the next request starts another one."""
        ledger = Ledger(self._endpoint, self._timeout_s, number=self._numbers.__next__)
        reason: PoolError = ClosedError("the client was closed before the answer came")
        try:
            with _context() as context, Exchange(context, self._endpoint, wake, ledger=ledger) as exchange:
                while not self._closed:
                    exchange.turn(self._inbox)
        except Exception as error:  # noqa: BLE001 - a thread has no caller to tell, but there are those who wait
            reason = PoolError(f"the connection to {self._endpoint} broke down: {error!r}; the job may go on")
        with self._lock:
            os.close(wake)
            self._thread = None
            left, self._inbox = self._inbox, deque()
        for item in left:
            if isinstance(item, Request):
                ledger.open(item, 0.0)
        ledger.fail(reason)


def _closed() -> ClosedError:
    return ClosedError("this client has been closed; make a new one")


@contextlib.contextmanager
def _context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context()
    try:
        yield context
    finally:
        context.destroy(linger=0)  # unlike `term`, closes a socket that was left open instead of waiting for it


class Exchange:
    """The socket and what waits to be sent on it; lives on the I/O thread."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, wake: int, *, ledger: Ledger) -> None:
        self._context = context
        self._endpoint = endpoint
        self._wake = wake
        self._ledger = ledger
        self._outbox: deque[list[wire.Frame]] = deque()
        self._socket, self._monitor = self._dial()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    def turn(self, inbox: deque[Request | Forget]) -> None:
        """Wait for something to happen, and do it."""
        broken = self._wait()
        now = time.monotonic()
        while inbox:
            item = inbox.popleft()
            if isinstance(item, Forget):
                self._ledger.forget(item.request)
            else:
                self._outbox += self._ledger.open(item, now)
        self._send()
        self._receive(now)
        try:
            if broken:
                # ZeroMQ would connect again by itself, but not after a frame over the cap.
                self._redial()
                self._outbox += self._ledger.disconnected(now)
            self._outbox += self._ledger.tick(now)
        except DaemonUnreachableError as error:
            self._redial()
            self._outbox.clear()
            self._ledger.fail(error)
            self._ledger.reset()
        self._send()

    def _dial(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """The socket, and one that tells when its connection breaks."""
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS[0])
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS[1])
        self._connected = False
        return socket, socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    def _hang_up(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)

    def _redial(self) -> None:
        self._hang_up()
        self._socket, self._monitor = self._dial()

    def _wait(self) -> bool:
        """Whether the connection has broken meanwhile."""
        poller = zmq.Poller()
        poller.register(self._wake, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if self._outbox else 0))
        wait_s = self._ledger.wait_s(time.monotonic())
        ready = dict(poller.poll(None if wait_s is None else math.ceil(wait_s * 1000)))
        if self._wake in ready:
            os.eventfd_read(self._wake)
        return self._monitor in ready

    def _send(self) -> None:
        if self._outbox and not self._connected:
            # Not before there is something to say: a client that is idle leaves an absent daemon alone.
            self._socket.connect(self._endpoint)
            self._connected = True
        while self._outbox:
            try:
                self._socket.send_multipart(self._outbox[0], zmq.NOBLOCK)
            except zmq.Again:
                return
            self._outbox.popleft()

    def _receive(self, now: float) -> None:
        for _ in range(BATCH):
            try:
                frames = [_content(frame) for frame in self._socket.recv_multipart(zmq.NOBLOCK, copy=False)]
            except zmq.Again:
                return
            self._outbox += self._ledger.receive(frames, now)


def _content(frame: zmq.Frame) -> wire.Frame:
    """Large frames as they lie in libzmq's memory, writable, so that an array needs no copy; small ones as bytes."""
    return frame.buffer if len(frame) >= LARGE_BYTES else frame.bytes

"""The runner's end of its link, which outlives the daemon.

        open            Hello               EVENT_DISCONNECTED
    ───────▶ CONNECTING ─────▶ UP ───────────────────────────────▶ CONNECTING ──Resume──▶ waits ──Adopted──▶ UP
               │    ▲
               └────┘ EVENT_CLOSED: nobody accepts; again after a pause

While the link is not up nothing is sent. When a new daemon has bound the socket, Resume tells it in which state the
worker is. The latest Done is held until the daemon sends the next Run, or Collected: of a large one at once, and after
Resume if it has that answer already.

A worker that has passed its self-tests has a token. The daemon sent it over the link, the zygote and its children were
forked before, and no other process can read this one's memory. So only this process can show it to the next daemon.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import zmq

from pool import wire
from runner.channel import Frame
from runner.loop import Loop

#: Pauses between two tries to connect: a new daemon binds the socket within a second or two.
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5
#: How long the last message may take to be sent before the process ends. A daemon on a busy machine takes seconds to
#: accept a connection.
_LAST_MESSAGE_MS = 20_000
#: How much longer libzmq may take to end.
_END_S = 2.0
#: libzmq closes sockets in a thread of its own, which may wait for a core on a busy machine.
_SETTLE_S = 10.0
#: pyzmq copies smaller frames, whatever `copy` says.
_SENT_WITHOUT_COPY_BYTES = 128 * 1024

#: As plain numbers: pyzmq's flags are enums, and each operation with one of them calls Python functions.
_READABLE, _AT_ONCE, _MORE = int(zmq.POLLIN), int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
#: The first frame of a monitor's report, by zmq_socket_monitor(3). pyzmq's own reader imports asyncio.
_EVENT = struct.Struct("=hi")

State = Literal["idle", "running", "answered", "cleaning"]


class Link:
    """One connection at a time, and the messages that the next one has to repeat.

    A broken socket is replaced, because libzmq would send to the next daemon what was queued for the last one.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], path: Path) -> None:
        """Connect. Nothing is sent until `up` is set."""
        self.loop = Loop()  #: of the runner
        #: Of the daemon, besides Run.
        self.orders: dict[type[wire.ToRunner], Callable[[Any], object]] = {
            wire.Welcome: self._welcome,
            wire.Collected: self._collected,
            wire.Probe: lambda probe: self.send(wire.Heartbeat(seq=probe.seq)),
        }
        self._start: Callable[[wire.Run, Sequence[Frame]], object]
        self._changed: Callable[[bool], object]
        self._context = context
        self.directory = path.parent
        self._endpoint = f"ipc://{path}"
        self.up = False  #: whether messages can be sent
        self.greeted = False  #: whether a daemon has had Hello
        self.token = ""  #: "" until the self-tests have passed
        self.pause_s = _FIRST_PAUSE_S  #: until the next try to connect
        self.settled_at = 0.0  #: monotonic; until then this process may have descriptors of an earlier connection
        self._held: tuple[wire.Done, Sequence[Frame]] | None = None  # of the latest job
        self._freed: wire.Freed | None = None  # of the latest job
        self._latest: wire.Run | None = None
        self._told = True  # whether the daemon knows that the latest job has started
        self._jobs = 0
        self._repeats_freed = False  # whether the daemon that has had Resume expects the last Freed
        self._connect()

    def _connect(self) -> None:
        self.socket = self._context.socket(zmq.PAIR)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED)
        self.socket.connect(self._endpoint)

    def attend(self, start: Callable[[wire.Run, Sequence[Frame]], object], changed: Callable[[bool], object]) -> None:
        """Have a job started, with its header and payload, and be told that a connection was made, or has ended or
        could not be made; also of each later connection.
        """
        self._start, self._changed = start, changed
        self._watch()

    def _watch(self) -> None:
        for each in (self.socket, self.monitor):
            self.loop.watch(self.receive, each.FD)
        self._used()

    def _used(self) -> None:
        """After each use of the sockets. Libzmq may have taken in what their descriptors do not show."""
        self.loop.first = self.receive

    def disconnected(self) -> None:
        """The connection has ended, or could not be made: try again after a pause.

        Not at once: libzmq loses a descriptor of a socket that is closed while its connection ends.
        """
        self.up, self._told = False, True  # Resume tells the next daemon
        self.loop.timers[self._try_again] = time.monotonic() + self.pause_s

    def _try_again(self) -> None:
        """Once. The monitor reports how it ended."""
        self.loop.unwatch(self.socket.FD, self.monitor.FD)
        self.reconnect()
        self._watch()

    def reconnect(self) -> None:
        """Drop the connection with all that is queued on it, and try again."""
        self.up = False
        self.socket.getsockopt(zmq.EVENTS)  # libzmq ends what belongs to the connection before the socket is closed
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)
        self._connect()
        self.pause_s = min(2 * self.pause_s, _LONGEST_PAUSE_S)

    def receive(self) -> None:
        """Handle all that has come. Called when a descriptor of the link is readable, and after each use of the link.

        Raises RemoteProtocolError.
        """
        while True:
            self.loop.first = None
            if int(self.monitor.getsockopt(zmq.EVENTS)) & _READABLE:
                self._changed(self._connected())
            elif int(self.socket.getsockopt(zmq.EVENTS)) & _READABLE:
                frames = self.socket.recv_multipart()
                message, payload = wire.decode(wire.to_runner, frames)
                if isinstance(message, wire.Run):
                    self._start(message, [frames[1], *payload])
                else:
                    self.orders[type(message)](message)
            else:
                return

    def _connected(self) -> bool:
        """Whether a connection was made. False: it has ended, or could not be made.

        A try ends only with such a report. If it ended after a time instead, a second connection could be made beside a
        first one that had succeeded unnoticed, and the daemon refuses second connections.
        """
        event, _ = _EVENT.unpack(self.monitor.recv_multipart()[0])
        if connected := bool(event == zmq.EVENT_CONNECTED):
            self.loop.timers.pop(self._try_again, None)
        return connected

    # ---- messages, and which of them are kept ----

    def greet(self, hello: wire.Hello) -> None:
        """The first message to the first daemon."""
        self.greeted = self.up = True
        self.send(hello)

    def leave(self, hello: wire.Hello, last: wire.Broken) -> None:
        """Send the last message. The first connection may still have to be made; a later one is not waited for."""
        while not self.greeted and self.monitor.poll(_LAST_MESSAGE_MS):
            if self._connected():
                self.greet(hello)
            else:
                time.sleep(self.pause_s)
                self.reconnect()
        self.send(last)
        # libzmq may wait for ever for its own end, so this one has a limit.
        ending = threading.Thread(target=partial(self._context.destroy, linger=_LAST_MESSAGE_MS), daemon=True)
        ending.start()
        ending.join(_LAST_MESSAGE_MS / 1000 + _END_S)

    def begin(self, job: wire.Run) -> None:
        """A job has come, by which the daemon says that it has the last answer."""
        self._held, self._latest, self._freed, self._told = None, job, None, False
        self._jobs += job.epoch > 0

    def tell_started(self) -> None:
        """The latest job has run for a while. Nothing is sent if the daemon knows it, also by Done or Resume."""
        if self._latest is not None and not self._told:
            self._told = True
            self.send(wire.Started(job_id=self._latest.job_id, epoch=self._latest.epoch))

    def send(self, message: wire.Message, payload: Sequence[Frame] = ()) -> None:
        """Send it if the link is up. Done and Freed are kept besides, if there may be another daemon."""
        if isinstance(message, wire.Done):
            self._told, self._held = True, (message, payload) if self.token else None
        elif isinstance(message, wire.Freed):
            self._freed = message
        if self.up:
            self.loop.first, frames = self.receive, wire.encode(message, payload)
            try:
                for each in frames[:-1]:
                    self.socket.send(each, _MORE, copy=False)
                self.socket.send(frames[-1], _AT_ONCE, copy=False)
            except zmq.Again:
                self._put(frames)

    def _welcome(self, message: wire.Welcome) -> None:
        self.token = message.token

    def _collected(self, message: wire.Collected) -> None:
        """The daemon has the answer, or does not want it. About another one this is ignored."""
        if self._held is not None and (self._held[0].job_id, self._held[0].epoch) == (message.job_id, message.epoch):
            self._held = None

    def resume(self, *, running_s: float | None, free: bool) -> None:
        """The first message to a later daemon. `running_s`: since the start of the job that runs, if one does."""
        self.pause_s = _FIRST_PAUSE_S
        unclean = self._freed is not None and self._freed.residue != ""
        state: State = "cleaning" if unclean or not free else "idle"
        if running_s is not None:
            state = "running"
        elif self._held is not None:
            state = "answered"
        self._repeats_freed = free and state != "idle"
        latest = self._latest
        resume = wire.Resume(
            token=self.token,
            state=state,
            job_id=latest.job_id if latest is not None and state != "idle" else "",
            epoch=latest.epoch if latest is not None else 0,
            jobs=self._jobs,
            elapsed_s=running_s or 0.0,
        )
        self._put(wire.encode(resume))

    def go_on(self) -> None:
        """The daemon has answered Resume: send what it may not have."""
        self.up, self.settled_at = True, time.monotonic() + _SETTLE_S
        if self._held is not None:
            self.send(*self._held)
        if self._repeats_freed and self._freed is not None:
            self.send(self._freed)

    def offer(self, message: wire.Message, payload: Sequence[Frame]) -> bool:
        """Send, or return False when the link is full or not up."""
        if not self.up:
            return False
        self._used()
        try:
            self.socket.send_multipart(wire.encode(message, payload), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _put(self, frames: Sequence[Frame]) -> None:
        """Wait while the link is full. One that has ended takes nothing, and the monitor's event is still to come."""
        self._used()
        while True:
            try:
                self.socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
            except zmq.Again:
                poller = zmq.Poller()
                poller.register(self.socket, zmq.POLLOUT)
                poller.register(self.monitor, zmq.POLLIN)
                if self.monitor in dict(poller.poll()):
                    return
            else:
                return


def start_zmq_reaper(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Large frames are sent without a copy, and pyzmq frees them in a thread that starts with the first of them.

    It is started now, so that a worker has the same threads and descriptors before its first job and after each.
    """
    with context.socket(zmq.PAIR) as sending, context.socket(zmq.PAIR) as receiving:
        receiving.bind("inproc://large")
        sending.connect("inproc://large")
        sending.send(bytes(_SENT_WITHOUT_COPY_BYTES), copy=False)
        receiving.recv()

"""PID 1 of a worker: one loop between the daemon's link and the children of the zygote.

It never decodes, formats or calls anything that a job made: a job's answer is a fixed struct and opaque frames.

Contract with the daemon, over the link:
1. Hello once, at the start; Ready once, when the first child is parked (or Broken, and the end).
2. One Run at a time. Each is answered by Started, exactly one Done and exactly one Freed, and the next Run comes after
   that. Done goes out as soon as the child's answer is whole; a job that was killed, or that died, is answered when all
   it had started is gone. Freed goes out when that is so in any case, its files are gone and the next child is parked;
   `residue` says what would not go.
3. Kill of the running attempt leads to its Done(cancelled); of any other it is ignored, for its Done is on the way.
4. Heartbeat every `beat_s` while idle, and in answer to Probe.
5. Printed after Stream of the running attempt, until its Done; never without.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from pool import wire
from pool.errors import RemoteProtocolError
from pool.model import Outcome
from runner import meter, nursery, residue
from runner.attempt import Attempt, Child, Exit, Stream
from runner.baseline import Baseline
from runner.channel import Frame
from runner.meter import Meter
from runner.printer import Printer
from runner.zygote import PreloadError

_LAST_WORDS_BYTES = 8192
#: A job that runs longer than this has the next child forked beside it. A shorter one is answered first: a fork costs
#: milliseconds of a core, and it would compete with the very job.
_FORK_AFTER_S = 0.005
#: When the zygote could not fork, because a job had taken all the processes there are.
_FORK_AGAIN_S = 0.05
#: pyzmq copies what is smaller, whatever it is told.
_SENT_AS_IT_IS_BYTES = 128 * 1024
#: An answer has the cores to itself for a moment before the end of its child and the fork of the next one take them.
_CLEAR_AFTER_S = 0.001


class DaemonGoneError(Exception):
    """The daemon has been away for too long; there is nobody to work for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    scratch: tuple[Path, ...]
    beat_s: float
    orphan_s: float  #: a new daemon removes an orphan anyway; this is for a daemon that never comes back
    born: float  #: monotonic seconds at the start of the process
    checked: (
        bool  #: whether the worker has its processes, mounts and limits to itself, and can tell if a job changed them
    )


class Runner:
    """Owns the link, the control socket of the zygote, at most one parked child and at most one attempt."""

    def __init__(self, settings: Settings, link: zmq.Socket[bytes], control: socket.socket, zygote_pid: int) -> None:
        self._settings = settings
        self._link = link
        _start_letting_go(link.context)
        self._monitor = link.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)
        self._away_since: float | None = time.monotonic()
        self._control = control
        self._zygote_pid = zygote_pid
        self._parked: Child | None = None
        self._attempt: Attempt | None = None
        self._printer: Printer | None = None
        self._fork_at: float | None = None
        self._clear_at: float | None = None
        self._forking = False
        self._end: Exit | None = None
        self._freed: wire.Freed | None = None
        self._dirty = ""
        self._ready = False
        self._baseline: Baseline | None = None
        self._meter: Meter | None = None
        self._measure_at = 0.0
        self._preload_ms = 0.0
        self._isolation, self._missing = "", [""]
        self._beat_at = 0.0
        self._poller = zmq.Poller()
        for always in (link, self._monitor, control.fileno()):
            self._poller.register(always, zmq.POLLIN)
        self._watched: set[int] = set()

    def serve(self) -> None:
        """Until the zygote is gone, the daemon has been away too long, or the process is killed."""
        while True:
            self._watch()
            for source, _ in self._poller.poll(self._patience_ms()):
                self._turn(source)
            self._check_clock()

    # ---- the loop ----

    def _watch(self) -> None:
        """Poll exactly the descriptors that matter now."""
        wanted: set[int] = set()
        if self._parked is not None and not self._parked.ready:
            wanted.add(self._parked.sock.fileno())
        if self._attempt is not None:
            wanted.update(self._attempt.descriptors())
        for fd in self._watched - wanted:
            self._poller.unregister(fd)
        for fd in wanted - self._watched:
            self._poller.register(fd, zmq.POLLIN)
        self._watched = wanted

    def _patience_ms(self) -> int:
        until = min(self._beat_at, self._fork_at or self._beat_at, self._clear_at or self._beat_at)
        if self._attempt is not None and self._attempt.running:
            until = min(until, self._attempt.deadline, self._measure_at)
        if self._printer is not None and (due := self._printer.due()) is not None:
            until = min(until, due)
        return max(0, int((until - time.monotonic()) * 1000) + 1)

    def _turn(self, source: object) -> None:
        if source is self._link:
            self._hear_daemon()
        elif source is self._monitor:
            self._hear_monitor()
        elif source == self._control.fileno():
            self._hear_zygote()
        elif self._parked is not None and source == self._parked.sock.fileno():
            self._hear_parked(self._parked)
        elif self._attempt is not None and isinstance(source, int):
            self._attempt.readable(source)
            if self._attempt.complete:
                self._answer(self._attempt)

    def _check_clock(self) -> None:
        now = time.monotonic()
        attempt = self._attempt
        if attempt is not None and attempt.running:
            self._check_limits(attempt, now)
        if self._printer is not None:
            self._printer.turn(now)
        if self._fork_at is not None and now >= self._fork_at:
            self._fork_next()
        if attempt is not None and self._clear_at is not None and now >= self._clear_at:
            self._clear_at = None
            attempt.child.kill()
            self._fork_next()
        if now >= self._beat_at:
            self._beat_at = now + self._settings.beat_s
            if self._ready and attempt is None:
                self._say(wire.Heartbeat())
                if self._meter is not None and self._freed is None:
                    self._meter.renew()  # what an idle worker uses is not the next job's
        if self._away_since is not None and now - self._away_since > self._settings.orphan_s:
            raise DaemonGoneError

    def _check_limits(self, attempt: Attempt, now: float) -> None:
        """Those that hold for a job as a whole; the kernel holds the others, for each process."""
        if now >= attempt.deadline:
            attempt.kill(Outcome.TIMEOUT)
        elif now >= self._measure_at:
            self._measure_at = now + meter.INTERVAL_S
            excess = attempt.starved() or (self._meter.excess(attempt.job) if self._meter is not None else None)
            if excess is not None:
                attempt.kill(*excess)

    # ---- the daemon's words ----

    def _hear_daemon(self) -> None:
        message, payload = wire.decode(wire.to_runner, self._link.recv_multipart())
        if isinstance(message, wire.Run):
            self._take(message, payload)
        elif isinstance(message, wire.Kill):
            self._kill(message)
        elif isinstance(message, wire.Stream):
            self._stream(message)
        else:
            self._say(wire.Heartbeat(seq=message.seq))

    def _take(self, job: wire.Run, payload: Sequence[Frame]) -> None:
        if self._attempt is not None or self._freed is not None or self._parked is None:
            raise RemoteProtocolError("the daemon sent a job to a worker that is not free")
        child, self._parked = self._parked, None
        self._attempt = Attempt(job, child, payload, meter=self._meter)
        self._measure_at = time.monotonic() + meter.INTERVAL_S
        self._fork_at = time.monotonic() + _FORK_AFTER_S
        self._say(wire.Started(job_id=job.job_id, epoch=job.epoch))

    def _fork_next(self) -> None:
        """Once for each attempt: a short job is answered first, a long one has its successor parked while it runs."""
        if self._fork_at is not None:
            self._fork_at = None
            self._fork()

    def _fork(self) -> None:
        self._control.send(nursery.FORK)
        self._forking = True

    def _kill(self, order: wire.Kill) -> None:
        if (attempt := self._meant(order)) is not None:
            attempt.kill(Outcome.CANCELLED)

    def _stream(self, order: wire.Stream) -> None:
        attempt = self._meant(order)
        if attempt is not None and not attempt.answered:
            self._printer = Printer(attempt, self._offer)

    def _meant(self, order: wire.Kill | wire.Stream) -> Attempt | None:
        """The attempt that an order is about, if it is still there."""
        attempt = self._attempt
        if attempt is None or (attempt.job.job_id, attempt.job.epoch) != (order.job_id, order.epoch):
            return None
        return attempt

    def _say(self, message: wire.Message, payload: Sequence[Frame] = ()) -> None:
        self._link.send_multipart(wire.encode(message, payload), copy=False)

    def _offer(self, message: wire.Message, payload: Sequence[Frame]) -> bool:
        """Say what can also be said later: False when the link takes no more for now."""
        try:
            self._link.send_multipart(wire.encode(message, payload), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _hear_monitor(self) -> None:
        event = recv_monitor_message(self._monitor)["event"]
        self._away_since = None if event == zmq.EVENT_CONNECTED else time.monotonic()

    # ---- the zygote's words ----

    def _hear_zygote(self) -> None:
        message, fds, _, _ = socket.recv_fds(self._control, 4096, 5)
        kind, body = message[:1], message[1:]
        if kind == nursery.CHILD:
            (number,) = nursery.CHILD_BODY.unpack(body)
            channel, out, err, *kill_by = fds
            self._parked = Child(number, socket.socket(fileno=channel), out, err, *kill_by)
            self._forking = False
            self._conclude()
        elif kind == nursery.NO_CHILD:
            self._forking, self._fork_at = False, time.monotonic() + _FORK_AGAIN_S
            self._conclude()
        elif kind == nursery.EXITED:
            self._bury(Exit(*nursery.EXITED_BODY.unpack(body)))
        elif kind == nursery.LOADED:
            (self._preload_ms,) = nursery.LOADED_BODY.unpack(body[: nursery.LOADED_BODY.size])
            self._isolation, *self._missing = body[nursery.LOADED_BODY.size :].decode().splitlines()
            self._fork()
        elif kind == nursery.FAILED:
            raise PreloadError(body.decode())
        else:
            raise PreloadError("the zygote has died; a preloaded module may have crashed it, or a job has killed it")

    def _hear_parked(self, child: Child) -> None:
        if not child.sock.recv(1):
            return  # it died; its exit is on the way
        child.ready = True
        if not self._ready:
            self._announce()
        else:
            self._free()

    def _announce(self) -> None:
        self._ready = True
        if self._settings.checked:
            self._meter = Meter()
        boot_ms = (time.monotonic() - self._settings.born) * 1000
        ready = wire.Ready(
            boot_ms=boot_ms, preload_ms=self._preload_ms, isolation=self._isolation, missing=tuple(self._missing)
        )
        self._say(ready)

    def _answer(self, attempt: Attempt) -> None:
        """The child's answer is whole: pass it on. The child has nothing more to say and waits for its end."""
        self._printer = None
        self._say(*attempt.answer())
        self._clear_at = time.monotonic() + _CLEAR_AFTER_S

    def _bury(self, end: Exit) -> None:
        """A child is dead and reaped."""
        if self._attempt is not None and self._attempt.child.id == end.id:
            self._end = end
            self._conclude()
        elif self._parked is not None and self._parked.id == end.id:
            self._mourn(self._parked, end)

    def _mourn(self, parked: Child, end: Exit) -> None:
        """Nothing of ours kills a parked child. If a job did, that worker is not used again; else it cannot be."""
        words = Stream(parked.err, _LAST_WORDS_BYTES)
        words.drain()
        if self._attempt is None:
            last = words.kept.decode(errors="replace").strip()
            raise PreloadError(f"a child died while it got ready (status {end.status}): {last[-2000:]}")
        self._dirty = f"parked: the next child died (status {end.status})"
        self._drop(parked)
        self._parked = None
        self._fork()

    def _conclude(self) -> None:
        """Clear up after a dead child, once all of our own are known: one being forked would pass for a stray."""
        if self._attempt is None or self._end is None or self._forking:
            return
        attempt, end = self._attempt, self._end
        self._attempt = self._printer = self._end = self._clear_at = None
        own = {self._zygote_pid, *(self._parked.pids if self._parked is not None else ())}
        left = [residue.kill_strays(own), *map(residue.empty, self._settings.scratch), self._dirty]
        if not attempt.answered:
            self._say(*attempt.conclude(end))
        self._fork_next()
        self._freed = wire.Freed(epoch=attempt.job.epoch, residue="; ".join(filter(None, left)))
        self._drop(attempt.child)
        self._free()

    def _free(self) -> None:
        """Say that this worker can take a job, once it can."""
        if self._freed is not None and self._parked is not None and self._parked.ready:
            freed, self._freed = self._freed, None
            found = self._deviations()
            if self._meter is not None:
                self._meter.renew()
            self._say(wire.Freed(epoch=freed.epoch, residue="; ".join(filter(None, [freed.residue, *found]))))

    def _deviations(self) -> list[str]:
        """The first job is the daemon's own and does nothing: only after it has libzmq all its descriptors."""
        if self._baseline is not None:
            return self._baseline.deviations()
        if self._settings.checked:
            self._baseline = Baseline(self._zygote_pid)
        return []

    def _drop(self, child: Child) -> None:
        for fd in self._watched & {child.sock.fileno(), child.out, child.err}:
            self._poller.unregister(fd)
            self._watched.discard(fd)
        child.close()


def _start_letting_go(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Large frames are sent without a copy, and pyzmq lets go of them in a thread that starts with the first of them.

    That is now, so that a worker's threads and descriptors are the same before its first job and after each.
    """
    with context.socket(zmq.PAIR) as sending, context.socket(zmq.PAIR) as receiving:
        receiving.bind("inproc://large")
        sending.connect("inproc://large")
        sending.send(bytes(_SENT_AS_IT_IS_BYTES), copy=False)
        receiving.recv()

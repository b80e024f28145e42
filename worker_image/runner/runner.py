"""PID 1 of a worker: one loop between the daemon's link and the children of the zygote.

It never decodes, formats or calls anything that a job made: an answer is a report of fixed layout and opaque frames.

Contract with the daemon, over the link:
1. Hello once, at the start. Then Ready once, when the first child is parked, or Broken and the end.
2. One Run at a time, and the next one only after Freed. Each Run is answered by one Done and one Freed,
   and before them by Started if the job runs for longer than a few milliseconds. Done is sent when the child's answer
   is complete; for a job that was killed or has died, when everything that it had started is gone. Freed is sent when
   all of that is gone, the job's files are removed and the next child is parked; `residue` names what could not be
   removed. A worker for one job (`--jobs 1`) forks no child after it and sends no Freed: the daemon replaces it.
3. Kill of the running attempt leads to Done(cancelled). Kill of another attempt is ignored: its Done is on the way.
4. Heartbeat every `heartbeat_s` while idle, and as the answer to Probe.
5. Printed after Stream of the running attempt and Started, until its Done, and never without Stream.
6. Done is held until the next Run, or Collected. When the daemon ends, the job runs on within its limits. The first
   message to the next daemon is Resume, with the token that Welcome had brought; after Adopted come the Done that is
   still held and the Freed after it, which the last daemon may have had. A worker without a token ends with its daemon.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Sequence
from functools import partial

from msgspec import Struct

from pool import wire
from pool.errors import RemoteProtocolError
from pool.outcome import Outcome
from runner import body, cleanup, usage
from runner.attempt import Attempt, Printer, Stream
from runner.body import NoBodyError
from runner.channel import Frame
from runner.children import Children
from runner.code_cache import CodeCache
from runner.idle import Idle, Settings
from runner.job_mounts import reads_maps
from runner.link import Link
from runner.series import Series

#: The next child is forked beside a job that runs longer than this, and the daemon is told that the job has started. A
#: fork takes a core for milliseconds, and so a shorter job is answered first, and by Done alone.
_FORK_AFTER_S = 0.005
#: How long after an answer the child is ended and the next one forked: daemon and client have the cores until then.
_CLEAR_AFTER_S = 0.001
#: The parked child warms up when the running job has taken so long. Beside a shorter job a warm-up costs the core more
#: than the next job saves by it.
_WARM_UP_BESIDE_S = 0.5
#: How long after a descriptor was refused the end of the daemon has to be seen, which is the reason for it.
_DAEMON_ENDS_S = 5.0


class DaemonGoneError(Exception):
    """The daemon has been away for longer than `orphan_s`."""


class _Waiting(Struct):
    """A job whose child died before it came: it begins in the next one."""

    job: wire.Run
    frames: Sequence[Frame]
    file: int | None
    cancelled: bool = False


class Runner:
    """Owns the link, the children and at most one attempt."""

    def __init__(
        self, settings: Settings, link: Link, hello: wire.Hello, *, control: socket.socket, zygote_pid: int
    ) -> None:
        self._settings = settings
        self._link = link
        self._hello = hello
        self._loop = link.loop
        self._children = Children(self._loop, control, zygote_pid, changed=self._go_on, printed=self._read_output)
        self._waiting: _Waiting | None = None
        self._attempt: Attempt | None = None
        self._series: Series | None = None  # that has calls to begin, or one that runs
        self._printer: Printer | None = None
        self._idle = Idle(settings, link, self._loop, self._children)
        self._code = CodeCache()
        self._loop.timers[self._give_up] = time.monotonic() + settings.orphan_s
        link.orders |= {wire.Kill: self._cancel, wire.Stream: self._stream, wire.Adopted: self._adopted}
        link.attend(self._start, self._connection_changed)

    def serve(self) -> None:
        """Until the zygote is gone, the daemon has been away too long, or the process is killed."""
        self._loop.run()

    # ---- the daemon ----

    def _stream(self, order: wire.Stream) -> None:
        attempt = self._running(order)
        if attempt is not None and not attempt.answered and self._series is None:
            self._link.tell_started()
            self._printer = Printer(attempt, self._link.offer)
            self._print()

    def _running(self, order: wire.Kill | wire.Stream) -> Attempt | None:
        """The attempt that an order is about, if it is still there."""
        return self._attempt if self._attempt is not None and _is_about(order, self._attempt.job) else None

    def _cancel(self, order: wire.Kill) -> None:
        if (attempt := self._running(order)) is not None:
            attempt.kill(Outcome.CANCELLED)
        if self._series is not None and _is_about(order, self._series.job):
            self._series.cancelled = True
        if self._waiting is not None and _is_about(order, self._waiting.job):
            self._waiting.cancelled = True

    # ---- the link ----

    def _connection_changed(self, connected: bool) -> None:  # noqa: FBT001
        if not connected:
            self._disconnected()
            return
        if self._link.greeted:
            self._link.resume(running_s=self._running_s(), free=self._idle.free)
        else:
            self._link.greet(self._hello)
            self._loop.timers.pop(self._give_up, None)
            self._idle.announce()

    def _running_s(self) -> float | None:
        """Since the job began; None if none runs."""
        if self._waiting is not None:
            return 0.0
        if self._series is not None:
            return self._series.elapsed_s
        return self._attempt.elapsed_s if self._attempt is not None and not self._attempt.answered else None

    def _disconnected(self) -> None:
        if self._link.greeted and not self._link.token:
            raise DaemonGoneError
        self._printer = None
        self._loop.timers.pop(self._without_body, None)
        self._loop.timers.setdefault(self._give_up, time.monotonic() + self._settings.orphan_s)
        self._link.disconnected()

    def _adopted(self, _: wire.Adopted) -> None:
        self._loop.timers.pop(self._give_up, None)
        self._link.go_on()
        self._idle.go_on()

    def _give_up(self) -> None:
        """No daemon has come. A job runs to its end first, which its own limits bound."""
        if not self._idle.busy:
            raise DaemonGoneError
        self._loop.timers[self._give_up] = time.monotonic() + self._settings.orphan_s

    # ---- a job ----

    def _start(self, job: wire.Run, frames: Sequence[Frame]) -> None:
        if not self._idle.free:
            raise RemoteProtocolError("the daemon sent a job to a worker that is not free")
        file = None
        if job.mapped and (file := self._body()) is None:
            return
        self._idle.free = False
        self._link.begin(job)
        if job.apart:
            self._series = Series(job, frames)
            self._begin_next()
        elif (child := self._children.parked) is not None and child.ready:
            self._begin(job, frames, file)
        else:
            self._waiting = _Waiting(job, frames, file)
        self._loop.timers[self._link.tell_started] = time.monotonic() + _FORK_AFTER_S

    def _body(self) -> int | None:
        """A descriptor of the file that comes with a job. None: the job is dropped.

        It is sent again: by this daemon with all of its payload or, if it has ended, by the next one.
        """
        try:
            return body.fetch(self._link.directory, shown=self._settings.checked and reads_maps())
        except NoBodyError:
            self._loop.timers[self._without_body] = time.monotonic() + _DAEMON_ENDS_S
            return None

    def _without_body(self) -> None:
        if self._link.up:
            raise RemoteProtocolError("the daemon sent a job without the file that has its arguments")

    def _begin(self, job: wire.Run, frames: Sequence[Frame], file: int | None = None) -> None:
        """A job, or a call of a series, in the parked child. `file`: with its large arguments."""
        assert self._children.parked is not None, "a child is parked"
        child = self._children.busy = self._children.parked
        self._children.parked = None
        given, text = self._code.look_up(job, frames)
        attempt = self._attempt = Attempt(
            job, child, given, oom_kills=self._idle.oom_kills, meter=self._idle.meter, text=text
        )
        if file is not None:
            attempt.give(file)
            os.close(file)
        self._loop.handlers[child.sock.fileno()] = partial(self._read_answer, attempt)
        now = time.monotonic()
        if not (self._settings.single and job.epoch and self._series is None):  # another child is needed
            self._loop.timers[self._children.fork] = now + _FORK_AFTER_S
            self._loop.timers[self._children.warm_up] = now + (_WARM_UP_BESIDE_S if self._series is None else math.inf)
        self._loop.timers[self._check_limits] = min(attempt.deadline, now + usage.INTERVAL_S)

    def _begin_next(self) -> None:
        """The job that waits, or the next call of the series, once nothing is left of the last and a child waits."""
        due = self._series if self._waiting is None else self._waiting
        if due is None or self._attempt is not None or not self._children.ready:
            return
        if isinstance(due, _Waiting):
            self._waiting = None
            self._begin(due.job, due.frames, due.file)
        else:
            self._idle.renew()
            self._begin(*due.next())
        if due.cancelled and self._attempt is not None:
            self._attempt.kill(Outcome.CANCELLED)

    def _read_answer(self, attempt: Attempt) -> None:
        """Pass the child's answer on, after the last call of a chunk. The child then waits to be ended."""
        more = attempt.collect()
        if not attempt.complete:
            if not more:
                self._loop.unwatch(attempt.child.sock.fileno())
        elif (ended := attempt.answer()) is None:  # the next call of a chunk has begun
            self._loop.timers[self._check_limits] = min(attempt.deadline, self._loop.timers[self._check_limits])
        else:
            self._printer = None
            self._report(attempt, *ended)
            self._loop.unwatch(*attempt.child.descriptors)
            self._loop.timers[self._clear] = time.monotonic() + (_CLEAR_AFTER_S if self._series is None else 0.0)

    def _read_output(self, stream: Stream) -> None:
        stream.drain()
        if not stream.open:
            self._loop.unwatch(stream.fd)
        if self._printer is not None:
            self._print()

    def _print(self) -> None:
        if self._printer is not None and (due := self._printer.turn(time.monotonic())) is not None:
            self._loop.timers[self._print] = due

    def _check_limits(self) -> None:
        """The limits of a job as a whole. The kernel enforces the others, for each process."""
        attempt, now = self._attempt, time.monotonic()
        if attempt is None or not attempt.running:
            return
        if now >= attempt.deadline:
            attempt.kill(Outcome.TIMEOUT)
            return
        excess = attempt.out_of_memory() or attempt.excess()
        if excess is not None:
            attempt.kill(*excess)
        self._loop.timers[self._check_limits] = min(attempt.deadline, now + usage.INTERVAL_S)

    def _report(self, attempt: Attempt, done: wire.Done, frames: list[Frame]) -> None:
        """Send how the job has ended; for a series, once its last call has."""
        if attempt.text is not None:
            self._code.learn(attempt.text, done.outcome, attempt.compiled)
        if self._series is not None:
            self._series.add(done, frames)
            if self._series.goes_on():
                return
            (done, frames), self._series = self._series.done(), None
        self._link.send(done, frames)

    def _clear(self) -> None:
        """End the child that has answered, and fork the next one if that was not done yet."""
        if self._attempt is not None:
            self._children.replace(self._attempt.child)

    def _conclude(self) -> None:
        """Clean up after a dead child. Not while a fork is under way: the new child would be taken for a stray."""
        if self._attempt is None or self._attempt.child.exit is None or self._children.forking is not None:
            return
        attempt, end = self._attempt, self._attempt.child.exit
        self._attempt = self._printer = None
        self._loop.timers.pop(self._clear, None)
        strays = cleanup.kill_strays(self._children.pids)
        left = [strays, *map(cleanup.empty, self._settings.scratch), self._children.residue]
        residue = "; ".join(filter(None, left))
        if not attempt.answered:
            self._report(attempt, *attempt.conclude(end))
        self._children.fork_if_due()
        self._children.drop(attempt.child)
        if self._series is not None and residue:
            done, self._series = self._series.done(), None
            self._link.send(*done)
        if self._series is not None:
            self._begin_next()
            return
        self._loop.timers.pop(self._link.tell_started, None)
        self._idle.end(attempt.job.epoch, residue)

    def _go_on(self) -> None:
        """With what has waited for a child: that it is ready, or gone."""
        self._idle.announce()
        self._conclude()
        self._begin_next()
        self._idle.go_on()


def _is_about(order: wire.Kill | wire.Stream, job: wire.Run) -> bool:
    return (job.job_id, job.epoch) == (order.job_id, order.epoch)

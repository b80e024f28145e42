"""The zygote's children as the runner has them: one is parked, one has the job, and one is asked for.

    fork ▶ zygote ▶ parked ▶ ready: it is confined ▶ busy: it has a job ▶ killed ▶ zygote ▶ exit: all of it is gone

That a child has died is seen by its pidfd. What it has left is then killed, and the zygote reaps all of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from runner import fork_server, usage
from runner.attempt import Stream
from runner.channel import WARM_UP
from runner.fork_server import Ends
from runner.launch import PreloadError, ProcessDiedError
from runner.loop import Loop

_LAST_OUTPUT_BYTES = 8192
#: When to try again after the zygote could not fork because a job had taken all processes.
_FORK_AGAIN_S = 0.05
#: How often to look for dead children where the kernel has no pidfds: before Linux 5.3, and in old gVisors.
_LOOK_S = 0.005


class Exit(Struct, frozen=True):
    """How a child ended, as the zygote's wait4 reported it."""

    id: int
    status: int
    cpu_s: float
    max_rss_bytes: int

    @classmethod
    def unpack(cls, content: bytes) -> Exit:
        """Of the zygote's message."""
        number, status, user_s, user_us, kernel_s, kernel_us, peak_kib = fork_server.EXITED_BODY.unpack(content)
        return cls(number, status, user_s + kernel_s + (user_us + kernel_us) / 1e6, peak_kib * 1024)


class Child(Struct):
    """A forked child; it is parked once `ready`. It owns its descriptors."""

    id: int  #: the zygote's name for it
    sock: socket.socket
    out: Stream
    err: Stream
    pidfd: int | None = None  #: None where the kernel has no pidfds; then `id` is its pid here too
    init: int | None = None  #: pidfd of process 1 of its pid namespace, if it has one
    init_id: int = 0  #: the zygote's name for that
    ready: bool = False  #: it is confined and alive
    died_ready: bool = False  #: it was ready, and has died
    warm: bool = False  #: it was told to warm up
    oom_kills: int = 0  #: of the worker's cgroup, when it was forked
    pids: tuple[int, ...] = ()  #: as the runner sees them: its own and its init's
    reaped: bool = False  #: whether the zygote was told to reap it
    exit: Exit | None = None  #: once it is gone, with all that it had started
    descriptors: tuple[int, ...] = ()  #: what it writes to: channel, stdout, stderr

    def __post_init__(self) -> None:
        os.set_blocking(self.out.fd, False)
        os.set_blocking(self.err.fd, False)
        self.descriptors = (self.sock.fileno(), self.out.fd, self.err.fd)
        self.pids = tuple(_pid_of(fd) for fd in (self.pidfd, self.init) if fd is not None) or (self.id,)

    def kill(self) -> None:
        """Killing the init kills every process that the job has started."""
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd is None:
                os.kill(self.id, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(self.init or self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        self.sock.close()
        for fd in (self.out.fd, self.err.fd, self.pidfd, self.init):
            if fd is not None:
                os.close(fd)


def _pid_of(pidfd: int) -> int:
    """The pid in this namespace of a process that was forked in another one; -1 once it is gone."""
    return int(usage.read_file(f"/proc/self/fdinfo/{pidfd}").partition(b"\nPid:")[2].split(None, 1)[0])


class Children:
    """Owns the zygote's control socket. Calls `changed` after each message of the zygote, and when a child is ready;
    `printed` when a child has printed something.
    """

    def __init__(
        self,
        loop: Loop,
        control: socket.socket,
        zygote_pid: int,
        *,
        changed: Callable[[], object],
        printed: Callable[[Stream], object],
    ) -> None:
        self.zygote_pid = zygote_pid
        self.parked: Child | None = None  #: for the next job
        self.busy: Child | None = None  #: has a job, or had one and is not gone yet
        self.forking: Ends | None = None  #: of the child that the zygote is asked for
        self.residue = ""  #: what a job has done to the parked child
        self.preload_ms = 0.0
        self.isolation, self.missing = "", [""]
        self._loop = loop
        self._control = control
        self._changed = changed
        self._printed = printed
        self._replaced = False  # whether a parked child that the kernel killed was replaced since a job ended last
        loop.watch(self._receive, control.fileno())

    @property
    def ready(self) -> bool:
        """Whether the next job can begin."""
        return self.parked is not None and self.parked.ready

    @property
    def pids(self) -> set[int]:
        """Of the zygote and the parked child."""
        return {self.zygote_pid, *(self.parked.pids if self.parked is not None else ())}

    def fork(self) -> None:
        """Ask for the next one. Called once for each job: by a timer beside a long one, or after a short one."""
        try:
            self.forking = fork_server.request(self._control, beside_job=self.busy is not None)
        except OSError as error:
            if error.errno not in fork_server.EXHAUSTED:
                raise
            self._loop.timers[self.fork] = time.monotonic() + _FORK_AGAIN_S

    def warm_up(self) -> None:
        """Have the parked child warm up, if it was not told to before. Called by a timer."""
        if self.parked is not None and not self.parked.warm:
            self.parked.warm = True
            with contextlib.suppress(OSError):  # it has died, which its pidfd tells
                self.parked.sock.send(WARM_UP)

    def fork_if_due(self) -> None:
        if self._loop.timers.pop(self.fork, None) is not None:
            self.fork()

    def replace(self, child: Child) -> None:
        """End one that has answered. The next one is forked while this one's memory is freed, if that was not done."""
        child.kill()
        self.fork_if_due()
        self._reap(child)

    def _end(self, child: Child) -> None:
        """One that has died: end what it has left."""
        child.ready, child.died_ready = False, child.ready
        child.kill()
        self._reap(child)

    def _reap(self, child: Child) -> None:
        """The zygote reports its exit once all that it had started is gone."""
        if child.pidfd is not None and not child.reaped:
            child.reaped = True
            self._loop.unwatch(child.pidfd)
            fork_server.reap(self._control, child.id, child.init_id)

    def drop(self, child: Child) -> None:
        """One that is gone."""
        self._loop.unwatch(*child.descriptors, child.pidfd)
        child.close()
        if child is self.busy:
            self.busy, self._replaced = None, False

    # ---- the zygote ----

    def _receive(self) -> None:
        message, fds, _, _ = socket.recv_fds(self._control, 4096, 2)
        kind, content = message[: fork_server.KIND_BYTES], message[fork_server.KIND_BYTES :]
        if kind == fork_server.CHILD and self.forking is not None:
            self._park(content, fds, *self.forking)
        elif kind == fork_server.NO_CHILD and self.forking is not None:
            self.forking.close()
            self.forking, self._loop.timers[self.fork] = None, time.monotonic() + _FORK_AGAIN_S
        elif kind == fork_server.EXITED:
            self._exited(Exit.unpack(content))
        elif kind == fork_server.LOADED:
            (self.preload_ms,) = fork_server.LOADED_BODY.unpack_from(content)
            self.isolation, *self.missing = content[fork_server.LOADED_BODY.size :].decode().splitlines()
            self.fork()
        elif kind == fork_server.FAILED:
            raise PreloadError(content.decode())
        else:
            raise ProcessDiedError(
                "the zygote has died; a preloaded module may have crashed it, or a job has killed it"
            )
        self._changed()

    def _park(self, content: bytes, fds: list[int], sock: socket.socket, out: int, err: int) -> None:
        """A child was forked; it gets ready by itself. Its channel and streams are watched until it is dropped."""
        number, init_id = fork_server.CHILD_BODY.unpack(content)
        pidfd, init, *_ = *fds, None, None
        streams = Stream("stdout", out, _LAST_OUTPUT_BYTES), Stream("stderr", err, _LAST_OUTPUT_BYTES)
        child = self.parked = Child(number, sock, *streams, pidfd, init, init_id, oom_kills=usage.oom_kills())
        self.forking = None
        self._loop.watch(partial(self._receive_from_parked, child), sock.fileno())
        for stream in streams:
            self._loop.watch(partial(self._printed, stream), stream.fd)
        if pidfd is not None:
            self._loop.watch(partial(self._end, child), pidfd)
        else:
            self._loop.timers[self._look_for_dead] = time.monotonic() + _LOOK_S

    def _receive_from_parked(self, child: Child) -> None:
        said = b""  # it has died
        with contextlib.suppress(ConnectionResetError):  # before it had read that it should warm up
            said = child.sock.recv(1)
        if said:
            child.ready = True
            self._changed()
        else:
            self._loop.unwatch(child.sock.fileno())

    def _look_for_dead(self) -> None:
        alive = [child for child in (self.parked, self.busy) if child is not None]
        for child in alive:
            fork_server.reap(self._control, child.id, child.init_id, wait=False)
        if alive:
            self._loop.timers[self._look_for_dead] = time.monotonic() + _LOOK_S

    def _exited(self, end: Exit) -> None:
        if self.busy is not None and self.busy.id == end.id:
            self.busy.exit = end
        elif self.parked is not None and self.parked.id == end.id:
            self._parked_exited(self.parked, end)

    def _parked_exited(self, parked: Child, end: Exit) -> None:
        """The runner never kills a parked child. If a job did it, the worker must not be used for another one.

        Without a job somebody else has killed it: the host for its memory, or an operator. The next one takes its
        place, since a Run may be on its way. After the second time the worker ends, as each one could die.

        When a job takes all memory of the worker, the kernel kills it and, before its memory is free, perhaps the
        parked child. The first one that is lost in this way beside a job is replaced, and the worker goes on.
        """
        if end.status == signal.SIGKILL and usage.oom_kills() > parked.oom_kills and not self._replaced:
            self._replaced = True
            self._park_another(parked)
            return
        if self.busy is None and (self.residue or not (parked.ready or parked.died_ready)):
            parked.err.drain(1)
            last = parked.err.kept.decode(errors="replace").strip()
            raise ProcessDiedError(f"a child died while it got ready (status {end.status}): {last[-2000:]}")
        self.residue = f"parked: the next child died (status {end.status})"
        self._park_another(parked)

    def _park_another(self, parked: Child) -> None:
        self.drop(parked)
        self.parked = None
        self.fork()

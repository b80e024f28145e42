"""Forks children for the runner and reaps them: the zygote, once it has loaded.

Talk with the runner, over a SOCK_SEQPACKET pair, one byte of kind and a fixed struct or text:

    runner ▶ zygote    F                          fork a child
    zygote ▶ runner    L  f64 preload_ms, text    loaded, ready to fork; level of isolation and missing parts, by lines
                       C  i32 id + descriptors: channel, stdout, stderr, pidfd, init   a child was forked
                       N                          none could be forked now
                       X  i32 id, i32 status, f64 cpu_s, u64 max_rss_bytes             a child and all of it is gone
                       E  text                    cannot load; the zygote exits after this

A child's id is its pid as the zygote sees it. `init` is a pidfd of process 1 of the child's pid namespace: killing it
kills all that the job has started. Where children have no namespace of their own there is none.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import struct
from typing import NamedTuple

from runner import child
from runner.confine import Nest

FORK = b"F"
LOADED, CHILD, NO_CHILD, EXITED, FAILED = b"L", b"C", b"N", b"X", b"E"
LOADED_BODY = struct.Struct("!d")
CHILD_BODY = struct.Struct("!i")
EXITED_BODY = struct.Struct("!iidQ")
#: What a running job may have taken all of, since it is counted by user or by worker: processes, memory, namespaces,
#: descriptors in flight between processes. It comes back when the job ends.
_TAKEN = frozenset({errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE})
#: How often to look for dead children where the kernel has no pidfds: before Linux 5.3, and in old gVisors.
_LOOK_MS = 5


class Brood(NamedTuple):
    """A child and, where it has one, the init of its namespace."""

    pid: int
    init: int = 0
    init_fd: int = -1


class Nursery:
    """Forks and reaps. `_broods` is by the descriptor that tells of a child's end."""

    def __init__(self, control: socket.socket, cradle: child.Cradle) -> None:
        self._control = control
        self._cradle = cradle
        self._nest = Nest() if cradle.confinement.nested else None
        self._broods: dict[int, Brood] = {}
        self._unwatched: list[Brood] = []
        self._poller = select.poll()
        self._poller.register(control, select.POLLIN)

    def serve(self) -> None:
        """Until the runner closes its end."""
        while True:
            for fd, _ in self._poller.poll(_LOOK_MS if self._unwatched else None):
                if fd != self._control.fileno():
                    self._reap(fd)
                elif self._control.recv(16) == FORK:
                    self._fork()
                else:
                    return
            self._look_for_dead()

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        try:
            brood = self._bear(theirs, out_write, err_write)
            self._hand_over(brood, ours.fileno(), out_read, err_read)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            self._control.send(NO_CHILD)
        finally:
            for sock in (ours, theirs):
                sock.close()
            for fd in (out_read, out_write, err_read, err_write):
                os.close(fd)

    def _hand_over(self, brood: Brood, *ends: int) -> None:
        """To the runner, with all that it needs of it. A child that cannot be handed over has no life ahead."""
        handed = [*ends, *self._attend(brood)]
        try:
            socket.send_fds(self._control, [CHILD + CHILD_BODY.pack(brood.pid)], handed)
        except OSError:
            os.kill(brood.pid, signal.SIGKILL)
            self._forget(brood)
            raise

    def _bear(self, channel: socket.socket, out: int, err: int) -> Brood:
        """Fork; in a pid namespace with an init of its own where that is granted."""
        if self._nest is None:
            return Brood(self._fork_child(channel, out, err))
        init = self._nest.open()
        init_fd = os.pidfd_open(init)
        try:
            return Brood(self._fork_child(channel, out, err), init, init_fd)
        except OSError:
            _end(init, init_fd)
            raise
        finally:
            self._nest.leave()

    def _fork_child(self, channel: socket.socket, out: int, err: int) -> int:
        pid = os.fork()
        if pid == 0:
            _become_child(channel, out, err)
            child.live(channel, self._cradle)
        return pid

    def _attend(self, brood: Brood) -> list[int]:
        """Watch for its end; the descriptors by which the runner can kill it."""
        try:
            pidfd = os.pidfd_open(brood.pid)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            self._unwatched.append(brood)
            return []
        self._broods[pidfd] = brood
        self._poller.register(pidfd, select.POLLIN)
        return [pidfd, brood.init_fd] if brood.init else [pidfd]

    def _forget(self, brood: Brood) -> None:
        """One that is killed and that the runner has not heard of."""
        if brood in self._unwatched:
            self._unwatched.remove(brood)
        for pidfd in [pidfd for pidfd, each in self._broods.items() if each == brood]:
            del self._broods[pidfd]
            self._poller.unregister(pidfd)
            os.close(pidfd)
        os.waitpid(brood.pid, 0)
        if brood.init:
            _end(brood.init, brood.init_fd)

    def _look_for_dead(self) -> None:
        """Where the kernel has no pidfds."""
        for brood in list(self._unwatched):
            pid, status, usage = os.wait4(brood.pid, os.WNOHANG)
            if pid:
                self._unwatched.remove(brood)
                self._tell(brood, status, usage)

    def _reap(self, pidfd: int) -> None:
        brood = self._broods.pop(pidfd)
        self._poller.unregister(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(brood.pid, 0)
        self._tell(brood, status, usage)

    def _tell(self, brood: Brood, status: int, usage: resource.struct_rusage) -> None:
        """A child is dead: what it started goes too, and only then is it told."""
        if brood.init:
            _end(brood.init, brood.init_fd)
        body = EXITED_BODY.pack(brood.pid, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
        self._control.send(EXITED + body)


def _end(init: int, init_fd: int) -> None:
    """Kill an init and wait: the kernel lets it go when the last process of its namespace is gone."""
    signal.pidfd_send_signal(init_fd, signal.SIGKILL)
    os.close(init_fd)
    os.waitpid(init, 0)


def _become_child(channel: socket.socket, out: int, err: int) -> None:
    """Standard streams, the channel, and no other descriptor."""
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    kept = channel.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    signal.set_wakeup_fd(-1)

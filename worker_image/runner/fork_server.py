"""The fork server: the zygote's loop, which forks children for the runner and reaps them.

Messages over a SOCK_SEQPACKET pair, one byte of kind and a fixed struct or text:

    runner ▶ zygote    F + descriptors: channel, stdout, stderr                     fork a child with these
    zygote ▶ runner    L  f64 preload_ms, text    loaded, ready to fork; level of isolation and missing parts, by lines
                       C  i32 id + descriptors: pidfd, init                            a child was forked
                       N                          no child could be forked now
                       X  i32 id, i32 status, f64 cpu_s, u64 max_rss_bytes             a child and all of it is gone
                       E  text                    cannot load; the zygote exits after this

The runner makes the descriptors, because what the zygote writes to after a fork is copied, and the runner never forks.
A child's id is its pid as the zygote sees it. `init` is a pidfd of process 1 of the child's pid namespace; killing that
process kills everything that the job has started. Without a pid namespace there is no init.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:  # the runner imports this module too, and needs nothing of a child
    from runner.confinement import PidNamespaces

FORK = b"F"
LOADED, CHILD, NO_CHILD, EXITED, FAILED = b"L", b"C", b"N", b"X", b"E"
LOADED_BODY = struct.Struct("!d")
CHILD_BODY = struct.Struct("!i")
EXITED_BODY = struct.Struct("!iidQ")
_ENDS = struct.Struct("=3i")
_ROOM_FOR_ENDS = socket.CMSG_SPACE(_ENDS.size)
#: A fork fails with these when a running job has taken all processes, memory, namespaces or descriptors. It succeeds
#: once the job has ended.
EXHAUSTED = frozenset({errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE})
#: How often to look for dead children where the kernel has no pidfds: before Linux 5.3, and in old gVisors.
_LOOK_MS = 5


class Ends(NamedTuple):
    """Ends of a child's channel, stdout and stderr."""

    sock: socket.socket
    out: int
    err: int

    def close(self) -> None:
        self.sock.close()
        os.close(self.out)
        os.close(self.err)


def request(control: socket.socket) -> Ends:
    """Called by the runner: ask for a child. Raises OSError; one of EXHAUSTED while a job has taken all there is."""
    sock, sock_end = socket.socketpair()
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    ends = Ends(sock, out, err)
    try:
        socket.send_fds(control, [FORK], [sock_end.fileno(), out_end, err_end])
    except OSError:
        ends.close()
        raise
    finally:
        Ends(sock_end, out_end, err_end).close()
    return ends


class Forked(NamedTuple):
    """A child and, if it has a pid namespace, the init of it."""

    pid: int
    init: int = 0
    init_fd: int = -1


class ForkServer:
    """`_children` is by the pidfd that becomes readable when the child ends."""

    def __init__(
        self,
        control: socket.socket,
        begin: Callable[[int, int, int], NoReturn],
        namespaces: PidNamespaces | None,
        fork: Callable[[], int],
    ) -> None:
        """`begin`: the whole life of a child, with its channel, stdout and stderr. `namespaces`: None where refused."""
        self._control = control
        self._begin = begin
        self._fork = fork
        self._namespaces = namespaces
        self._children: dict[int, Forked] = {}
        self._without_pidfd: list[Forked] = []
        self._poller = select.poll()
        self._poller.register(control, select.POLLIN)

    def serve(self) -> None:
        """Until the runner closes its end."""
        while True:
            for fd, _ in self._poller.poll(_LOOK_MS if self._without_pidfd else None):
                if fd != self._control.fileno():
                    self._reap(fd)
                elif not self._obey():
                    return
            self._look_for_dead()

    def _obey(self) -> bool:
        """Fork a child, if the runner asks for one. False: it has closed its end."""
        message, ancillary, _, _ = self._control.recvmsg(1, _ROOM_FOR_ENDS)
        if message != FORK:
            return False
        ends = _ENDS.unpack(ancillary[0][2])
        try:
            self._hand_over(self._fork_in_namespace(ends))
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self._control.send(NO_CHILD)
        finally:
            for fd in ends:
                os.close(fd)
        return True

    def _fork_in_namespace(self, ends: tuple[int, ...]) -> Forked:
        """In a pid namespace with an init of its own, where the host grants that."""
        if self._namespaces is None:
            return Forked(self._fork_child(ends))
        init = self._namespaces.open()
        init_fd = os.pidfd_open(init)
        try:
            return Forked(self._fork_child(ends), init, init_fd)
        except OSError:
            _end(init, init_fd)
            raise
        finally:
            self._namespaces.leave()

    def _fork_child(self, ends: tuple[int, ...]) -> int:
        pid = self._fork()
        if pid == 0:
            self._begin(*ends)
        return pid

    def _hand_over(self, forked: Forked) -> None:
        """Send the runner the descriptors of a child. A child that cannot be handed over is killed."""
        handed = self._watch(forked)
        try:
            socket.send_fds(self._control, [CHILD + CHILD_BODY.pack(forked.pid)], handed)
        except OSError:
            os.kill(forked.pid, signal.SIGKILL)
            self._forget(forked)
            raise

    def _watch(self, forked: Forked) -> list[int]:
        """Watch for its end. Returns the descriptors by which the runner can kill it."""
        try:
            pidfd = os.pidfd_open(forked.pid)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            self._without_pidfd.append(forked)
            return []
        self._children[pidfd] = forked
        self._poller.register(pidfd, select.POLLIN)
        return [pidfd, forked.init_fd] if forked.init else [pidfd]

    def _forget(self, forked: Forked) -> None:
        """Reap a killed child that the runner was not told about."""
        if forked in self._without_pidfd:
            self._without_pidfd.remove(forked)
        for pidfd in [pidfd for pidfd, each in self._children.items() if each == forked]:
            self._unwatch(pidfd)
        os.waitpid(forked.pid, 0)
        if forked.init:
            _end(forked.init, forked.init_fd)

    def _unwatch(self, pidfd: int) -> Forked:
        self._poller.unregister(pidfd)
        os.close(pidfd)
        return self._children.pop(pidfd)

    def _look_for_dead(self) -> None:
        """Where the kernel has no pidfds."""
        for forked in list(self._without_pidfd):
            pid, status, used = os.wait4(forked.pid, os.WNOHANG)
            if pid:
                self._without_pidfd.remove(forked)
                self._report(forked, status, used)

    def _reap(self, pidfd: int) -> None:
        forked = self._unwatch(pidfd)
        _, status, used = os.wait4(forked.pid, 0)
        self._report(forked, status, used)

    def _report(self, forked: Forked, status: int, used: resource.struct_rusage) -> None:
        """Tell the runner that a child has ended, after everything that it had started is gone too."""
        if forked.init:
            _end(forked.init, forked.init_fd)
        body = EXITED_BODY.pack(forked.pid, status, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
        self._control.send(EXITED + body)


def _end(init: int, init_fd: int) -> None:
    """Kill an init and wait for it. It ends after the last process of its namespace."""
    signal.pidfd_send_signal(init_fd, signal.SIGKILL)
    os.close(init_fd)
    os.waitpid(init, 0)

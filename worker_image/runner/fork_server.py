"""The fork server: the zygote's loop, which forks children for the runner and reaps them.

Messages over a SOCK_SEQPACKET pair, a word of four letters or a number first, then a fixed struct or text:

    runner ▶ zygote  1     + descriptors: channel, stdout, stderr      fork a child with these
                     0     i32 id, i32 init, i32 options of wait4      reap a child that has ended or was killed
    zygote ▶ runner  LOAD  f64 preload_ms, text                        ready; isolation, and missing parts, by lines
                     CHLD  i32 id, i32 init + descriptors: pidfd, init  a child was forked
                     NONE                                              no child could be forked now
                     EXIT  i32 id, i32 status, struct rusage           a child and all of it is gone
                     FAIL  text                                        cannot load; the zygote exits after this

The loop is one table of calls (call_table.py). A page that the zygote writes to after a fork is copied, a large one is
split, and Python would write to 140. So the zygote keeps nothing of its children: the runner has the pidfds.

A child's id is its pid as the zygote sees it. `init` is process 1 of the child's pid namespace; killing that process
kills everything that the job has started. Without a pid namespace there is no init.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import mmap
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from runner import kernel
from runner.call_table import CallTable
from runner.kernel import Step

if TYPE_CHECKING:  # the runner imports this module too, and needs nothing of a child
    from runner.confinement import PidNamespaces

_FORK, _REAP = 1, 0
#: The label of the step that ends the process, because the runner has closed its end.
CLOSED = "closed"
_ORDER = struct.Struct("=4i")
LOADED, CHILD, NO_CHILD, EXITED, FAILED = b"LOAD", b"CHLD", b"NONE", b"EXIT", b"FAIL"
KIND_BYTES = 4
LOADED_BODY = struct.Struct("=d")
CHILD_BODY = struct.Struct("=2i")
#: Of struct rusage: seconds and microseconds in user and in kernel mode, and the largest resident set in KiB.
EXITED_BODY = struct.Struct("=2i4x5q104x")
_INT_BYTES = 4
#: Arguments are read as numbers of 64 bits, also the last one in a buffer.
_SPARE_BYTES = 8
_CLOSED_ON_EXEC = 0x40000000  #: MSG_CMSG_CLOEXEC
#: A fork fails with these when a running job has taken all processes, memory, namespaces or descriptors. It succeeds
#: once the job has ended.
EXHAUSTED = frozenset(
    {errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE, errno.ENOBUFS}
)


#: A pipe's, by pipe(7). The kernel makes smaller ones for a user whose pipes have more than its bound together.
_PIPE_BYTES = 16 * mmap.PAGESIZE


class Ends(NamedTuple):
    """Ends of a child's channel, stdout and stderr."""

    sock: socket.socket
    out: int
    err: int

    def close(self) -> None:
        self.sock.close()
        os.close(self.out)
        os.close(self.err)


def request(control: socket.socket, *, beside_job: bool = False) -> Ends:
    """Called by the runner: ask for a child. Raises OSError; one of EXHAUSTED while a job has taken all there is.

    `beside_job`: whether a job runs. Its pipes would make those of the next job small, so these are made later.
    """
    sock, sock_end = socket.socketpair()
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    ends = Ends(sock, out, err)
    try:
        if beside_job:
            _require_whole(out, err)
        socket.send_fds(control, [_ORDER.pack(_FORK, 0, 0, 0)], [sock_end.fileno(), out_end, err_end])
    except OSError:
        ends.close()
        raise
    finally:
        Ends(sock_end, out_end, err_end).close()
    return ends


def _require_whole(*pipes: int) -> None:
    """Raises OSError for pipes that are small."""
    if min(fcntl.fcntl(each, fcntl.F_GETPIPE_SZ) for each in pipes) < _PIPE_BYTES:
        raise OSError(errno.ENFILE, "a job has too many pipes")


def reap(control: socket.socket, child: int, init: int, *, wait: bool = True) -> None:
    """Called by the runner once a child has ended, or was killed with its init. `wait`: False if it may still run."""
    control.send(_ORDER.pack(_REAP, child, init, 0 if wait else os.WNOHANG))


class _Header(ctypes.Structure):
    """struct msghdr of libc, on machines of 64 bits."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("address_bytes", ctypes.c_size_t),
        ("buffers", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("beside", ctypes.c_void_p),
        ("beside_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_size_t),
    )


class _Message:
    """Numbers in one buffer, descriptors beside them."""

    def __init__(self, content: bytes, descriptors: int) -> None:
        size = _INT_BYTES * descriptors
        head = struct.pack("=QII", socket.CMSG_LEN(size), socket.SOL_SOCKET, socket.SCM_RIGHTS)
        self.content = kernel.room(content + bytes(_SPARE_BYTES))
        self._rights = kernel.room(head.ljust(socket.CMSG_SPACE(size) + _SPARE_BYTES, b"\0"))
        self._buffer = (ctypes.c_size_t * 2)(ctypes.addressof(self.content), len(content))
        #: Is changed by recvmsg().
        self.room = socket.CMSG_SPACE(size) if descriptors else 0
        buffer, beside = ctypes.addressof(self._buffer), ctypes.addressof(self._rights)
        self._header = _Header.from_buffer(kernel.room(bytes(_Header(None, 0, buffer, 1, beside, self.room, 0))))

    def number(self, place: int) -> ctypes.c_int:
        """Of the content, which has numbers of 32 bits."""
        return ctypes.c_int.from_buffer(self.content, _INT_BYTES * place)

    def address_of(self, place: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(ctypes.addressof(self.content) + _INT_BYTES * place)

    def descriptor(self, place: int) -> ctypes.c_int:
        return ctypes.c_int.from_buffer(self._rights, socket.CMSG_LEN(0) + _INT_BYTES * place)

    def making_room(self) -> Step:
        return kernel.setting(ctypes.c_int.from_buffer(self._header, _Header.beside_bytes.offset), self.room)

    def passing(self, name: str, fd: int, flags: int = 0) -> Step:
        """`name`: sendmsg or recvmsg."""
        return Step(getattr(kernel.libc, name), (fd, ctypes.c_void_p(ctypes.addressof(self._header)), flags), name)


class _Part(NamedTuple):
    """A step of a fork, and how it is undone when a later one fails."""

    step: Step
    undo: Callable[[], object] = int


class ForkServer:
    """Prepared before the first fork. The messages lie in buffers that the calls refer to."""

    def __init__(self, control: socket.socket, namespaces: PidNamespaces | None, fork: Callable[[], int]) -> None:
        """`namespaces`: None where they are refused. `fork`: kernel.fork or os.fork."""
        self._control = control
        self._namespaces = namespaces
        self._order = _Message(bytes(_ORDER.size), 3)
        self.ends = [self._order.descriptor(place) for place in range(3)]  #: of the child: channel, stdout, stderr
        pidfds = _can_open_pidfds() * (1 if namespaces is None else 2)
        self._child = _Message(CHILD + bytes(CHILD_BODY.size), pidfds)
        self._exited = _Message(EXITED + bytes(EXITED_BODY.size), 0)
        self._pid, self._init = self._child.number(1), self._child.number(2)
        self._pid.value = -1
        self._pidfds = [self._child.descriptor(place) for place in range(pidfds)]
        self._parts = [*self._receiving(), *self._opening(), *self._forking(fork), *self._handing_over()]

    def serve(self, parking: Sequence[Step]) -> None:
        """Until the runner closes its end; then the process ends. Returns in each child, after the steps of `parking`.

        Raises OSError, in a child or in the zygote.
        """
        self._table = self._all_calls(parking)
        gc.freeze()  # no child looks at the table when it looks for objects of its job
        while self._pid.value:
            try:
                self._table.perform()
            except ChildProcessError:  # it was reaped already
                continue
            except OSError as error:
                if not self._pid.value or error.errno not in EXHAUSTED:
                    raise
                self._give_up(self._table.stopped_at)

    def _all_calls(self, parking: Sequence[Step]) -> CallTable:
        """Kept, so that no child frees them when `serve` returns: that would write to a hundred pages."""
        done = [kernel.closing(each) for each in (*self._pidfds, *self.ends)]
        steps = [part.step for part in self._parts]
        first, *others = parking
        return CallTable(
            [*steps, *done, _jumping("receive"), *self._reaping(), *_ending(), first._replace(label="child"), *others]
        )

    def _give_up(self, stopped_at: int) -> None:
        for part in reversed(self._parts[:stopped_at]):
            part.undo()
        self._control.send(NO_CHILD)

    # ---- the steps ----

    def _receiving(self) -> list[_Part]:
        receiving = self._order.passing("recvmsg", self._control.fileno(), _CLOSED_ON_EXEC)
        return [
            _Part(self._order.making_room()._replace(label="receive")),
            _Part(receiving._replace(if_zero=CLOSED), self._close_ends),
            _Part(Step(kernel.libc.abs, (self._order.number(0),), "abs", if_zero="reap")),
        ]

    def _opening(self) -> list[_Part]:
        """A pid namespace, where the host grants one, with an init of its own."""
        if self._namespaces is None:
            return []
        blocking, cloning, unblocking = self._namespaces.making_init(self._init)
        return [
            _Part(self._namespaces.making, self._namespaces.leave),
            _Part(blocking, lambda: kernel.perform([unblocking])),
            _Part(cloning, lambda: _end(self._init.value)),
            _Part(unblocking),
            _opening_pidfd(self._init, self._pidfds[1]),
        ]

    def _forking(self, fork: Callable[[], int]) -> list[_Part]:
        forking = Step(fork, (), "fork", self._pid, if_zero="child")
        leaving = [] if self._namespaces is None else [_Part(self._namespaces.leaving)]
        return [_Part(forking, lambda: _end(self._pid.value)), *leaving]

    def _handing_over(self) -> list[_Part]:
        opening = [_opening_pidfd(self._pid, self._pidfds[0])] if self._pidfds else []
        return [*opening, _Part(self._child.passing("sendmsg", self._control.fileno()))]

    def _reaping(self) -> list[Step]:
        """A child, then its init, which ends after all processes of its namespace."""
        child, init, options = (self._order.number(place) for place in (1, 2, 3))
        status, usage = self._exited.address_of(2), self._exited.address_of(4)
        waiting = Step(kernel.libc.wait4, (child, status, options, usage), "wait4", self._exited.number(1))
        ending = [] if self._namespaces is None else [Step(kernel.libc.wait4, (init, None, 0, None), "wait4")]
        telling = self._exited.passing("sendmsg", self._control.fileno())
        return [waiting._replace(label="reap", if_zero="receive"), *ending, telling, _jumping("receive")]

    def _close_ends(self) -> None:
        for end in self.ends:
            os.close(end.value)


def _jumping(label: str) -> Step:
    """To the step with this label: abs(0) returns 0."""
    return Step(kernel.libc.abs, (0,), "abs", if_zero=label)


def _ending() -> list[Step]:
    return [Step(kernel.libc._exit, (0,), "exit", label=CLOSED)]  # noqa: SLF001


def _opening_pidfd(pid: ctypes.c_int, fd: ctypes.c_int) -> _Part:
    return _Part(kernel.calling("pidfd_open", pid, 0, result=fd), lambda: os.close(fd.value))


def _can_open_pidfds() -> bool:
    """False before Linux 5.3, and in old gVisors."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return False
    return True


def _end(pid: int) -> None:
    """A process that the runner was not told about."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

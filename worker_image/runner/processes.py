"""Lets multiprocessing work in a job, which has no sockets and, in most pools, may not start programs.

The resource tracker has nothing to do, because a job's shared memory goes with its scratch space. Processes are forked,
whatever start method was chosen. What needs a new interpreter is refused at once, with the cause.

Managers, listeners and clients work among the processes of a job:

    start(): a pair of sockets, the endpoint ──fork──▶ the server's process: Listener.accept() waits at its inner end
    Client(address): makes a pipe and sends one end of it through the outer end of the endpoint

Forks inherit endpoints. A few are made before the first fork and taken by managers later, so that processes reach also
a manager that is started after them. New interpreters have none.

Executed once, when multiprocessing is imported. It imports nothing of the runner (see without_programs.py).
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Hashable
from itertools import count
from multiprocessing import connection, get_context, managers, resource_tracker, util
from multiprocessing.context import ForkServerProcess, SpawnProcess, get_spawning_popen
from multiprocessing.popen_fork import Popen as ForkPopen
from multiprocessing.popen_spawn_posix import Popen as SpawnPopen
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, NoReturn, Self

_NO_PROGRAMS = (
    "jobs of this pool may not start programs (allow: [subprocess] in the template); use threads, or multiprocessing "
    "with its start method fork"
)
_INSTEAD = "Queue, Pipe, Value, Array and shared_memory of multiprocessing"
_NO_SERVER = (
    "no manager or listener was started at {address!r} before this process was forked, and jobs have no sockets to "
    f"reach another; start it first, or use {_INSTEAD}"
)
_NOT_FORKED = (
    f"a manager is reached by forked processes only, for jobs have no sockets; use the start method fork, or {_INSTEAD}"
)


#: The number of managers that processes which are older than them can reach.
_ENDPOINTS = 4


class _Endpoint(NamedTuple):
    inner: socket.socket
    outer: socket.socket


_endpoints: dict[Hashable, _Endpoint] = {}
_numbers = count(1)


class _Job:
    """What the processes of a job share: the names of endpoints that no manager has taken, as messages in a pair."""

    free: tuple[socket.socket, socket.socket] | None = None
    has_interpreters = False  #: whether it has started processes that are no forks


def set_up(*, programs: bool) -> None:
    """`programs`: whether jobs may start some."""
    process: Any = BaseProcess
    process.kill = _kill
    _set_up_managers()
    if not programs:
        _set_up_forking()


def _set_up_managers() -> None:
    """Replace the ends of managers' connections. Their protocol stays as it is."""
    kinds: Any = managers
    kinds.listener_client = dict.fromkeys(kinds.listener_client, (Listener, connect))
    kinds.BaseProxy.__reduce__ = _reducing(kinds.BaseProxy.__reduce__)
    kinds.BaseManager.start = _starting(kinds.BaseManager.start)
    ends: Any = connection
    ends.Listener, ends.Client = Listener, connect
    process: Any = BaseProcess
    process.start = _after_endpoints(process.start)
    for kind in (SpawnProcess, ForkServerProcess):  # the server of the latter would have a socket
        spawned: Any = kind
        spawned._Popen = staticmethod(_spawn)  # noqa: SLF001


class Listener:
    """A multiprocessing.connection.Listener whose connections come through an endpoint."""

    def __init__(
        self, address: Hashable = None, family: object = None, backlog: object = 1, authkey: bytes | None = None
    ) -> None:
        del family, backlog
        self.address, self._authkey = _endpoint(address), authkey
        self.last_accepted = None

    def accept(self) -> connection.Connection:
        _, (descriptor,), *_ = socket.recv_fds(_endpoints[self.address].inner, 1, 1)
        accepted: connection.Connection = connection.Connection(descriptor)
        if self._authkey is not None:
            connection.deliver_challenge(accepted, self._authkey)
            connection.answer_challenge(accepted, self._authkey)
        return accepted

    def close(self) -> None:
        """Nobody reaches it any more from this process, nor from those that are forked later."""
        for end in _endpoints.pop(self.address, ()):
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(address: Hashable, family: object = None, authkey: bytes | None = None) -> connection.Connection:
    """A connection to the listener at this address. Raises PermissionError if there is none."""
    del family
    if address not in _endpoints:
        raise PermissionError(errno.EPERM, _NO_SERVER.format(address=address))
    ours, theirs = connection.Pipe()
    socket.send_fds(_endpoints[address].outer, [b"c"], [theirs.fileno()])
    theirs.close()
    if authkey is not None:
        connection.answer_challenge(ours, authkey)
        connection.deliver_challenge(ours, authkey)
    return ours


def _endpoint(address: Hashable) -> Hashable:
    """The address of an endpoint, which is made if it is not there."""
    address = _free_endpoint() if address is None else address
    if address not in _endpoints:
        _endpoints[address] = _Endpoint(*_pair())
    return address


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _free_endpoint() -> str:
    try:
        return _make_endpoints()[0].recv(99, socket.MSG_DONTWAIT).decode()
    except BlockingIOError:
        return f"listener-{os.getpid()}-{next(_numbers)}"


def _make_endpoints() -> tuple[socket.socket, socket.socket]:
    if _Job.free is None:
        _Job.free = _pair()
        for number in range(_ENDPOINTS):
            _Job.free[1].send(_endpoint(f"listener-{number}").encode())  # type: ignore[attr-defined]
    return _Job.free


def _spawn(process: Any) -> object:
    """Start a new interpreter, or a fork if it is given what only forks can use."""
    try:
        started = SpawnPopen(process)
    except PermissionError as error:
        if error.strerror != _NOT_FORKED:
            raise
        return ForkPopen(process)
    _Job.has_interpreters = True
    return started


# ---- processes ----


def _set_up_forking() -> None:
    tracker: Any = resource_tracker.ResourceTracker
    tracker._send = tracker.ensure_running = resource_tracker.ensure_running = lambda *_: None  # noqa: SLF001
    for process in (SpawnProcess, ForkServerProcess):
        forked: Any = process
        forked._Popen = staticmethod(ForkPopen)  # noqa: SLF001
        forked._after_fork = staticmethod(BaseProcess._after_fork)  # type: ignore[attr-defined] # noqa: SLF001
    util.spawnv_passfds = _refuse_program  # type: ignore[assignment]


def _kill(process: Any) -> None:
    """Terminate process; sends SIGKILL signal. Also one of joblib, which has no `kill` because it asks pgrep first."""
    if hasattr(process._popen, "kill"):  # noqa: SLF001
        process._popen.kill()  # noqa: SLF001
    elif process._popen is not None and process.is_alive():  # noqa: SLF001
        os.kill(process.pid, signal.SIGKILL)


def _refuse_program(*_arguments: object) -> NoReturn:
    raise PermissionError(errno.EPERM, _NO_PROGRAMS)


# ---- methods of multiprocessing, and what is called in their place ----


def _after_endpoints(start: Any) -> Any:
    def start_after_endpoints(process: Any) -> None:
        _make_endpoints()
        start(process)

    return start_after_endpoints


def _starting(start: Any) -> Any:
    def start_forked(manager: Any, *arguments: object, **named: object) -> None:
        manager._address = _endpoint(manager._address)  # noqa: SLF001
        manager._ctx = get_context("fork")  # noqa: SLF001
        start(manager, *arguments, **named)

    return start_forked


def _reducing(reduce: Any) -> Any:
    def reduce_for_forks(proxy: object) -> object:
        if _Job.has_interpreters or get_spawning_popen() is not None:
            raise PermissionError(errno.EPERM, _NOT_FORKED)
        return reduce(proxy)

    return reduce_for_forks

"""The zygote's loop: it forks children, tells how they ended, and survives what a job may have taken."""

import ctypes
import os
import platform
import resource
import signal
import socket
import time
import weakref
from contextlib import ExitStack
from pathlib import Path

import pytest
from runner import call_table, fork_server, kernel
from runner.children import Exit
from runner.fork_server import CHILD, CHILD_BODY, EXITED, KIND_BYTES, NO_CHILD, ForkServer
from runner.kernel import Step

_PATIENCE_S = 30
_PARKED = b"p"
_FREED = 99


class _Number(ctypes.c_int):
    """An argument of a call, to which there are weak references."""


@pytest.fixture(params=["machine code", "Python", "os.fork"])
def fork(request, monkeypatch):
    if request.param != "machine code":
        monkeypatch.setattr(call_table, "_machine_code", lambda: None)
    elif platform.machine() != "x86_64":
        pytest.skip("there is no machine code for this machine")
    return os.fork if request.param == "os.fork" else kernel.fork


@pytest.fixture
def zygote(fork):
    """Its pid and control socket. Its children answer on their channel, and end with the status that they get there."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        status = 1  # also of an exception, which must not end the tests' own fixtures in this process
        try:
            ours.close()
            server = ForkServer(theirs, None, fork)
            kept = os.open(os.devnull, os.O_RDONLY)  # the place of the channel
            number = _Number(0)
            held, calls = weakref.ref(number), [Step(kernel.libc.abs, (number,), "abs")]
            del number
            calls[:0] = [*call_table.taking_descriptors(kept, server.ends), call_table.sending(kept, _PARKED)]
            server.serve([calls.pop(0) for _ in range(len(calls))])
            status = (os.read(kept, 1) or b"\0")[0]  # the test has ended without
            status = _FREED if held() is None else status
        finally:
            os._exit(status)
    theirs.close()
    with ours:
        ours.settimeout(_PATIENCE_S)
        yield pid, ours
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "it ends with the runner's end"


def receive(control, kind):
    message, fds, _, _ = socket.recv_fds(control, 4096, 2)
    assert message[:KIND_BYTES] == kind
    return message[KIND_BYTES:], fds


@pytest.fixture
def forked(zygote):
    """Ask for a child, and return its number, channel and pidfd once it is parked."""
    with ExitStack() as opened:

        def fork():
            ends = fork_server.request(zygote[1])
            opened.callback(ends.close)
            content, (pidfd,) = receive(zygote[1], CHILD)
            opened.callback(os.close, pidfd)
            assert ends.sock.recv(1) == _PARKED
            return CHILD_BODY.unpack(content)[0], ends.sock, pidfd

        yield fork


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def eventually(condition):
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_children_are_forked_one_after_the_other_and_each_is_told_of_once_it_is_gone(zygote, forked):
    pid, control = zygote
    for status in (0, 3, 7):
        child, channel, _ = forked()
        assert children(pid) == [str(child)]
        channel.send(bytes([status]))
        fork_server.reap(control, child, 0)
        ended = Exit.unpack(receive(control, EXITED)[0])
        assert (ended.id, os.waitstatus_to_exitcode(ended.status)) == (child, status)
        assert ended.max_rss_bytes > 1 << 20
        assert 0 <= ended.cpu_s < _PATIENCE_S
        assert children(pid) == []


def test_a_child_frees_none_of_its_calls_which_would_write_to_the_pages_of_all_of_them(zygote, forked):
    _, control = zygote
    child, channel, _ = forked()
    channel.send(b"\0")
    fork_server.reap(control, child, 0)
    assert os.waitstatus_to_exitcode(Exit.unpack(receive(control, EXITED)[0]).status) == 0


def test_a_child_that_was_killed_is_told_of_with_the_signal(zygote, forked):
    _, control = zygote
    child, _, pidfd = forked()
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    fork_server.reap(control, child, 0)
    assert os.WTERMSIG(Exit.unpack(receive(control, EXITED)[0]).status) == signal.SIGKILL


def test_a_child_that_still_runs_is_told_of_later_and_one_that_is_gone_only_once(zygote, forked):
    _, control = zygote
    child, channel, _ = forked()
    fork_server.reap(control, child, 0, wait=False)
    forked()  # its message is the next one
    channel.send(b"\5")
    eventually(lambda: Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    for _ in range(2):
        fork_server.reap(control, child, 0, wait=False)
    assert os.waitstatus_to_exitcode(Exit.unpack(receive(control, EXITED)[0]).status) == 5
    forked()  # its message is the next one


def test_a_fork_that_fails_leaves_neither_a_child_nor_descriptors(zygote, forked):
    """Here for want of a descriptor for the pidfd, after the fork itself."""
    pid, control = zygote
    child, channel, _ = forked()
    channel.send(b"\0")
    fork_server.reap(control, child, 0)
    receive(control, EXITED)  # the zygote is ready, and has closed what it has handed over
    before = sorted(os.listdir(f"/proc/{pid}/fd"))
    free = [number for number in range(len(before) + 4) if str(number) not in before]
    room_for_ends = (free[3], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE, room_for_ends)
    ends = fork_server.request(control)
    receive(control, NO_CHILD)
    ends.close()
    assert children(pid) == []
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == before
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    child, *_ = forked()
    assert children(pid) == [str(child)]


def test_the_zygote_writes_to_few_pages_for_a_fork(zygote, forked):
    """Each page that it writes to after a fork is copied, because a child still has it. In Python it would be 140."""
    if call_table._machine_code() is None:
        pytest.skip("Python makes the calls here")
    pid, _ = zygote
    for _ in range(3):
        forked()
    before = _faults(pid)
    for _ in range(10):
        forked()
    assert (_faults(pid) - before) / 10 < 60


def _faults(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])

"""The zygote's children as the runner has them; the test is the child."""

import os
import signal
import socket

import pytest
from runner import fork_server, usage
from runner.attempt import Stream
from runner.channel import WARM_UP
from runner.children import Child, Children, Exit
from runner.loop import Loop


def test_a_parked_child_that_died_before_it_read_that_it_should_warm_up_is_no_error():
    loop, (control, zygote), (ours, theirs) = Loop(), socket.socketpair(), socket.socketpair()
    children = Children(loop, control, 1, changed=lambda: None, printed=lambda _: None)
    streams = [Stream(name, os.open("/dev/null", os.O_RDONLY), 0) for name in ("stdout", "stderr")]
    child = Child(os.getpid(), ours, *streams, os.pidfd_open(os.getpid()))
    loop.watch(print, ours.fileno())
    ours.send(WARM_UP)
    theirs.close()  # the kernel resets the connection, for there is something that nobody has read
    children._receive_from_parked(child)
    assert (child.ready, ours.fileno() in loop.handlers) == (False, False)
    for each in (child, control, zygote):
        each.close()


class Forks:
    """Children whose zygote is the test: it forks what is asked for at once."""

    def __init__(self, monkeypatch):
        self.kills, self.asked, self.held = 0, 0, []
        monkeypatch.setattr(usage, "oom_kills", lambda: self.kills)
        monkeypatch.setattr(fork_server, "request", self._request)
        control, zygote = socket.socketpair()
        self.held += [control, zygote]
        self.children = Children(Loop(), control, 1, changed=lambda: None, printed=lambda _: None)
        self.children.fork()
        self.park()

    def _request(self, *_, **__):
        self.asked += 1
        ours, theirs = socket.socketpair()
        self.held.append(theirs)
        return fork_server.Ends(ours, *(os.open("/dev/null", os.O_RDONLY) for _ in range(2)))

    def park(self):
        content = fork_server.CHILD_BODY.pack(self.asked, 0)
        self.children._park(content, [os.pidfd_open(os.getpid())], *self.children.forking)
        self.children.parked.ready = True

    def kill_the_parked(self, *, for_memory=False):
        self.kills += for_memory
        self.children.parked.ready, self.children.parked.died_ready = False, True
        self.children._exited(Exit(self.children.parked.id, signal.SIGKILL, 0.0, 0))

    def take(self):
        """A job takes the parked child, and the next one is parked beside it."""
        self.children.busy, self.children.parked = self.children.parked, None
        self.children.fork()
        self.park()

    def close(self):
        for each in (self.children.parked, self.children.busy, self.children.forking, *self.held):
            if each is not None:
                each.close()


@pytest.fixture
def forks(monkeypatch):
    made = Forks(monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize("job_is_gone", [False, True])
def test_a_parked_child_that_the_kernel_kills_for_a_jobs_memory_is_replaced_and_nothing_else(forks, job_is_gone):
    forks.take()
    forks.kills += 1  # a process of the job
    if job_is_gone:
        forks.children.drop(forks.children.busy)
    forks.kill_the_parked(for_memory=True)
    assert (forks.children.residue, forks.asked) == ("", 3)


def test_a_second_parked_child_that_is_killed_beside_the_same_job_counts_against_the_worker(forks):
    forks.take()
    forks.kill_the_parked(for_memory=True)
    forks.park()
    forks.kill_the_parked(for_memory=True)
    assert "the next child died" in forks.children.residue


def test_a_parked_child_that_is_killed_and_not_for_memory_counts_against_the_worker(forks):
    forks.take()
    forks.kill_the_parked()
    assert "the next child died" in forks.children.residue

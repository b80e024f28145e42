"""The zygote's fork: which hooks it may leave out, and what a child must not share with the next one."""

import errno
import os
import random
import resource
import socket

import pytest
from runner import fork_server, forking, generators, kernel
from runner.forking import Hooks

from tests.support.process import python

LOOKED_UP = pytest.mark.skipif(not forking._LOOKED_UP, reason="such a Python is forked by os.fork()")


def _registers(hooks, module):
    """As the module of that name does when it is imported."""
    exec("import os; os.register_at_fork(after_in_child=int)", {"__name__": module})
    return hooks.fork()


@pytest.fixture
def hooks():
    found = Hooks()
    yield found
    found.fork()


@LOOKED_UP
def test_hooks_of_the_standard_library_for_threads_are_left_out(hooks):
    assert _registers(hooks, "logging") is kernel.fork


def test_a_library_with_hooks_of_its_own_is_forked_with_them(hooks):
    assert _registers(hooks, "some_library") is os.fork


def test_registering_works_as_before_once_the_libraries_are_imported():
    register = os.register_at_fork
    Hooks().fork()
    assert os.register_at_fork is register


def test_the_kernel_gives_the_generator_of_each_child_a_state_of_its_own():
    kept = random.getstate()
    try:
        steps = generators.renewing()
        seeded, numbers = random.getstate(), set()
        for _ in range(3):
            random.setstate(seeded)  # as the zygote's is after each fork
            kernel.perform(steps[:1])
            numbers.add(random.random())
        assert len(numbers) == 3
        assert all(0.0 <= number < 1.0 for number in numbers)
    finally:
        random.setstate(kept)


def test_each_child_has_a_key_of_multiprocessing_of_its_own():
    program = """
import random, sys
sys.path.insert(0, "worker_image")
import multiprocessing.process as processes
from runner import generators, kernel
steps, keys = generators.renewing(), {bytes(processes.current_process().authkey)}
for _ in range(3):
    kernel.perform(steps[-1:])
    keys.add(bytes(processes.current_process().authkey))
print(len(keys), steps[-1].doing)
"""
    assert python("-c", program).stdout.split() == ["4", "getrandom"]


def test_a_generator_whose_state_lies_elsewhere_is_seeded_by_its_own_function():
    called = []
    step = generators._renewing(lambda: called.append("seed"), id(bytearray(64)), b"no such state")
    kernel.perform([step])
    assert called == ["seed"]


def test_a_child_that_cannot_be_asked_for_costs_the_runner_no_descriptor():
    """A job with many descriptors on their way makes the kernel refuse those of the runner, which then tries again."""
    runner_end, zygote_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with runner_end, zygote_end:
        open_before = os.listdir("/proc/self/fd")
        zygote_end.close()
        with pytest.raises(BrokenPipeError):
            fork_server.request(runner_end)
        assert len(os.listdir("/proc/self/fd")) == len(open_before) - 1
    assert {errno.ETOOMANYREFS, errno.ENOBUFS} <= fork_server.EXHAUSTED


def test_pipes_that_a_job_has_made_small_are_not_given_to_the_next_child(monkeypatch):
    """Without a job they are: then nothing of a job makes them so, and the worker would have no child."""
    monkeypatch.setattr(fork_server, "_PIPE_BYTES", 17 * resource.getpagesize())
    runner_end, zygote_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with runner_end, zygote_end:
        open_before = os.listdir("/proc/self/fd")
        with pytest.raises(OSError, match="too many pipes") as refused:
            fork_server.request(runner_end, beside_job=True)
        assert refused.value.errno in fork_server.EXHAUSTED
        assert len(os.listdir("/proc/self/fd")) == len(open_before)
        fork_server.request(runner_end).close()

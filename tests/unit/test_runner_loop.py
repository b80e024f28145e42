"""The runner's loop."""

import os
import time

import pytest
from runner.loop import Loop


class EndedError(Exception):
    """Ends the loop."""


def test_it_watches_without_an_epoll_whose_watches_the_kernel_counts_for_all_processes_of_a_user():
    before = epolls()
    loop = Loop()
    reading, writing = os.pipe()
    loop.watch(lambda: None, reading)
    assert epolls() == before
    os.close(reading)
    os.close(writing)


def epolls():
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.readlink(each) == "anon_inode:[eventpoll]" for each in links if os.path.islink(each))


def end():
    raise EndedError


def test_it_calls_the_handler_of_what_is_readable_and_waits_for_the_next_timer():
    loop, called = Loop(), []
    reading, writing = os.pipe()

    def read():
        called.append("read")
        os.read(reading, 1)
        loop.timers[due] = time.monotonic() + 0.0005

    def due():
        called.append("due")
        end()

    loop.watch(read, reading)
    loop.timers[lambda: called.append("late")] = time.monotonic() + 600
    os.write(writing, b"x")
    with pytest.raises(EndedError):
        loop.run()
    assert called == ["read", "due"], "it has waited no shorter than the timer, and no longer"
    os.close(reading)
    os.close(writing)


def test_what_comes_first_is_called_once_before_the_next_wait():
    loop, called = Loop(), []
    loop.first = lambda: called.append("first")
    loop.timers[end] = time.monotonic() + 0.0005
    with pytest.raises(EndedError):
        loop.run()
    assert called == ["first"]


def test_a_handler_may_be_replaced_and_what_is_no_longer_watched_is_not_called():
    loop, called = Loop(), []
    pipes = [os.pipe() for _ in range(2)]
    for reading, writing in pipes:
        loop.watch(lambda: called.append("old"), reading)
        os.write(writing, b"x")
    loop.handlers[pipes[0][0]] = end
    loop.unwatch(pipes[1][0])
    loop.timers[end] = time.monotonic() + 600
    with pytest.raises(EndedError):
        loop.run()
    assert called == []
    for fd in (fd for pipe in pipes for fd in pipe):
        os.close(fd)

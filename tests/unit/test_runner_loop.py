"""The runner's loop."""

import os
import time

from runner.loop import Loop


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


def test_a_turn_calls_the_handler_of_what_is_readable_and_waits_for_the_next_timer():
    loop, called = Loop(), []
    reading, writing = os.pipe()
    loop.watch(lambda: called.append("read"), reading)
    loop.timers[lambda: called.append("late")] = time.monotonic() + 600
    os.write(writing, b"x")
    loop.turn()
    assert called == ["read"]
    loop.unwatch(reading)
    loop.timers[lambda: called.append("due")] = time.monotonic() + 0.0005
    loop.turn()
    assert called == ["read", "due"], "it has waited no shorter than the timer"
    os.close(reading)
    os.close(writing)

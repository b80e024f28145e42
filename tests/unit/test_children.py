"""The zygote's children as the runner has them; the test is the child."""

import os
import socket

from runner.attempt import Stream
from runner.channel import WARM_UP
from runner.children import Child, Children
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

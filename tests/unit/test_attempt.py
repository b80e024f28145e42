"""One attempt as the runner sees it, with a child that is played by the test."""

from __future__ import annotations

import os
import socket

import pytest
from runner import channel
from runner.attempt import Attempt, Child
from runner.report import Report

from pool import wire
from pool.model import Outcome

JOB = wire.Run(
    job_id="j", epoch=1, wall_s=60, cpu_s=60, memory=1 << 28, tmp=1 << 20, output=1000, result=1 << 20, processes=4
)


@pytest.mark.timeout(60)
def test_an_answer_does_not_wait_until_what_the_job_has_started_stops_printing():
    ours, theirs = socket.socketpair()
    endless, silent = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    child = Child(os.getpid(), ours, endless, silent, os.pidfd_open(os.getpid()))
    with theirs:
        attempt = Attempt(JOB, child, [b"code", b""])
        channel.send(theirs, [Report(outcome=Outcome.OK, started_ns=1, ended_ns=2).pack(), b"", b"value"])
        attempt.readable(ours.fileno())
        assert attempt.complete
        done, payload = attempt.answer()
        child.close()
    assert (done.outcome, done.truncated) == (Outcome.OK, ("stdout",))
    assert (bytes(payload[0]), bytes(payload[3])) == (bytes(1000), b"value")
    assert done.stdout_bytes > 1000

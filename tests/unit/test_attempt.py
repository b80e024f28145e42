"""One attempt as the runner sees it; the test is its child."""

import os
import socket
import time
from contextlib import contextmanager

import msgspec
import pytest
from runner import channel
from runner.attempt import Attempt, Stream
from runner.channel import Answer
from runner.children import Child
from runner.chunk import NEXT
from runner.code_cache import Text
from runner.usage import INTERVAL_S, Meter

from pool import wire
from pool.model import Outcome

JOB = wire.Run(
    job_id="j", epoch=1, wall_s=60, cpu_s=60, memory=1 << 28, tmp=1 << 20, output=1000, result=1 << 20, processes=4
)


ANSWER = Answer(Outcome.OK, started_ns=1, ended_ns=2, value=[b"value"]).frames()


@contextmanager
def conversation(out="/dev/null", job=JOB, **options):
    """An attempt whose child is the test: at the other end of the socket, and the process that is asked for usage."""
    ours, theirs = socket.socketpair()
    streams = [Stream(name, os.open(path, os.O_RDONLY), 0) for name, path in (("stdout", out), ("stderr", "/dev/null"))]
    child = Child(os.getpid(), ours, *streams, os.pidfd_open(os.getpid()))
    with theirs:
        yield Attempt(job, child, [b"code", b""], **options), theirs
    child.close()


def test_what_a_child_has_printed_before_its_job_counts_for_the_outputs_limit():
    parked = Stream("stdout", os.open("/dev/zero", os.O_RDONLY), 8192)
    parked.drain(1)
    ours, theirs = socket.socketpair()
    errors = Stream("stderr", os.open("/dev/null", os.O_RDONLY), 8192)
    child = Child(os.getpid(), ours, parked, errors, os.pidfd_open(os.getpid()))
    with theirs:
        attempt = Attempt(msgspec.structs.replace(JOB, output=10), child, [b"code", b""])
        attempt.out.drain(1)
    assert attempt.out.kept == bytes(10)
    assert attempt.out.total > 8192
    child.close()


@pytest.mark.timeout(60)
def test_an_answer_does_not_wait_until_what_the_job_has_started_stops_printing():
    with conversation("/dev/zero") as (attempt, theirs):
        channel.send(theirs, ANSWER)
        attempt.collect()
        assert attempt.complete
        done, payload = attempt.answer()
    assert (done.outcome, done.truncated) == (Outcome.OK, ("stdout",))
    assert (bytes(payload[0]), bytes(payload[3])) == (bytes(1000), b"value")
    assert done.stdout_bytes > 1000


def test_each_call_of_a_chunk_has_the_whole_wall_limit_and_begins_when_the_runner_says_so():
    job = msgspec.structs.replace(JOB, calls=(1, 1))
    with conversation(job=job) as (attempt, theirs):
        channel.receive(theirs, bytearray())
        first_deadline = attempt.deadline
        channel.send(theirs, ANSWER)
        attempt.collect()
        assert (attempt.answer(), attempt.call, theirs.recv(10)) == (None, 1, NEXT)
        assert attempt.deadline > first_deadline
        assert attempt.running
        channel.send(theirs, ANSWER)
        assert not attempt.complete
        attempt.collect()
        done, payload = attempt.answer()
    calls = wire.decode_calls(payload[3])
    assert (done.calls, [each.outcome for each in calls]) == (2, [Outcome.OK] * 2)
    assert [bytes(each) for each in payload[4:]] == [b"value"] * 2


def test_usage_counts_what_the_job_has_started_and_nobody_has_waited_for(tmp_path):
    def say(cpu_s, anonymous):
        (tmp_path / "cpu.stat").write_text(f"usage_usec {cpu_s * 1_000_000}\n")
        (tmp_path / "memory.stat").write_text(f"anon {anonymous}\nshmem 0\n")

    (tmp_path / "cgroup.controllers").touch()
    say(0, 0)
    meter = Meter(tmp_path)
    with conversation(meter=meter) as (attempt, theirs):
        say(5000, 1 << 40)
        meter.excess(JOB)
        time.sleep(2 * INTERVAL_S)  # one that has ended by then can have used next to nothing
        channel.send(theirs, ANSWER)
        attempt.collect()
        done, _ = attempt.answer()
    assert done.cpu_s == pytest.approx(5000, abs=1)
    assert done.max_rss_bytes == 1 << 40


BYTE_CODE, OTHER = [channel.COMPILED, b"byte code"], [channel.COMPILED, b"other"]


@pytest.mark.parametrize(
    ("sends_code", "messages", "taken"),
    [
        (True, [BYTE_CODE, ANSWER], b"byte code"),
        (True, [ANSWER], None),
        (True, [BYTE_CODE, OTHER], b"byte code"),
        (True, [[channel.COMPILED, bytes(101)]], None),
        (False, [BYTE_CODE], None),
    ],
)
def test_byte_code_is_taken_only_from_a_child_that_was_asked_for_it_and_only_as_its_first_message(
    monkeypatch, sends_code, messages, taken
):
    monkeypatch.setattr(channel, "MAX_CODE_BYTES", 100)
    monkeypatch.setattr(Child, "kill", lambda _: None)  # the child is this process
    with conversation(text=Text(b"digest", sends_code)) as (attempt, theirs):
        for message in messages:
            channel.send(theirs, message)
        attempt.collect()
        assert attempt.compiled == taken
        assert attempt.complete == (messages[-1] is ANSWER)

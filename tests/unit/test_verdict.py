"""Which outcome an attempt has: what the kernel reports counts more than what the child claims."""

import resource
import signal

import pytest
from runner.channel import Answer
from runner.verdict import Evidence, decide

from pool import wire
from pool.model import Outcome

JOB = wire.Run(job_id="a", epoch=1, wall_s=2, cpu_s=1, memory=1 << 20, tmp=1, output=1, result=100, processes=1)
OK = Answer(Outcome.OK, started_ns=1, ended_ns=2)


def evidence(**changes):
    seen = {"killed_for": None, "status": 0, "cpu_s": 0.1, "oom_kills": 0, "claim": None, "invalid": ""}
    return Evidence(**(seen | changes))


def test_a_child_that_answers_gets_the_outcome_it_claims():
    assert decide(JOB, evidence(claim=OK)).outcome is Outcome.OK


@pytest.mark.parametrize("why", [Outcome.TIMEOUT, Outcome.CANCELLED, Outcome.OUTPUT])
def test_what_the_runner_killed_it_for_counts_more_than_its_claim(why):
    verdict = decide(JOB, evidence(claim=OK, killed_for=why, status=signal.SIGKILL))
    assert verdict.outcome is why
    assert verdict.reason


def test_a_child_that_exits_without_an_answer_crashed_even_with_status_zero():
    verdict = decide(JOB, evidence(status=0))
    assert (verdict.outcome, verdict.exit_code) == (Outcome.CRASH, 0)


def test_a_segfault_is_a_crash_that_names_its_signal():
    verdict = decide(JOB, evidence(status=signal.SIGSEGV))
    assert (verdict.outcome, verdict.signal) == (Outcome.CRASH, signal.SIGSEGV)
    assert "SIGSEGV" in verdict.reason


def test_a_real_time_signal_is_a_crash_too():
    assert decide(JOB, evidence(status=40)).outcome is Outcome.CRASH


def test_cpu_time_over_its_limit_is_a_timeout():
    assert decide(JOB, evidence(status=signal.SIGXCPU, cpu_s=1.1)).outcome is Outcome.TIMEOUT
    assert decide(JOB, evidence(status=signal.SIGKILL, cpu_s=2.0)).outcome is Outcome.TIMEOUT


def test_a_signal_for_cpu_time_that_was_not_used_is_a_crash():
    verdict = decide(JOB, evidence(status=signal.SIGXCPU, cpu_s=0.02))
    assert (verdict.outcome, verdict.signal) == (Outcome.CRASH, signal.SIGXCPU)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ("value", "cannot be carried"),
        ("tmp", "limits.tmp"),
        ("inodes", "tmp_inodes"),
        ("nofile", "nofile"),
        ("nofile", str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])),
        ("processes", "limits.processes"),
        ("processes", "limits.memory"),  # a thread's stack is memory, and both say only that no thread can be started
        ("", "exception"),
    ],
)
def test_what_an_error_is_about_is_in_its_reason(about, words):
    claim = Answer(Outcome.ERROR, about=about, started_ns=1, ended_ns=2)
    assert words in decide(JOB, evidence(claim=claim)).reason


def test_an_exit_status_is_not_called_an_exception():
    claim = Answer(Outcome.ERROR, exit_code=3, started_ns=1, ended_ns=2)
    verdict = decide(JOB, evidence(claim=claim))
    assert (verdict.exit_code, verdict.reason) == (3, "the code ended itself with exit status 3")


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGXFSZ, "limits.tmp"), (signal.SIGBUS, "limits.tmp"), (signal.SIGSEGV, "C stack")]
)
def test_a_signal_that_a_limit_or_the_stack_leads_to_says_so(number, words):
    verdict = decide(JOB, evidence(status=number))
    assert (verdict.outcome, verdict.signal) == (Outcome.CRASH, number)
    assert words in verdict.reason


def test_a_kill_is_memory_only_when_the_kernel_counted_one():
    assert decide(JOB, evidence(status=signal.SIGKILL, oom_kills=1)).outcome is Outcome.MEMORY
    assert decide(JOB, evidence(status=signal.SIGKILL)).outcome is Outcome.CRASH


def test_a_child_that_was_killed_for_its_answer_is_a_crash_that_says_so():
    verdict = decide(JOB, evidence(status=signal.SIGKILL, invalid="after an answer that is not valid (it is empty)"))
    assert verdict.outcome is Outcome.CRASH
    assert "an answer that is not valid" in verdict.reason

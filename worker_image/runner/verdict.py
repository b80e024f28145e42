"""The outcome of an attempt, decided from evidence. What the kernel reports counts more than what the child claims."""

from __future__ import annotations

import os
import resource
import signal

from msgspec import Struct

from pool import wire
from pool.outcome import Outcome
from runner.channel import Answer

#: The kernel enforces a CPU limit by ticks but accounts in ns, so that this part of the limit may be missing.
_COUNTED = 0.5


class Evidence(Struct, frozen=True, kw_only=True):
    """All that is known of a child that has ended."""

    killed_for: Outcome | None  #: why the runner killed it, if it did: timeout, cancelled, output, memory
    killed_because: str = ""  #: the reason in words, where the outcome alone does not say it
    status: int  #: as from wait4
    cpu_s: float
    oom_kills: int  #: processes that the kernel killed in the worker's memory cgroup during the attempt
    claim: Answer | None  #: the child's, if its answer was complete and valid
    invalid: str = ""  #: what was wrong with its answer


class Verdict(Struct, frozen=True, kw_only=True):
    outcome: Outcome
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None


#: For a child whose answer has nothing to tell but its value.
OK = Verdict(outcome=Outcome.OK)
#: For a script that ended ok without a value.
_HINTS = {
    "not called": "there is no value: the code defines main and never calls it; give entry='main', or call it",
    "not returned": "there is no value: the last line is an expression, and a script's value is its variable result",
}


def of_claim(job: wire.Run, claim: Answer) -> Verdict:
    """For a child that has answered: what it claims."""
    return Verdict(
        outcome=claim.outcome,
        reason=_claimed(job, claim) if claim.outcome is not Outcome.OK else _HINTS.get(claim.about, ""),
        exit_code=claim.exit_code,
        signal=signal.SIGINT if claim.about == "interrupt" else None,
    )


def decide(job: wire.Run, seen: Evidence) -> Verdict:
    """For a child that has ended."""
    if seen.killed_for is not None:
        reason = seen.killed_because or _killed(job, seen.killed_for)
        return Verdict(outcome=seen.killed_for, reason=reason, signal=signal.SIGKILL)
    if seen.claim is not None:
        return of_claim(job, seen.claim)
    if os.WIFSIGNALED(seen.status):
        return _by_signal(job, seen, os.WTERMSIG(seen.status))
    code = os.WEXITSTATUS(seen.status)
    why = seen.invalid or "before it answered; os._exit ends a job without a result"
    return Verdict(outcome=Outcome.CRASH, reason=f"the process ended with exit code {code} {why}", exit_code=code)


def after_its_end(verdict: Verdict, claim: Answer) -> Verdict:
    """For a job whose code has ended, but whose exit handlers or threads ended the process or ran out of time."""
    if verdict.outcome is Outcome.TIMEOUT:
        note = f"its code had ended; its exit handlers or threads had not: {verdict.reason}"
        return Verdict(outcome=claim.outcome, reason=note, exit_code=claim.exit_code)
    if verdict.outcome is Outcome.CRASH and verdict.exit_code == 0:  # os._exit(0) in an exit handler
        return Verdict(outcome=claim.outcome, exit_code=claim.exit_code or 0)
    return verdict


def _killed(job: wire.Run, why: Outcome) -> str:
    return {
        Outcome.TIMEOUT: f"it ran past its wall limit of {job.wall_s:g} s and was killed with all it had started",
        Outcome.CANCELLED: "it was cancelled while it ran and was killed with all it had started",
        Outcome.OUTPUT: _too_much(job),
    }[why]


def _claimed(job: wire.Run, claim: Answer) -> str:
    return {
        Outcome.ERROR: _error(job, claim),
        Outcome.MEMORY: f"it asked for more memory than its limit of {job.memory} bytes",
        Outcome.OUTPUT: _too_much(job, claim.about),
        Outcome.REJECTED: "the screen refused the code and it did not run; its findings say what to change",
    }[claim.outcome]


def _too_much(job: wire.Run, about: str = "") -> str:
    if about == "files":
        return f"it left more than {wire.MAX_FILES_OUT} files in its output directory; put them into one archive"
    return f"its result, files and all, is over the limit of {job.result} bytes; return less, or ask for limits.result"


def _error(job: wire.Run, claim: Answer) -> str:
    if claim.exit_code is not None:
        return f"the code ended itself with exit status {claim.exit_code}"
    raised = "the code raised an exception"
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # a job has the same limit as its worker
    return {
        "": raised,
        "tmp": f"{raised}: its scratch space has {job.tmp} bytes (limits.tmp)",
        "inodes": f"{raised}: its scratch space has room for no more files (tmp_inodes of the template)",
        "nofile": f"{raised}: it can have at most {files} open files (nofile of the template)",
        "processes": f"{raised}: it has {job.processes} processes and threads (limits.processes), and the stack of a "
        f"thread takes some of its {job.memory} bytes of memory (limits.memory)",
        "input": "it did not run: its files and stdin do not fit into its scratch space of "
        f"{job.tmp} bytes (limits.tmp)",
        "files": "the code ended, and one of its files cannot be carried; the error says which",
        "interrupt": f"{raised}: KeyboardInterrupt, which ends a program by SIGINT",
        "module": f"{raised}: neither the worker image nor the job's files have the module; pool-admin image build "
        "adds libraries, with --profile science or --requirements FILE",
        "programs": f"{raised}: jobs of this pool may not start programs (allow: [subprocess] in the template); "
        "threads and multiprocessing with its start method fork work without that",
        "value": "the code ended, and what it gives cannot be carried; the error says what, and where in it",
    }[claim.about]


def _by_signal(job: wire.Run, seen: Evidence, number: int) -> Verdict:
    enough = {signal.SIGXCPU: job.cpu_s * _COUNTED, signal.SIGKILL: job.cpu_s}
    if number in enough and seen.cpu_s >= enough[signal.Signals(number)]:
        reason = f"the kernel ended it for its CPU time ({seen.cpu_s:.1f} s in the end), its limit is {job.cpu_s:g} s"
        return Verdict(outcome=Outcome.TIMEOUT, reason=reason, signal=number)
    if number == signal.SIGKILL and seen.oom_kills:
        reason = "the worker ran out of memory and the kernel killed the job"
        return Verdict(outcome=Outcome.MEMORY, reason=reason, signal=number)
    if number == signal.SIGKILL and seen.invalid:
        return Verdict(outcome=Outcome.CRASH, reason=f"the process was killed {seen.invalid}", signal=number)
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    reason = f"the process was killed by {name}{_common_cause(job, number)}"
    return Verdict(outcome=Outcome.CRASH, reason=reason, signal=number)


def _common_cause(job: wire.Run, number: int) -> str:
    """What usually leads to the signal, where its name does not tell."""
    causes: dict[int, str] = {
        signal.SIGSEGV: ": it used memory that is not mapped, or recursed deeper than the C stack",
        signal.SIGBUS: f": a mapped file has no content there, or no room for it ({job.tmp} bytes, limits.tmp)",
        signal.SIGXFSZ: f": one of its files grew over {job.tmp} bytes (limits.tmp)",
    }
    return causes.get(number, "")

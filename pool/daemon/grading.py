"""Grades: the second part of a job, which gets the value of the first and runs in another child.

    Submit ─▶ job ─Finish─▶ its value, as frames ─▶ grade: a job of its own ─Finish─▶ Result with value and grade

The grader's code and arguments do not belong to the first job, so no worker has them while its code runs. The daemon
passes the value on as it is; the grader's child decodes it. A job whose grader fails keeps its own outcome and value.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from pool import wire
from pool.config import Template
from pool.daemon import admission
from pool.daemon.job import JOB_BYTES, Grader, Job
from pool.errors import InvalidJobError
from pool.model import Outcome

#: Above every other job of the client, because its first part has waited already.
PRIORITY = 101
Ended = tuple[wire.Result, Sequence[wire.Frame]]


def split(grade: wire.Grader, payload: Sequence[wire.Frame]) -> tuple[Sequence[wire.Frame], Sequence[wire.Frame]]:
    """The frames of the job, and those of its grader. Raises InvalidJobError."""
    own = len(payload) - 1 - grade.arguments
    if own < 0:
        raise InvalidJobError("the payload must end with the code of the grader and its arguments")
    return payload[:own], payload[own:]


def add_grader(job: Job, submit: wire.Submit, frames: Sequence[wire.Frame], template: Template) -> None:
    """Have the value of this job graded, with the job's limits. Raises InvalidJobError or TooLargeError."""
    grade = submit.grade
    assert grade is not None, "frames of a grader come with one"
    code, *arguments = frames
    program = {name: getattr(grade, name) for name in ("entry", "pickled", "python")}
    grading = msgspec.structs.replace(submit, files=(), argv=(), explain=False, trace=False, grade=None, **program)
    job.grader_payload = (code, b"", *arguments)
    run = admission.prepare(grading, job.grader_payload, template, size_bytes=0)
    digests = admission.digest(grading, [code])
    job.grader = Grader(run=run, code=digests.code, frames=len(job.grader_payload))


def begin(job: Job, grader: Grader, ended: Ended) -> Job | None:
    """The job that grades the value; None if there is no value. Then `ended` gets the reason."""
    job.ended = result, answer = ended
    value = answer[wire.FIXED_FRAMES + len(result.files) :]
    payload = (*job.grader_payload, *value)
    if reason := _obstacle(result, value, payload):
        _without(job, reason)
        return None
    job.part = Job(
        key=f"{job.key}/grade",  # no job of a client has a slash in its id
        client=job.client,
        pool=job.pool,
        received_ns=time.monotonic_ns(),
        run=msgspec.structs.replace(grader.run, graded=len(value)),
        payload=payload,
        held_bytes=JOB_BYTES + _size(payload),
        whole=job,
    )
    return job.part


def refused(job: Job, reason: str) -> Ended:
    """The result of a job whose grade was not accepted."""
    _without(job, reason)
    return _ended(job)


def graded(job: Job, grade: Ended) -> Ended:
    """The result of a job with its grade."""
    own, answer = _ended(job)
    result, frames = grade
    kept = (frames[wire.FIXED_FRAMES - 1], *frames[wire.FIXED_FRAMES + len(result.files) :])
    end = wire.Grade(outcome=result.outcome, reason=result.reason, frames=len(kept))
    if len(answer) + len(kept) > wire.MAX_FRAMES:
        end, kept = wire.Grade(outcome=Outcome.OUTPUT, reason="value and grade have too many frames together"), ()
    job.part = None
    return msgspec.structs.replace(own, grade=end, grade_ms=result.total_ms), (*answer, *kept)


def _obstacle(result: wire.Result, value: Sequence[wire.Frame], payload: Sequence[wire.Frame]) -> str:
    """Why the value cannot be given to the grader; empty if it can."""
    if result.outcome is not Outcome.OK:
        return f"it ended {result.outcome}"
    if not value:
        return "it has no value"
    if len(payload) > wire.MAX_FRAMES or _size(payload) > wire.MAX_JOB_BYTES:
        return "its value is too large to be given to the grader together with the grader's arguments"
    return ""


def _size(frames: Sequence[wire.Frame]) -> int:
    return sum(map(len, frames))


def _without(job: Job, reason: str) -> None:
    result, answer = _ended(job)
    job.ended = msgspec.structs.replace(result, grade=wire.Grade(reason=reason[:4096])), answer
    job.part = None


def _ended(job: Job) -> Ended:
    assert job.ended is not None, "its first part has ended"
    return job.ended

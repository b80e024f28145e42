"""Which ends of a worker are laid to the code that ran in it. Everything else is not its doing.

    counted      the worker broke down, or broke the protocol, while it ran the code or cleared up after it
                 the worker was not clean after it, or not free within CLEARING_S
                 the worker did not answer at the job's deadline and was killed with it
    not counted  errors, crashes, and limits that the runner enforced, memory among them: the worker lives on
                 a job that was cancelled, whatever becomes of its worker
                 a job whose worker had not said that it began; a container that somebody removed; a start that failed
                 shutdown, recycling and every other stop that the pool decides on
                 the last job of a worker that is worn: it is stopped anyway, clean or not

A worker that ran out of memory as a whole is counted as what it leads to: the kernel kills the child, and the worker is
fine; or its zygote or runner, and the worker breaks down or is not clean.

`WorkerRecord.code` is the code to blame, or empty: it is set when the job begins, and taken away when the job is
cancelled or the worker is free again.
"""

from __future__ import annotations

from pool.core import job_moves
from pool.core.books import Books
from pool.core.decisions import Reject
from pool.core.records import PoolPhase, WorkerRecord


def blame(books: Books, worker: WorkerRecord, what: str) -> None:
    """The worker is lost; if code is to blame it is remembered, and once it has cost too many it is refused."""
    code, worker.code = worker.code, ""
    if not code or books.pool.state is PoolPhase.STOPPING:
        return
    refused = books.poison.killed(code, worker.id, what, now=books.now)
    count = books.poison.count(code, books.now)
    books.tell_bygone(code, f"cost {worker.id}: {what}")
    books.tell(books.pool, f"code {code} has cost {worker.id}, {count} of {books.policy.poison_kills}: {what}")
    if refused:
        _refuse(books, code)


def _refuse(books: Books, code: str) -> None:
    """From now on; what waits already has been accepted, and ends."""
    sentence = books.poison.sentence(code, books.now)
    waiting = [job_id for job_id in books.backlog if books.jobs[job_id].code == code]
    for job_id in waiting:
        job_moves.apply(books, job_id, Reject(reason=sentence))
    text = f"is refused for {books.policy.poison_refuse_s:g} s; {len(waiting)} waiting jobs were rejected"
    books.tell_bygone(code, text)
    books.tell(books.pool, f"code {code} {text}")

"""Accepted jobs, the clients that wait for them, and the results while they are kept. It decides nothing.

The key of a job is its submitter and its id, so that no client can see, or collide with, another client's jobs. Results
are kept for `ttl_s`, and up to `max_bytes` in all: the oldest are dropped first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from pool import wire
from pool.core.events import Accept
from pool.core.records import HistoryEntry
from pool.daemon.output import OutputStream
from pool.errors import InvalidJobError
from pool.model import StartKind

#: What a job costs besides its frames (header, record, table entry), about.
JOB_BYTES = 2048


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One accepted job. It has `run` and `payload` until it is done, and `result` and `answer` from then on."""

    key: str  #: "client/job id"
    client: str
    pool: str
    received_ns: int
    run: wire.Run | None
    payload: Sequence[wire.Frame]
    held_bytes: int  #: by the payload, and by the answer once it is done; with JOB_BYTES
    digest: bytes = b""  #: of the whole submission
    session: str = ""  #: the client whose end cancels it, as `Sessions` names it; empty: it goes on
    leased_ns: int = 0
    start: StartKind | None = None
    watchers: set[bytes] = field(default_factory=set)  #: addresses of the clients that wait for the result
    output: OutputStream | None = None  #: set once a client has asked for the output
    result: wire.Result | None = None
    answer: Sequence[wire.Frame] = ()
    expires_at: float = 0.0
    history: Sequence[HistoryEntry] = ()  #: set when it is done; until then the core has it


class JobStore:
    """Jobs by key; the finished ones also in the order in which they ended."""

    def __init__(self, *, ttl_s: float, max_bytes: int) -> None:
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._jobs: dict[str, Job] = {}
        self._finished: OrderedDict[str, Job] = OrderedDict()
        self._result_bytes = 0
        self.unfinished_bytes: Counter[str] = Counter()  #: held by the jobs that are not done, by client

    def get(self, key: str) -> Job | None:
        return self._jobs.get(key)

    def __getitem__(self, key: str) -> Job:
        """Of a job that is accepted and not done."""
        return self._jobs[key]

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def find(self, key: str, digest: bytes) -> Job | None:
        """The job, if it was submitted before. Raises InvalidJobError if the id belongs to another submission."""
        job = self._jobs.get(key)
        if job is not None and job.digest != digest:
            raise InvalidJobError("job_id: this id was already used for another job; give each job an id of its own")
        return job

    def accept(self, command: Accept) -> None:
        """Keep the job that comes with the command."""
        job = cast("Job", command.attachment)
        self.unfinished_bytes[job.client] += job.held_bytes
        self._jobs[job.key] = job

    def finish(self, job: Job, result: wire.Result, answer: Sequence[wire.Frame], *, now: float) -> set[bytes]:
        """Keep the result; the addresses of the clients that wait for it."""
        self.unfinished_bytes.subtract({job.client: job.held_bytes})
        job.result, job.answer = result, answer
        job.run, job.payload = None, ()
        if job.output is not None:
            job.output.close()
            job.output = None
        job.expires_at = now + self._ttl_s
        job.held_bytes = JOB_BYTES + sum(memoryview(frame).nbytes for frame in answer)
        self._result_bytes += job.held_bytes
        self._finished[job.key] = job
        waiting, job.watchers = job.watchers, set()
        return waiting

    def expire(self, now: float) -> None:
        """Drop results that have been kept for their time, and the oldest ones beyond the bound of bytes."""
        while self._finished:
            job = next(iter(self._finished.values()))
            if job.expires_at > now and self._result_bytes <= self._max_bytes:
                return
            self._finished.popitem(last=False)
            self._jobs.pop(job.key, None)
            self._result_bytes -= job.held_bytes

"""What can happen to a pool (events) and what it wants done about it (commands). Frozen values, nothing else.

Every event carries `cause`, a short text that names where it came from; the commands it leads to and the entries in the
story carry it on, so that each effect can be traced back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pool.core.records import StopReason, Verdict
from pool.errors import Scalar
from pool.model import Outcome, StartKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    cause: str = ""


# ---- jobs ----


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmitted(Event):
    """A valid job has come. Refused by a `Refuse` command when the pool cannot take it."""

    job_id: str
    client: str  #: identity of the submitter, from the socket's credentials
    wall_s: float
    priority: int = 0
    queue_timeout_s: float | None = None
    code: str = ""  #: digest of what it runs, by which the pool remembers what that has done; empty: not remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested(Event):
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobForgotten(Event):
    """The result was kept for its time; drop the record of a job that is done."""

    job_id: str


# ---- workers ----


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady(Event):
    """The handshake is done, the no-op job came back through the whole path, and the lockdown holds."""

    worker_id: str
    shareable: bool = True  #: False: parts of its isolation are missing, so no worker of the pool may serve two clients


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFailed(Event):
    """The start failed: engine error, refused handshake, wrong no-op result. `permanent`: trying again cannot help."""

    worker_id: str
    reason: str
    permanent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerVanished(Event):
    """The link broke, or the worker broke the protocol: it is dead or must be treated so."""

    worker_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRemoved(Event):
    """The engine has removed the container (or says it was never there)."""

    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatHeard(Event):
    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Event):
    worker_id: str
    job_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded(Event):
    """The worker's answer: the job is over. The worker clears up after it and is free with WorkerFreed."""

    worker_id: str
    job_id: str
    epoch: int
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFreed(Event):
    """Nothing of the job is left and the next child is parked. `dirty`: what would not go; then it is used no more."""

    worker_id: str
    epoch: int
    dirty: str = ""


# ---- operator and clock ----


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequested(Event):
    """Take no new jobs, finish those that are accepted; workers stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequested(Event):
    """Take jobs again; also closes the breaker, so that an operator's repair is tried at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecycleRequested(Event):
    """Replace one worker, or all of them one after another."""

    worker_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeRequested(Event):
    min_workers: int
    max_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EditionOffered(Event):
    """The pool's data sets have another content, and workers can be started on it. Numbers grow from 1."""

    edition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PardonRequested(Event):
    """Forget what code has done to workers, and take it again. None: every code."""

    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownRequested(Event):
    """Take no new jobs, cancel what is queued, let running jobs finish until `deadline`, stop every worker."""

    deadline: float  #: monotonic seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick(Event):
    """Time has passed: deadlines, ages, backoff."""


# ---- what the core decides itself ----


class Decision(Event):
    """Goes through the same tables as an event from outside."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Decision):
    """This job goes to this worker."""

    worker_id: str
    job_id: str
    epoch: int
    start: StartKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire(Decision):
    """This worker takes no more jobs and goes when it has none."""

    reason: StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue(Decision):
    """The deadline of the record's present state has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject(Decision):
    """This job waits, and its code is refused by now."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemn(Decision):
    """The job's worker is being killed, and the job with it; it ends so when the container is gone."""

    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Bereave(Decision):
    """The job's worker is no more."""

    reason: str


# ---- commands ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorker(Command):
    worker_id: str
    edition: int  #: of the pool's data sets


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWorker(Command):
    """Close the link, kill and remove the container; answered by WorkerRemoved."""

    worker_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeWorker(Command):
    """Ask for a beat."""

    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch(Command):
    """Send the job to the worker. Only answers with this epoch count."""

    worker_id: str
    job_id: str
    epoch: int
    attempt: int
    start: StartKind


@dataclass(frozen=True, slots=True, kw_only=True)
class KillJob(Command):
    """Ask the worker to kill the attempt; it answers JobEnded(cancelled)."""

    worker_id: str
    job_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish(Command):
    """The job is DONE. `from_worker`: the answer that came with JobEnded belongs to it; else there is no payload."""

    job_id: str
    outcome: Outcome
    reason: str
    worker_id: str | None
    attempt: int
    from_worker: bool
    started_at: float | None = None  #: monotonic seconds; None if no worker has said that it began


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse(Command):
    """The submitted job was not accepted. `code` is one of `pool.errors`."""

    job_id: str
    code: str
    message: str
    retry_after_s: float | None = None
    fields: Mapping[str, Scalar] = field(default_factory=dict)

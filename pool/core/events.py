"""What can happen to a pool (events) and what the daemon has to do about it (commands). Frozen values.

    Event    what happened        WorkerEvent   to one worker        JobEvent   to one job
    Command  what to do           Accept, Refuse, Finish   are answers to a client; the others act on a worker

Every event carries a `cause`, a short text that names its origin. The commands and the history entries that it leads to
carry the same text, so that each effect can be traced back. An `attachment` is a value of the daemon's that the core
does not look at: it comes back in the command that answers the event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from pool.core.records import HistoryEntry, StopReason
from pool.errors import PoolError
from pool.model import Outcome, StartKind


class Event(Struct, frozen=True, kw_only=True):
    cause: str = ""


class WorkerEvent(Event, frozen=True, kw_only=True):
    worker_id: str


class JobEvent(Event, frozen=True, kw_only=True):
    job_id: str


# ---- jobs ----


class NewJob(JobEvent, frozen=True, kw_only=True):
    """The facts of a job that the core decides by."""

    client: str  #: identity of the submitter, from the socket's credentials
    wall_s: float
    loop: str = ""  #: which of the client's loops it belongs to
    priority: int = 0
    queue_timeout_s: float | None = None
    code: str = ""  #: digest of the job's code, for the poison memory; empty: not remembered
    retries: int = 0  #: further attempts if a fault that was not the job's ends one


class JobSubmitted(NewJob, frozen=True, kw_only=True):
    """A client has submitted a valid job. Answered by Accept or Refuse."""

    size_bytes: int = 0  #: memory that the daemon needs to keep the job until it is done
    follow_up: bool = False  #: the second part of a job that was accepted: refused only if it cannot be run
    held_bytes: int = 0  #: memory that this client's unfinished jobs need already, in all pools together
    attachment: object = None  #: comes back in Accept or Refuse


class Lease(NamedTuple):
    worker_id: str
    epoch: int
    at: float  #: monotonic seconds


class JobRestored(NewJob, frozen=True, kw_only=True):
    """An earlier daemon had accepted the job. It gets a place in the backlog, full or not, unless it is `left`."""

    submitted_at: float  #: monotonic seconds
    attempt: int = 0  #: dispatches so far
    left: Lease | None = None  #: the worker that was found and had it, or was about to get it; None: it waits
    lost: str = ""  #: why the last attempt came to nothing, if it waits for another one


class JobWithdrawn(JobEvent, frozen=True, kw_only=True):
    """The daemon has not carried out the Dispatch of this job, or the Accept, and will not. Answered by Finish."""

    outcome: Outcome
    reason: str


class CancelRequested(JobEvent, frozen=True, kw_only=True):
    pass


# ---- workers ----


class WorkerConnected(WorkerEvent, frozen=True, kw_only=True):
    """The runner of a starting worker has sent Hello."""


class WorkerReady(WorkerEvent, frozen=True, kw_only=True):
    """The handshake is done, the daemon's self-test returned the right value, and the lockdown holds."""

    shareable: bool = True  #: False: its isolation is incomplete, so no worker of the pool may serve two clients


class WorkerFound(WorkerEvent, frozen=True, kw_only=True):
    """At the start of the daemon: an earlier one has left this worker. WorkerAdopted follows, or its deadline."""

    started_at: float  #: monotonic seconds
    edition: int  #: of the pool's data sets; 0: of content that nobody has offered
    client: str | None  #: the only client that it may serve; None: any


class WorkerAdopted(WorkerEvent, frozen=True, kw_only=True):
    """The runner of a worker that was found has proved itself."""

    jobs: int  #: that it has served so far
    shareable: bool = True  #: as in WorkerReady
    cleaning: bool = False  #: WorkerFreed follows
    has_job: bool = False  #: it has the job that was left to it, or its answer: JobEnded follows
    epoch: int = 0  #: of the latest job that it was sent
    elapsed_s: float = 0.0  #: since the start of its job
    unusable: StopReason | None = None  #: why it gets no job


class WorkerFailed(WorkerEvent, frozen=True, kw_only=True):
    """The start failed: engine error, refused handshake, failed self-test."""

    reason: str
    permanent: bool = False  #: another try cannot help, for example because the image is missing


class WorkerVanished(WorkerEvent, frozen=True, kw_only=True):
    """The link broke, or the worker broke the protocol: it is dead or must be treated as dead."""

    reason: str
    #: It was sent a job, and has not sent Freed since. It sends Started of a long job only.
    has_job: bool = False


class WorkerFrozen(WorkerEvent, frozen=True, kw_only=True):
    """The kernel does not run the worker's processes, because somebody has stopped or paused them."""

    reason: str


class WorkerRemoved(WorkerEvent, frozen=True, kw_only=True):
    """The engine has removed the container, or says that it never existed."""

    engine_away: bool = False  #: it did not answer: the container is of no use, and is removed later


class Heartbeat(WorkerEvent, frozen=True, kw_only=True):
    """The worker has sent a heartbeat."""


class JobStarted(WorkerEvent, frozen=True, kw_only=True):
    """The code of the worker's job runs, for longer than a few milliseconds."""


class JobEnded(WorkerEvent, frozen=True, kw_only=True):
    """The worker has reported how its job ended, of a short one without JobStarted before. It now cleans up, which ends
    with WorkerFreed.
    """

    outcome: Outcome
    reason: str = ""
    attachment: object = None  #: the worker's message; comes back in Finish


class WorkerFreed(WorkerEvent, frozen=True, kw_only=True):
    """The worker has cleaned up after its job and can take the next one."""

    residue: str = ""  #: what the worker could not clean up; if any, it is not used again


# ---- operator and clock ----


class DrainRequested(Event, frozen=True, kw_only=True):
    """Take no new jobs and finish the accepted ones; the workers stay."""


class ResumeRequested(Event, frozen=True, kw_only=True):
    """Take jobs again. Also closes the breaker, so that an operator's repair is tried at once."""


class RecycleRequested(Event, frozen=True, kw_only=True):
    """Replace one worker, or all of them one after another."""

    worker_id: str | None = None


class ResizeRequested(Event, frozen=True, kw_only=True):
    min_workers: int
    max_workers: int


class EditionOffered(Event, frozen=True, kw_only=True):
    """The pool's data sets have new content, and workers can be started on it. Numbers grow from 1."""

    edition: int


class PardonRequested(Event, frozen=True, kw_only=True):
    """Forget the workers that code has cost, and accept it again. None: all code."""

    code: str | None = None


class ShutdownRequested(Event, frozen=True, kw_only=True):
    """Take no new jobs, cancel the waiting ones, let running jobs finish until `deadline`, stop every worker."""

    deadline: float  #: monotonic seconds
    keep_waiting: bool = False  #: do not cancel the waiting jobs: the next daemon restores them


class Tick(Event, frozen=True, kw_only=True):
    """Time has passed: check deadlines, ages and waits between retries."""

    until: float | None = None  #: the events that had arrived by then were delivered before it; None: by now


# ---- commands ----


class Command(Struct, frozen=True, kw_only=True):
    cause: str = ""


class Dispatch(Command, frozen=True, kw_only=True):
    """Send the job to the worker. The epoch identifies this lease in every message about it."""

    worker_id: str
    job_id: str
    epoch: int
    attempt: int
    start: StartKind
    at: float  #: monotonic seconds


class Accept(Command, frozen=True, kw_only=True):
    """The submitted job is accepted. The daemon writes it to the journal before it answers the client."""

    job_id: str
    attachment: object = None  #: of the JobSubmitted
    dispatch: Dispatch | None = None  #: to carry out as well: a worker was idle. Its lease is written with the job


class Refuse(Command, frozen=True, kw_only=True):
    """The submitted job is not accepted, and the core has no record of it."""

    job_id: str
    error: PoolError  #: why, and for BusyError and PoisonedCodeError when to try again: `retry_after_s`
    attachment: object = None  #: of the JobSubmitted


class Finish(Command, frozen=True, kw_only=True):
    """The job is done, and the core has no record of it any more."""

    job_id: str
    outcome: Outcome
    reason: str
    worker_id: str | None  #: None: it did not run
    attempt: int
    started_at: float | None = None  #: monotonic seconds; None: it was short, or no worker reported that it started
    attachment: object = None  #: of the JobEnded; None: no worker reported the end
    history: Sequence[HistoryEntry] = ()


class StartWorker(Command, frozen=True, kw_only=True):
    """Create and start a container. Answered by WorkerReady or WorkerFailed."""

    worker_id: str
    number: int  #: of the worker, in its pool
    edition: int  #: of the pool's data sets


class StopWorker(Command, frozen=True, kw_only=True):
    """Close the link, kill and remove the container. Answered by WorkerRemoved."""

    worker_id: str
    reason: StopReason
    failure: str = ""  #: why its start is given up


class ProbeWorker(Command, frozen=True, kw_only=True):
    """Ask for a heartbeat."""

    worker_id: str


class KillJob(Command, frozen=True, kw_only=True):
    """Ask the worker to kill its job. Answered by JobEnded."""

    worker_id: str
    job_id: str
    epoch: int

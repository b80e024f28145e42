"""What the core decides by itself. Fed to the same tables as the events from outside: a state changes nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from pool.core.events import Event
from pool.core.records import StopReason, Verdict
from pool.model import StartKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Event):
    """This job goes to this worker."""

    worker_id: str
    job_id: str
    epoch: int
    start: StartKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire(Event):
    """This worker takes no more jobs and goes when it has none."""

    reason: StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue(Event):
    """The deadline of the record's present state has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject(Event):
    """This job waits, and its code is refused by now."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemn(Event):
    """The job's worker is being killed, and the job with it; it ends so when the container is gone."""

    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Bereave(Event):
    """The job's worker is no more."""

    reason: str

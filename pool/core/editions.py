"""Which content of its data sets a pool's workers are started on: by number, what is in it the daemon knows.

    offered ──▶ on trial ──a worker on it is ready──▶ current: the workers on older ones are replaced, one by one
                   └──that worker fails──▶ the current one stays; tried again in a while, or with the next offer

A pool whose current edition never had a ready worker has nothing to lose: what is offered is current at once. While
workers of two editions serve, a client that has had a job on the newer one gets no older one any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from pool.core.policy import backoff_s


class OnEdition(Protocol):
    edition: int


W = TypeVar("W", bound=OnEdition)


@dataclass(slots=True)
class Trial:
    edition: int
    retry_at: float | None  #: None: not again, for its content is the fault
    worker_id: str | None = None  #: the one that tries it now
    failures: int = 0
    reason: str = ""
    failed_at: float | None = None  #: the first time


@dataclass(frozen=True, slots=True, kw_only=True)
class EditionsView:
    """As the snapshot shows them."""

    current: int
    trial: int | None = None
    reason: str = ""  #: why the trial failed, last time
    failed_at: float | None = None  #: monotonic seconds
    retry_at: float | None = None


@dataclass(slots=True)
class Editions:
    current: int  #: 0: none yet, and no worker can be started
    proven: bool = False  #: a worker has been ready on the current one
    trial: Trial | None = None
    mixed: bool = False  #: workers of older editions are still there
    _seen: dict[str, int] = field(default_factory=dict)  #: the newest by client, while they are mixed

    @property
    def newest(self) -> int:
        return max(self.current, self.trial.edition if self.trial is not None else 0)

    @property
    def trying(self) -> bool:
        return self.trial is not None and self.trial.worker_id is not None

    def offer(self, edition: int, now: float) -> bool:
        """Whether it is current at once."""
        if not self.proven:
            self.current, self.trial = edition, None
            return True
        self.trial = Trial(edition, retry_at=now)
        return False

    def due(self, now: float) -> bool:
        """Whether the next worker to be started has the trial's edition."""
        trial = self.trial
        return trial is not None and trial.worker_id is None and trial.retry_at is not None and trial.retry_at <= now

    def take(self, worker_id: str, now: float) -> int:
        """The edition of a worker that is started now."""
        if self.trial is not None and self.due(now):
            self.trial.worker_id = worker_id
            return self.trial.edition
        return self.current

    def ready(self, edition: int) -> bool:
        """A worker is ready on this one; whether that makes it the current one."""
        if edition < self.current:
            return False
        newer, self.current, self.proven = edition > self.current, edition, True
        if self.trial is not None and self.trial.edition <= edition:
            self.trial = None
        return newer

    def failed(self, worker_id: str, reason: str, *, permanent: bool, now: float) -> None:
        """The worker that tried it could not be started. One that tried an older trial no longer matters."""
        trial = self.trial
        if trial is not None and trial.worker_id == worker_id:
            trial.worker_id, trial.reason = None, reason
            trial.failures += 1
            trial.failed_at = trial.failed_at or now
            trial.retry_at = None if permanent else now + backoff_s(trial.failures)

    def retry(self, now: float) -> None:
        if self.trial is not None and self.trial.worker_id is None:
            self.trial.retry_at = now

    def gone(self, worker_id: str, now: float) -> None:
        """A worker is stopped; if it was trying something, another one will."""
        if self.trial is not None and self.trial.worker_id == worker_id:
            self.trial.worker_id, self.trial.retry_at = None, now

    def served(self, client: str, edition: int) -> None:
        if self.mixed:
            self._seen[client] = max(edition, self._seen.get(client, 0))

    def forget_seen(self) -> None:
        """Where no worker can be started, older data are better than none."""
        self._seen.clear()

    def settle(self, workers: Iterable[OnEdition]) -> None:
        """Once the last worker of an older edition is gone, all clients are equal."""
        if self.mixed and all(worker.edition >= self.current for worker in workers):
            self.mixed = False
            self._seen.clear()

    def fit(self, workers: list[W], client: str) -> list[W]:
        """Those with nothing older than what the client has seen."""
        least = self._seen.get(client, 0)
        return [worker for worker in workers if worker.edition >= least] if least else workers

    def view(self) -> EditionsView:
        trial = self.trial
        if trial is None:
            return EditionsView(current=self.current)
        return EditionsView(
            current=self.current,
            trial=trial.edition,
            reason=trial.reason,
            failed_at=trial.failed_at,
            retry_at=trial.retry_at,
        )


# ---- when a file has to be read again ----

# When a file that is watched has to be read again: what its stat says, and when. No file is touched in here.
#
# unchanged ──other stamp, or gone──▶ restless ──the same stamp for SETTLE_S──▶ read it ──prepared──▶ unchanged
# └──failed──▶ again in RETRY_S

#: A file that is still being written changes its size or its time within this.
SETTLE_S = 2.0
#: After a file could not be read, and is as it was.
RETRY_S = 10.0


class Stamp(NamedTuple):
    """What changes when a file is written, or another one takes its name."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Freshness:
    """Of one file. Times are monotonic seconds."""

    prepared: Stamp | None = None
    gone_since: float | None = None
    _seen: Stamp | None = None
    _quiet_at: float = 0.0  #: when it may be read, if it stays as it is

    def look(self, stamp: Stamp | None, now: float) -> bool:
        """Whether the file is to be read now. None: there is none."""
        if stamp is None:
            self.gone_since = now if self.gone_since is None else self.gone_since
            self._seen = None
            return False
        self.gone_since = None
        if stamp != self._seen:
            first = self._seen is None and self.prepared is None
            self._seen, self._quiet_at = stamp, now if first else now + SETTLE_S
        return stamp != self.prepared and now >= self._quiet_at

    def read(self, stamp: Stamp) -> None:
        """It was read, and had this stamp before and after."""
        self.prepared = self._seen = stamp

    def failed(self, now: float) -> None:
        self._quiet_at = now + RETRY_S

"""Data sets: which content a pool's workers are started with, and when a watched file has to be read again.

An edition is one content of all data sets of a pool. The core has only its number; the daemon has the content.

    offered ──▶ on trial ──a worker with it is ready──▶ current: the workers on older ones are replaced, one by one
                   └──that worker fails──▶ the current one stays; the trial is repeated later, or replaced by an offer

If no worker was ever ready on the current edition, a new one becomes current at once. While workers of two editions
serve, a client that has had a job on the newer one gets no older one any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple, Protocol

from pool.core.policy import backoff_s, jittered


class OnEdition(Protocol):
    edition: int


@dataclass(slots=True)
class Trial:
    edition: int
    retry_at: float | None  #: None: no further try, because the content itself is at fault
    worker_id: str | None = None  #: the worker that tries it now
    failures: int = 0
    reason: str = ""
    failed_at: float | None = None  #: of the first failure


class EditionsView(NamedTuple):
    """The editions in the snapshot."""

    current: int
    trial: int | None = None
    reason: str = ""  #: why the trial failed the last time
    failed_at: float | None = None  #: monotonic seconds
    retry_at: float | None = None  #: monotonic seconds


@dataclass(slots=True)
class Editions:
    current: int  #: 0: none yet, and no worker can be started
    rng: Random  #: spreads the tries
    proven: bool = False  #: a worker has been ready on the current one
    trial: Trial | None = None
    mixed: bool = False  #: workers on older editions still exist
    seen: dict[str, int] = field(default_factory=dict)  #: while they are mixed: the newest that each client has had

    @property
    def newest(self) -> int:
        return max(self.current, self.trial.edition if self.trial is not None else 0)

    @property
    def trying(self) -> bool:
        return self.trial is not None and self.trial.worker_id is not None

    def offer(self, edition: int, now: float) -> bool:
        """Returns whether it is current at once."""
        if not self.proven:
            self.current, self.trial = edition, None
            return True
        self.trial = Trial(edition, retry_at=now)
        return False

    def take(self, worker_id: str, now: float) -> int:
        """The edition of a worker that is started now: the trial's, if that is due."""
        trial = self.trial
        if trial is None or trial.worker_id is not None or trial.retry_at is None or trial.retry_at > now:
            return self.current
        trial.worker_id = worker_id
        return trial.edition

    def ready(self, edition: int) -> bool:
        """A worker is ready on this edition. Returns whether that makes it the current one."""
        if edition < self.current:
            return False
        newer, self.current, self.proven = edition > self.current, edition, True
        if self.trial is not None and self.trial.edition <= edition:
            self.trial = None
        return newer

    def failed(self, worker_id: str, reason: str, *, permanent: bool, now: float) -> None:
        """This worker could not be started. Only the worker of the present trial matters."""
        trial = self.trial
        if trial is not None and trial.worker_id == worker_id:
            trial.worker_id, trial.reason = None, reason
            trial.failures += 1
            trial.failed_at = trial.failed_at or now
            trial.retry_at = None if permanent else now + jittered(backoff_s(trial.failures), self.rng)

    def retry(self, now: float) -> None:
        if self.trial is not None and self.trial.worker_id is None:
            self.trial.retry_at = now

    def gone(self, worker_id: str, now: float) -> None:
        """This worker is stopped. If it was on trial, another one will be."""
        if self.trial is not None and self.trial.worker_id == worker_id:
            self.trial.worker_id, self.trial.retry_at = None, now

    def served(self, client: str, edition: int) -> None:
        """Called while they are mixed."""
        self.seen[client] = max(edition, self.seen.get(client, 0))

    def forget_seen(self) -> None:
        """Allow older data sets for all clients again, while no worker can be started."""
        self.seen.clear()

    def settle(self, workers: Iterable[OnEdition]) -> None:
        """A worker is gone. After the last worker on an older edition, all clients are equal again."""
        if self.mixed and all(worker.edition >= self.current for worker in workers):
            self.mixed = False
            self.seen.clear()

    def view(self) -> EditionsView:
        trial = self.trial
        if trial is None:
            return EditionsView(self.current)
        return EditionsView(self.current, trial.edition, trial.reason, trial.failed_at, trial.retry_at)


# ---- when a watched file has to be read again ----
#
# unchanged ──other stamp, or gone──▶ changing ──the same stamp for SETTLE_S──▶ read it ──done──▶ unchanged
#                                                                                └──failed──▶ again after RETRY_S

#: A file that is still being written changes its size or its time within this time.
SETTLE_S = 2.0
#: Pause after a file could not be read and has not changed.
RETRY_S = 10.0


class Stamp(NamedTuple):
    """Changes when a file is written, or another file takes its name."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Freshness:
    """Decides when one file is to be read, from its stamps; it touches no file. Times are monotonic seconds."""

    prepared: Stamp | None = None  #: of the content that was read last
    gone_since: float | None = None
    _seen: Stamp | None = None
    _quiet_at: float = 0.0  #: when it may be read, if it stays unchanged

    def look(self, stamp: Stamp | None, now: float) -> bool:
        """Whether the file is to be read now. `stamp` None: there is no file."""
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
        """The file was read, and had this stamp before and after."""
        self.prepared = self._seen = stamp

    def failed(self, now: float) -> None:
        self._quiet_at = now + RETRY_S

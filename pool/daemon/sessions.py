"""Clients over their connections, and the jobs that are cancelled when their client is gone.

    Ping(session) ──▶ connected ──last connection ends──▶ absent ──GRACE_S──▶ gone: its jobs are cancelled
                          ▲                                 │
                          └───────────── Ping ──────────────┘

The kernel closes the connections of a process that ends, however it ends. A client whose connection was lost connects
again at once and names its session. A job that somebody else waits for by then goes on. The session of a job is in the
journal, so a client that ended while there was no daemon is noticed, too.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog

from pool.daemon.job import Job
from pool.daemon.job_store import JobStore
from pool.daemon.zmtp import ClientListener

log = structlog.get_logger(__name__)

#: How long a client may be without a connection. A client on a busy host connects again within a second.
GRACE_S = 3.0
#: The same after a restart of the daemon, when all clients connect at once.
RESTART_GRACE_S = 10.0
#: `tick` is called every second. In a longer pause the daemon did not run and nobody could connect: it does not count.
_PAUSE_S = 1.5


class Sessions:
    """Used from the loop's thread. `cancel` ends a job that is not done."""

    def __init__(self, listener: ClientListener, jobs: JobStore, cancel: Callable[[Job], object]) -> None:
        self._listener = listener
        self._jobs = jobs
        self._cancel = cancel
        self._connected: dict[str, set[bytes]] = {}
        self.of: dict[bytes, str] = {}  #: by connection, if it has named a session
        self.absent: OrderedDict[str, float] = OrderedDict()  #: those with jobs; when each is gone
        self.with_jobs: set[str] = set()  #: each is connected, or absent
        self._ticked_at = 0.0  # or when the first of those that are absent now became so
        listener.on_end = self._ended

    def announce(self, address: bytes, client: str, session: str) -> None:
        """This connection belongs to that session of the user `client`."""
        if address in self.of or not self._is_open(address):
            return
        name = f"{client}/{session}"
        self.of[address] = name
        self._connected.setdefault(name, set()).add(address)
        self.absent.pop(name, None)

    def bind(self, session: str) -> None:
        """Jobs of this session are to be cancelled when it is gone."""
        self.with_jobs.add(session)
        if session not in self._connected and session not in self.absent:
            self._miss(session, time.monotonic(), GRACE_S)

    def restore(self, now: float) -> None:
        """Called at the start of the daemon: the clients of an earlier daemon's jobs have to connect again."""
        for job in self._jobs:
            if job.session and job.run is not None:
                self.with_jobs.add(job.session)
                self._miss(job.session, now, RESTART_GRACE_S)

    def _miss(self, session: str, now: float, grace_s: float) -> None:
        if not self.absent:
            self._ticked_at = now
        self.absent[session] = now + grace_s

    def tick(self, now: float) -> float:
        """Cancel the jobs of clients that are gone. Returns the time of the next look."""
        pause_s, self._ticked_at = now - self._ticked_at, now
        if pause_s > _PAUSE_S:
            self.absent = OrderedDict((name, at + pause_s) for name, at in self.absent.items())
        gone = set()
        while self.absent and next(iter(self.absent.values())) <= now:
            gone.add(self.absent.popitem(last=False)[0])
        if gone:
            self.with_jobs -= gone
            for job in [each for each in self._jobs if each.session in gone and each.run is not None]:
                if not any(map(self._is_open, job.watchers)):
                    log.info("a job is cancelled with its client", action="client_gone", job=job.key, pool=job.pool)
                    self._cancel(job)
        return next(iter(self.absent.values()), math.inf)

    def _ended(self, address: bytes) -> None:
        name = self.of.pop(address, None)
        if name is None:
            return
        connections = self._connected[name]
        connections.discard(address)
        if not connections:
            del self._connected[name]
            if name in self.with_jobs:
                self._miss(name, time.monotonic(), GRACE_S)

    def _is_open(self, address: bytes) -> bool:
        return self._listener.queued_bytes(address) is not None

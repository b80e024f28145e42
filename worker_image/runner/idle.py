"""A worker between two jobs: it is ready, it is alive, and it is as it was before its first job.

    first child parked, Hello sent: Ready ──▶ free ──Run──▶ busy ──end──▶ next child parked, link up: Freed ──▶ free

The counters and the baseline that a job is compared with are read while the worker has none, which delays no job.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from pool import wire
from runner import huge_pages, usage
from runner.baseline import Baseline
from runner.usage import Meter

if TYPE_CHECKING:
    from runner.children import Children
    from runner.link import Link
    from runner.loop import Loop

#: The parked child warms up when its worker has been free for so long.
_WARM_UP_WHEN_FREE_S = 0.05
#: When most of what was read of libraries is needed no more. A worker for one job has ended by then.
_STARTED_AFTER_S = 2.0
_release_files = partial(huge_pages.release_files, threads=True)  # those of libzmq
#: When to compare the worker with its baseline again, while libzmq closes the descriptors of an earlier connection.
_LOOK_AGAIN_S = 0.02


class Settings(Struct, frozen=True, kw_only=True):
    scratch: tuple[Path, ...]
    heartbeat_s: float
    orphan_s: float  #: how long a worker without a job waits for the next daemon
    born: float  #: monotonic seconds at the start of the process
    single: bool  #: whether it gets one job; then nothing is prepared for a second one, and Freed follows no job
    checked: bool  #: whether processes, mounts and limits are the worker's alone, so that a change must be a job's


class Idle:
    """Says that the worker is ready, alive and free, and counts what is used while it is."""

    def __init__(self, settings: Settings, link: Link, loop: Loop, children: Children) -> None:
        self.ready = False
        self.free = True  #: whether the next job may come; the runner sets it when it does
        self.meter: Meter | None = None
        self.oom_kills = 0  #: before the job, in the worker's memory cgroup
        self._freed: wire.Freed | None = None  # to be sent once the next child is parked and the link is up
        self._baseline: Baseline | None = None
        self._settings = settings
        self._link = link
        self._loop = loop
        self._children = children
        loop.timers[self._beat] = 0.0

    @property
    def busy(self) -> bool:
        """Whether a job runs, or something of it is left."""
        return not self.free and self._freed is None

    def _beat(self) -> None:
        self._loop.timers[self._beat] = time.monotonic() + self._settings.heartbeat_s
        if self.ready and not self.busy:
            self._link.send(wire.Heartbeat())
            if self.free:
                self.renew()

    def renew(self) -> None:
        """While nothing of a job is left. What the worker uses does not count for the next job."""
        self.oom_kills = usage.oom_kills()
        if self.meter is not None:
            self.meter.renew()

    def announce(self) -> None:
        """Send Ready once the first child is parked and the daemon has had Hello. Either may be the later one."""
        if self.ready or not self._link.greeted or not self._children.ready:
            return
        self.ready = True
        if self._settings.checked:
            self.meter = Meter()
        self.renew()
        self._loop.timers[_release_files] = time.monotonic() + _STARTED_AFTER_S
        boot_ms, found = (time.monotonic() - self._settings.born) * 1000, self._children
        self._link.send(
            wire.Ready(
                boot_ms=boot_ms, preload_ms=found.preload_ms, isolation=found.isolation, missing=tuple(found.missing)
            )
        )

    def end(self, epoch: int, residue: str) -> None:
        """Nothing of the job is left but the residue."""
        self._freed = wire.Freed(epoch=epoch, residue=residue)
        self.go_on()

    def go_on(self) -> None:
        """Tell the daemon that this worker is free, once the next child is parked and the link is up."""
        if not self._link.up or self._freed is None or not self._children.ready:
            return
        found = self._deviations()
        if found and time.monotonic() < self._link.settled_at:
            self._loop.timers[self.go_on] = time.monotonic() + _LOOK_AGAIN_S
            return
        freed, self._freed, self.free = self._freed, None, True
        self.renew()
        self._link.send(wire.Freed(epoch=freed.epoch, residue="; ".join(filter(None, [freed.residue, *found]))))
        self._loop.timers[self._children.warm_up] = time.monotonic() + _WARM_UP_WHEN_FREE_S

    def _deviations(self) -> list[str]:
        """The first job is the daemon's self-test. Only after it has libzmq opened all its descriptors."""
        if self._baseline is not None:
            return self._baseline.deviations()
        if self._settings.checked and not self._settings.single:
            self._baseline = Baseline(self._children.zygote_pid)
        return []

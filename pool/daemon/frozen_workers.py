"""Finds workers whose processes the kernel does not run: stopped by a signal, or in a frozen control group (a pause).

A frozen worker and one that gets no core on a busy host are equally silent, so silence alone takes long to judge. The
kernel's state of the worker's first process shows the difference at once, with a job and without one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pool.core import events as ev
from pool.core.machine import PoolState
from pool.daemon.worker_handle import WorkerHandle
from pool.errors import PoolError

#: How often workers are checked, and how many checks in a row must find a worker frozen. So it is noticed after 1.2 to
#: 1.6 s; a loop that is late checks later, and no worker is stopped for a pause of less than 1.2 s.
LOOK_S = 0.4
LOOKS = 4

_CGROUPS = Path("/sys/fs/cgroup")


class Pool(Protocol):
    """The controller of a pool."""

    @property
    def state(self) -> PoolState: ...
    @property
    def handles(self) -> Mapping[str, WorkerHandle]: ...
    def apply(self, event: ev.Event) -> PoolError | None: ...


class FrozenWorkers:
    """Tells each pool of its frozen workers. Used from the loop's thread."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self.look_at = 0.0  #: monotonic seconds
        self._pools = pools
        self._freezers: dict[int, Path | None] = {}  # by pid
        self._looks: dict[str, int] = {}  # of each worker that is frozen, how many in a row have found it so

    def look(self) -> None:
        """To be called at `look_at`."""
        self.look_at = time.monotonic() + LOOK_S
        before, self._looks = self._looks, {}
        known, self._freezers = self._freezers, {}
        for pool in self._pools.values():
            for handle in list(pool.handles.values()):
                if handle.pid is None:
                    continue
                freezer = known[handle.pid] if handle.pid in known else freezer_of(handle.pid)
                self._freezers[handle.pid] = freezer
                if reason := why_frozen(handle.pid, freezer):
                    self._count(pool, handle, reason, before.get(handle.id, 0) + 1)

    def _count(self, pool: Pool, handle: WorkerHandle, reason: str, looks: int) -> None:
        self._looks[handle.id] = looks
        if looks == LOOKS:
            handle.log.warning("a worker is frozen", action="worker_frozen", reason=reason)
            pool.apply(ev.WorkerFrozen(worker_id=handle.id, reason=reason, cause="kernel"))


def freezer_of(pid: int, *, cgroups: Path = _CGROUPS) -> Path | None:
    """The file that tells whether the control group of a process is frozen; None if it cannot be found."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if "freezer" in controllers.split(","):
            places = [cgroups / controllers / path.lstrip("/") / "freezer.state"]
        elif not controllers:
            places = [each / path.lstrip("/") / "cgroup.events" for each in (cgroups, cgroups / "unified")]
        else:
            continue
        for place in places:
            if place.exists():
                return place
    return None


def why_frozen(pid: int, freezer: Path | None) -> str:
    """Why the kernel does not run this process; "" if it does, or if that cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        if stat.rpartition(")")[2].split()[0] == "T":
            return "its first process was stopped by a signal"
        if freezer is not None and not {"FROZEN", "frozen 1"}.isdisjoint(freezer.read_text("ascii").splitlines()):
            return "its control group is frozen, as by docker pause"
    except OSError:
        pass
    return ""

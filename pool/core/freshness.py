"""When a file that is watched has to be read again: what its stat says, and when. No file is touched in here.

unchanged ──other stamp, or gone──▶ restless ──the same stamp for SETTLE_S──▶ read it ──prepared──▶ unchanged
└──failed──▶ again in RETRY_S
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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

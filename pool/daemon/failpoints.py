"""Named points at which a test can have the daemon killed: before and after each write and each message.

`arm` is called by the test daemons only (`tests/support`). In any other daemon a point is one look into an empty
dictionary.
"""

from __future__ import annotations

import os
import signal

_KINDS = ("Accept", "Lease", "End", "Collect", "Drop", "SetFact")
_MESSAGES = ("Accepted", "Run", "Result")
#: Every point, in about the order in which a job passes them.
POINTS = (
    *(f"{when}:{kind}" for kind in _KINDS for when in ("write", "written")),
    *(f"{when}:{kind}" for kind in _MESSAGES for when in ("send", "sent")),
)

_armed: dict[str, int] = {}


def arm(name: str, passes: int) -> None:
    """Kill this process, as kill -9 does, when it reaches the point after passing it so many times."""
    if name not in POINTS:
        raise ValueError(f"there is no point {name!r}; there are: {', '.join(POINTS)}")
    _armed[name] = passes


def reach(name: str) -> None:
    if name in _armed:
        if not _armed[name]:
            os.kill(os.getpid(), signal.SIGKILL)
        _armed[name] -= 1

"""Has a daemon killed at a named point: before and after each write to the journal and each message. For test daemons."""

import os
import signal
from collections.abc import Callable, Iterable
from functools import wraps

from pool import wire
from pool.daemon.journal_file import JournalFile
from pool.daemon.zmtp import ClientListener, WorkerLinks

_KINDS = ("Accept", "Lease", "End", "Collect", "Drop", "SetFact")
_MESSAGES = ("Accepted", "Run", "Result", "Collected")
#: Every point, in about the order in which a job passes them.
POINTS = (
    *(f"{when}:{kind}" for kind in _KINDS for when in ("write", "written")),
    *(f"{when}:{kind}" for kind in _MESSAGES for when in ("send", "sent")),
)


def arm(name: str, passes: int) -> None:
    """Kill this process, as kill -9 does, when it reaches the point after passing it so many times."""
    if name not in POINTS:
        raise ValueError(f"there is no point {name!r}; there are: {', '.join(POINTS)}")
    when, _, kind = name.partition(":")
    left = [passes]

    def reach(found: Iterable[object]) -> None:
        for each in found:
            if type(each).__name__ == kind and not (isinstance(each, wire.Run) and each.epoch == 0):  # a self-test
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

    if when in {"write", "written"}:
        _watch(JournalFile, "commit", reach, after=when == "written")
    else:
        for sender in (ClientListener, WorkerLinks):
            _watch(sender, "send", lambda _to, *said, first=None, **_: reach([first, *said]), after=when == "sent")


def _watch(owner: type, method: str, reach: Callable[..., None], *, after: bool) -> None:
    real = getattr(owner, method)

    @wraps(real)
    def watched(self, *arguments, **options):
        if not after:
            reach(*arguments, **options)
        result = real(self, *arguments, **options)
        if after:
            reach(*arguments, **options)
        return result

    setattr(owner, method, watched)

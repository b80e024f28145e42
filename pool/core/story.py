"""The bounded history of each job, worker and pool, for a bug report.

A record carries its own history while it lives; when it is dropped the history moves to the bygone ones, the oldest of
which are forgotten. What arrives for an id that nobody knows is kept there too.
"""

from __future__ import annotations

from typing import NamedTuple

#: Entries of one record: the whole life of a job, the last dozen or so jobs of a worker.
MAX_ENTRIES = 64
#: Histories kept of what is gone; a few minutes of a busy pool, a few megabytes.
MAX_BYGONE = 2000


class StoryEntry(NamedTuple):
    at: float  #: monotonic seconds
    id: str
    state: str  #: the state after it
    text: str
    cause: str


History = list[StoryEntry]


def append(history: History, entry: StoryEntry) -> None:
    history.append(entry)
    if len(history) > MAX_ENTRIES:
        del history[0]


class Bygone:
    """Histories by id of records that are gone, oldest first."""

    def __init__(self) -> None:
        self._histories: dict[str, History] = {}

    def keep(self, record_id: str, entries: History) -> None:
        history = self._histories.pop(record_id, [])
        for entry in entries:
            append(history, entry)
        self._histories[record_id] = history
        if len(self._histories) > MAX_BYGONE:
            del self._histories[next(iter(self._histories))]

    def of(self, record_id: str) -> History:
        return self._histories.get(record_id, [])

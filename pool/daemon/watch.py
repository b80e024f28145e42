"""A thread that looks at the files of data sets every few seconds and pins what has changed; the loop never waits.

files ──stat──▶ Freshness: read it now? ──▶ Copies.pin ──▶ Report, in each round ──▶ the loop (shelf.py)
keep() ◀──┘ the copies it still needs
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pool.core.editions import Freshness
from pool.daemon.copies import Copies, Pin, PinError, stamp_of

POLL_S = 1.0


class Problem(NamedTuple):
    """Why the latest pin may not be what the file holds."""

    text: str
    since: float  #: monotonic seconds


@dataclass(frozen=True, slots=True)
class Report:
    """What one round has found. Of every file: its latest pin, if it ever had one, and what is wrong with it now."""

    number: int
    pins: Mapping[Path, Pin]
    problems: Mapping[Path, Problem]


class Watch:
    """Of all files of all pools. `deliver` is called in the thread; the other methods in the loop's."""

    def __init__(self, paths: Sequence[Path], directory: Path, deliver: Callable[[Report], None]) -> None:
        self._files = {path: Freshness() for path in paths}
        self._stop = threading.Event()
        self._copies = Copies(directory, halted=self._stop.is_set)
        self._deliver = deliver
        self._pins: dict[Path, Pin] = {}
        self._failures: dict[Path, Problem] = {}
        self._kept: tuple[int, Collection[Path]] = (-1, ())
        self._thread = threading.Thread(target=self._run, name="datasets")

    def start(self) -> None:
        if self._files:
            self._thread.start()

    def keep(self, number: int, copies: Collection[Path]) -> None:
        """After the report of this number: no other copies are needed."""
        self._kept = number, copies

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            known, copies = self._kept
            if known == number:  # the loop has seen every pin there is
                self._copies.prune(copies)
            number += 1
            for path, freshness in self._files.items():
                self._look(path, freshness)
            self._deliver(Report(number, dict(self._pins), self._problems()))
            self._stop.wait(POLL_S)

    def _look(self, path: Path, freshness: Freshness) -> None:
        stamp = stamp_of(path)
        if freshness.look(stamp, time.monotonic()):
            try:
                self._pins[path] = self._copies.pin(path)
            except PinError as error:
                now = time.monotonic()
                self._failures[path] = Problem(str(error), now)
                freshness.failed(now)
                return
            freshness.read(self._pins[path].stamp)
        if stamp is not None and stamp == freshness.prepared:
            self._failures.pop(path, None)

    def _problems(self) -> dict[Path, Problem]:
        gone = {
            path: Problem(f"{path} is gone; put it back", freshness.gone_since)
            for path, freshness in self._files.items()
            if freshness.gone_since is not None
        }
        return self._failures | gone

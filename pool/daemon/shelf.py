"""The data sets of one pool: which content each edition has. The core decides on editions by their numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from pool.daemon.copies import Pin
from pool.daemon.watch import Problem, Report

Pins = Mapping[str, Pin]


class Shelf:
    """Used from the loop's thread. A pool without data sets has one edition, 1, with nothing in it."""

    def __init__(self, datasets: Mapping[str, Path]) -> None:
        self.paths = dict(datasets)
        self.problems: dict[str, Problem] = {}
        self.newest = 0 if datasets else 1
        self._editions: dict[int, Pins] = {}

    def of(self, edition: int) -> Pins:
        return self._editions.get(edition, {})

    def update(self, report: Report) -> bool:
        """Whether there is a new edition: all files have a pin, and not all have the ones of the newest edition."""
        self.problems = {name: report.problems[path] for name, path in self.paths.items() if path in report.problems}
        pins = {name: report.pins[path] for name, path in self.paths.items() if path in report.pins}
        if len(pins) < len(self.paths) or _contents(pins) == _contents(self.of(self.newest)):
            return False
        self.newest += 1
        self._editions[self.newest] = pins
        return True

    def trim(self, needed: Collection[int]) -> None:
        """Forget editions that no worker will be started on any more."""
        self._editions = {
            number: pins for number, pins in self._editions.items() if number in needed or number == self.newest
        }

    def copies(self) -> Iterator[Path]:
        """Every copy that a worker may yet be given."""
        return (pin.copy for pins in self._editions.values() for pin in pins.values())


def _contents(pins: Pins) -> dict[str, str]:
    return {name: pin.digest for name, pin in pins.items()}

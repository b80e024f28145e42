"""Private copies of data sets, by digest: what workers are given never changes, whatever happens to the file.

    /srv/prices.npy ──read, SHA-256──▶ state_dir/datasets/<digest>.npy      0444, below a directory that only we enter

A copy is read once more when it is made, and when a daemon first finds it there: from then on its size and its time
vouch for its digest, and no worker reads all of it before it may start. It shares its blocks with the original where
the file system can do that. Everything here reads whole files and is called from a thread of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from pool.core.editions import Freshness, Stamp

_BITE_BYTES = 1 << 20
#: ioctl of Linux: let two files share their blocks.
_FICLONE = 0x40049409


class PinError(Exception):
    """The file cannot be pinned now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One content of one data set."""

    path: Path  #: the operator's
    copy: Path
    digest: str  #: SHA-256, in hex
    size_bytes: int
    stamp: Stamp
    copied: Stamp  #: of the copy, when it was found to have the digest


def stamp_of(path: Path) -> Stamp | None:
    """None: there is no such file."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


class DatasetCopies:
    """The directory of copies. `halted` is asked between bites: a stop does not wait for the end of a large file."""

    def __init__(self, directory: Path, *, halted: Callable[[], bool] = lambda: False) -> None:
        self._directory = directory
        self._halted = halted
        self._digests: dict[Stamp, str] = {}
        self._sound: dict[Path, Stamp] = {}  #: copies that have been found to have their digest

    def pin(self, path: Path) -> Pin:
        """Digest and copy of what is there now. Raises PinError."""
        try:
            with path.open("rb", buffering=0) as file:
                return self._pin(path, file)
        except OSError as error:
            what = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
            raise PinError(f"{path} cannot be read and copied to {self._directory}: {what}") from error

    def prune(self, kept: Collection[Path]) -> None:
        """Remove every copy but these. Workers that have one mounted keep it."""
        with contextlib.suppress(OSError):  # what cannot be removed now may be next time
            for path in self._directory.iterdir():
                if path not in kept:
                    path.unlink(missing_ok=True)
                    self._sound.pop(path, None)

    def _pin(self, path: Path, file: IO[bytes]) -> Pin:
        before = _stamp(os.fstat(file.fileno()))
        digest = self._digests.get(before) or self._digest(file)
        copy = self._directory / f"{digest}{path.suffix}"
        if not self._is_sound(copy, digest):
            self._copy(file, copy)
        if _stamp(os.fstat(file.fileno())) != before or not self._is_sound(copy, digest):
            raise PinError(f"{path} changed while it was read; it is read again when it has come to rest")
        self._digests = {stamp: known for stamp, known in self._digests.items() if stamp.inode != before.inode}
        self._digests[before] = digest
        copied = self._sound[copy]
        return Pin(path=path, copy=copy, digest=digest, size_bytes=before.size, stamp=before, copied=copied)

    def _is_sound(self, copy: Path, digest: str) -> bool:
        """Whether it is there and has this digest. It is read unless it was found so and has not been touched since."""
        stamp = stamp_of(copy)
        if stamp is None:
            return False
        if self._sound.get(copy) != stamp:
            with copy.open("rb", buffering=0) as file:
                if self._digest(file) != digest:
                    return False
            self._sound[copy] = stamp
        return True

    def _digest(self, file: IO[bytes]) -> str:
        state = hashlib.sha256()
        while bite := self._bite(file):
            state.update(bite)
        return state.hexdigest()

    def _bite(self, file: IO[bytes]) -> bytes:
        if self._halted():
            raise PinError("the daemon is stopping")
        return file.read(_BITE_BYTES)

    def _copy(self, file: IO[bytes], target: Path) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        try:
            with partial.open("wb", buffering=0) as out:
                self._fill(file, out)
                os.fchmod(out.fileno(), 0o444)
                os.fsync(out.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _fill(self, file: IO[bytes], out: IO[bytes]) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(out.fileno(), _FICLONE, file.fileno())
            return
        file.seek(0)
        while bite := self._bite(file):
            out.write(bite)


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


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


class DatasetWatcher:
    """Of all files of all pools. `deliver` is called in the thread; the other methods in the loop's."""

    def __init__(self, paths: Sequence[Path], directory: Path, deliver: Callable[[Report], None]) -> None:
        self._files = {path: Freshness() for path in paths}
        self._stop = threading.Event()
        self._copies = DatasetCopies(directory, halted=self._stop.is_set)
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


Pins = Mapping[str, Pin]


class PoolDatasets:
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

"""Data sets on the host: private copies by digest, the thread that watches the files, and the editions of a pool.

    /srv/prices.npy ──read, SHA-256──▶ state_dir/datasets/<digest>.npy      0444, in a directory that only we may enter

    DatasetWatcher (a thread): stat ──▶ Freshness: read it now? ──▶ DatasetCopies.pin ──▶ Report ──▶ the loop
    PoolDatasets (in the loop): Report ──▶ a new edition? The core decides about editions by their numbers.

Workers get copies, so that their data do not change when the file does. A copy is read when it is made and when a
daemon first finds it; after that it counts as unchanged while its size and its time are the same, so that no worker has
to read all of it at its start. A copy shares its blocks with the file if the file system can do that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from pool.core.editions import Freshness, Stamp

_BLOCK_BYTES = 1 << 20
#: The ioctl that lets two files share their blocks.
_FICLONE = 0x40049409


class PinError(Exception):
    """A file cannot be copied now; the text has the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One content of one data set, and the copy that has it."""

    path: Path  #: of the operator's file
    copy: Path
    digest: str  #: SHA-256, in hex
    size_bytes: int
    stamp: Stamp  #: of the file
    copied: Stamp  #: of the copy, when its digest was checked


def stamp_of(path: Path) -> Stamp | None:
    """Identity, size and time of a file; None if there is no such file."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


class DatasetCopies:
    """The directory of copies. It reads whole files, in the thread that calls it, until `halted` returns True."""

    def __init__(self, directory: Path, *, halted: Callable[[], bool] = lambda: False) -> None:
        self._directory = directory
        self._halted = halted
        self._digests: dict[Stamp, str] = {}
        self._checked: dict[Path, Stamp] = {}  # copies whose digest was checked, and their stamp at that time

    def pin(self, path: Path) -> Pin:
        """Copy a file as it is now, unless there is such a copy. Raises PinError."""
        try:
            with open(path, "rb", buffering=0, opener=_open_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise PinError(f"{path} is no plain file; put one there")
                return self._pin(path, file)
        except OSError as error:
            what = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
            raise PinError(f"{path} cannot be read and copied to {self._directory}: {what}") from error

    def prune(self, kept: Collection[Path]) -> None:
        """Remove all copies but these. A worker that has mounted a removed copy can still read it."""
        with contextlib.suppress(OSError):  # it is tried again in the next round
            for path in self._directory.iterdir():
                if path not in kept:
                    path.unlink(missing_ok=True)
                    self._checked.pop(path, None)

    def _pin(self, path: Path, file: IO[bytes]) -> Pin:
        before = _stamp(os.fstat(file.fileno()))
        digest = self._digests.get(before) or self._digest(file)
        copy = self._directory / f"{digest}{path.suffix}"
        if not self._has_digest(copy, digest):
            self._copy(file, copy)
        if _stamp(os.fstat(file.fileno())) != before or not self._has_digest(copy, digest):
            raise PinError(f"{path} changed while it was read; it is read again when it no longer changes")
        self._digests = {stamp: known for stamp, known in self._digests.items() if stamp.inode != before.inode}
        self._digests[before] = digest
        copied = self._checked[copy]
        return Pin(path=path, copy=copy, digest=digest, size_bytes=before.size, stamp=before, copied=copied)

    def _has_digest(self, copy: Path, digest: str) -> bool:
        """Whether the copy exists and has this digest. It is read unless it has not changed since it was checked."""
        stamp = stamp_of(copy)
        if stamp is None:
            return False
        if self._checked.get(copy) != stamp:
            with copy.open("rb", buffering=0) as file:
                if self._digest(file) != digest:
                    return False
            self._checked[copy] = stamp
        return True

    def _digest(self, file: IO[bytes]) -> str:
        state = hashlib.sha256()
        while block := self._read_block(file):
            state.update(block)
        return state.hexdigest()

    def _read_block(self, file: IO[bytes]) -> bytes:
        if self._halted():
            raise PinError("the daemon is stopping")
        return file.read(_BLOCK_BYTES)

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
        while block := self._read_block(file):
            out.write(block)


def _open_at_once(path: str, flags: int) -> int:
    """Without waiting for who writes to a fifo."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


#: Seconds between two rounds of the watcher.
POLL_S = 1.0


class Problem(NamedTuple):
    """Why the latest pin may differ from the file."""

    text: str
    since: float  #: monotonic seconds


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a round, by file: its latest pin, if there ever was one, and its problem, if it has one now."""

    number: int
    pins: Mapping[Path, Pin]
    problems: Mapping[Path, Problem]


class DatasetWatcher:
    """A thread that watches the files of all pools. It calls `deliver`; the loop calls the methods."""

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
        """Remove the copies of the report with this number and of earlier ones, except these."""
        self._kept = number, copies

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            known, copies = self._kept
            if known == number:  # the loop has seen all pins
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
    """The editions of one pool: each is one content of all its data sets. Used from the loop's thread.

    A pool without data sets has one edition, number 1, which is empty.
    """

    def __init__(self, datasets: Mapping[str, Path]) -> None:
        self.paths = dict(datasets)
        self.problems: dict[str, Problem] = {}
        self.newest = 0 if datasets else 1
        self._editions: dict[int, Pins] = {}

    def of(self, edition: int) -> Pins:
        return self._editions.get(edition, {})

    def update(self, report: Report) -> bool:
        """Make a new edition if all files have a pin and one differs from the newest edition; whether there is one."""
        self.problems = {name: report.problems[path] for name, path in self.paths.items() if path in report.problems}
        pins = {name: report.pins[path] for name, path in self.paths.items() if path in report.pins}
        if len(pins) < len(self.paths) or _contents(pins) == _contents(self.of(self.newest)):
            return False
        self.newest += 1
        self._editions[self.newest] = pins
        return True

    def trim(self, needed: Collection[int]) -> None:
        """Forget all editions but these and the newest."""
        self._editions = {
            number: pins for number, pins in self._editions.items() if number in needed or number == self.newest
        }

    def copies(self) -> Iterator[Path]:
        """The copies that a worker may be started with."""
        return (pin.copy for pins in self._editions.values() for pin in pins.values())


def _contents(pins: Pins) -> dict[str, str]:
    return {name: pin.digest for name, pin in pins.items()}

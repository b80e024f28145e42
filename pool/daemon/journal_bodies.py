"""The files of the journal with large payloads and answers: bodies/<number>.job and bodies/<number>.result.

A body that a transaction has written is removed when the transaction fails, and one that it needs no more when it has
been committed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from pool.daemon.journal_entries import PAGED, places, write_all
from pool.wire import Frame


class Bodies:
    """Used from one thread at a time."""

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        self.directory = directory
        self.size_bytes = 0  #: of all
        self.changed = False  #: by the present transaction
        self._fsync = fsync
        self._written: list[str] = []  # in the present transaction
        self._removals: list[str] = []  # once it is committed
        self._sizes: dict[str, int] = {}  # in bytes; few jobs have a body

    def write(self, name: str, head: bytes, frames: Sequence[Frame]) -> None:
        """`head`: the head_of the frames. Raises OSError."""
        self._written.append(name)
        self.changed = True
        starts, size_bytes = places([*map(len, frames)])
        with open(self.directory / name, "wb", buffering=0, opener=_own) as file:
            write_all(file, PAGED + head)
            for start, frame in zip(starts, frames, strict=True):
                file.seek(start)
                write_all(file, frame)
            if self._fsync:
                os.fsync(file.fileno())
        self._note(name, size_bytes)

    def remove(self, name: str) -> None:
        """Remove a body, if there is one, once the transaction is committed."""
        if name in self._sizes:
            self._removals.append(name)
            self.changed = True

    def committed(self) -> None:
        self._unlink(self._removals)

    def undo(self) -> None:
        """The transaction has failed."""
        self._unlink(self._written)

    def _unlink(self, names: Sequence[str]) -> None:
        for name in names:
            (self.directory / name).unlink(missing_ok=True)
            self.size_bytes -= self._sizes.pop(name, 0)
        self._written, self._removals, self.changed = [], [], False

    def _note(self, name: str, size_bytes: int) -> None:
        self.size_bytes += size_bytes - self._sizes.get(name, 0)
        self._sizes[name] = size_bytes

    def mapped(self, name: str) -> memoryview:
        """Raises OSError or ValueError."""
        with (self.directory / name).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

    def open(self, name: str) -> int | None:
        """A descriptor that reads a body whose frames are in their `places`. None: there is no such body."""
        try:
            descriptor = os.open(self.directory / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        if os.pread(descriptor, len(PAGED), 0) == PAGED:
            return descriptor
        os.close(descriptor)
        return None

    def sweep(self, jobs: Collection[int]) -> None:
        """At the start: remove those that belong to none of these jobs, and note the others."""
        for path in self.directory.iterdir():
            if not path.stem.isdigit() or int(path.stem) not in jobs:
                path.unlink()
            else:
                self._note(path.name, path.stat().st_size)


def _own(path: str, flags: int) -> int:
    """Nobody else can open it. A worker that gets a descriptor to read cannot make one to write of it."""
    return os.open(path, flags, 0o600)

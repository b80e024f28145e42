"""What goes into the journal and comes out of it: operations, rows, and frames, which are views of single bytes.

in a column      number of frames u32 | length of each u64 ... | the frames
in a file        0 u32 | number of frames u32 | length of each u64 ... | the frames; one that is mapped by itself, in a
                 worker too, begins with a page
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Sequence
from io import FileIO
from itertools import accumulate
from typing import ClassVar, Protocol

from msgspec import Struct
from msgspec.structs import astuple

from pool.wire import MAPPED_BYTES, Frame

#: So much has to be free before jobs are accepted again after the disk was full.
PROBE_BYTES = 1024 * 1024
#: A job whose acceptance could not be written has no result either.
_IF_KNOWN = "WHERE EXISTS (SELECT 1 FROM job WHERE number = ?)"
_NO_LEASE = (None, None, None, None)

#: The first number of a file, and of no column.
PAGED = bytes(4)
#: The fact that is `JobStore.known_since_ns`.
KNOWN_SINCE = "known_since"


class Files(Protocol):
    """The actions of an operation within its transaction."""

    def execute(self, statement: str, values: Sequence[object]) -> None: ...

    def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None: ...

    def body(self, name: str, frames: Sequence[Frame]) -> bytes | None:
        """The frames as they go into a column; None: they are too large for it and have been written to a file."""

    def remove(self, name: str) -> None:
        """Remove a body, if there is one, once the transaction is committed."""


class Operation(Struct, frozen=True):
    """One change of the journal. `essential`: what follows from it may not happen unless it is written."""

    essential: ClassVar[bool] = False

    @property
    def frames(self) -> Sequence[Frame]:
        """What may be large."""
        return ()

    @property
    def is_one_statement(self) -> bool:
        """Whether `apply` executes one statement, which is a transaction by itself."""
        return False

    def apply(self, file: Files) -> None:
        """Write it. Each operation has its own way; a Struct cannot be an abstract base class."""
        raise NotImplementedError


class LeaseRow(Struct, frozen=True):
    """The last dispatch of a job that had not ended: intended, and perhaps carried out."""

    epoch: int
    attempt: int
    worker: str
    leased_at: float


class Accept(Operation, frozen=True):
    """A job is accepted. `number`: its place in the order of acceptance, never used again."""

    essential: ClassVar = True
    number: int
    key: str
    pool: str
    digest: bytes
    header: bytes
    payload: Sequence[Frame]
    accepted_at: float
    lease: LeaseRow | None = None  #: an idle worker gets it at once

    @property
    def frames(self) -> Sequence[Frame]:
        return self.payload

    @property
    def is_one_statement(self) -> bool:
        return True

    def apply(self, file: Files) -> None:
        body = file.body(f"{self.number}.job", self.payload)
        lease = _NO_LEASE if (given := self.lease) is None else astuple(given)
        row = (self.number, self.key, self.pool, self.digest, self.header, body, self.accepted_at, *lease)
        file.execute("INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


class SetHeader(Operation, frozen=True):
    """The header of an accepted job has changed."""

    number: int
    header: bytes

    def apply(self, file: Files) -> None:
        file.execute("UPDATE job SET header = ? WHERE number = ?", (self.header, self.number))


class Lease(Operation, frozen=True):
    """A job that has waited is about to be sent to a worker."""

    essential: ClassVar = True
    number: int
    lease: LeaseRow

    @property
    def is_one_statement(self) -> bool:
        return True

    def apply(self, file: Files) -> None:
        row = (*astuple(self.lease), self.number)
        file.execute("UPDATE job SET epoch = ?, attempt = ?, worker = ?, leased_at = ? WHERE number = ?", row)


class End(Operation, frozen=True):
    """A job has ended; its payload is needed no more."""

    number: int
    header: bytes
    payload: Sequence[Frame]
    ended_at: float
    empty: bool = True  #: take what the job was submitted with out of its row

    @property
    def frames(self) -> Sequence[Frame]:
        return self.payload

    @property
    def is_one_statement(self) -> bool:
        return not self.empty

    def apply(self, file: Files) -> None:
        body = file.body(f"{self.number}.result", self.payload)
        row = (self.number, self.header, body, self.ended_at, self.number)
        file.execute(f"INSERT OR REPLACE INTO result SELECT ?, ?, ?, ?, 0 {_IF_KNOWN}", row)
        if self.empty:
            file.execute("UPDATE job SET payload = x'' WHERE number = ?", (self.number,))
        file.remove(f"{self.number}.job")


class Collect(Operation, frozen=True):
    """Results have been sent to clients."""

    numbers: Sequence[int]

    def apply(self, file: Files) -> None:
        rows = [(number,) for number in self.numbers]
        file.execute_many("UPDATE result SET collected = 1 WHERE number = ?", rows)


class Drop(Operation, frozen=True):
    """A result is not kept any longer, and nothing of its job is."""

    number: int

    def apply(self, file: Files) -> None:
        file.execute("DELETE FROM job WHERE number = ?", (self.number,))
        file.execute("DELETE FROM result WHERE number = ?", (self.number,))
        for kind in ("job", "result"):
            file.remove(f"{self.number}.{kind}")


class SetFact(Operation, frozen=True):
    name: str
    value: int | float | str

    def apply(self, file: Files) -> None:
        file.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (self.name, self.value))


class Tidy(Operation, frozen=True):
    """Writes nothing, so that the thread does its work after a write."""

    def apply(self, file: Files) -> None:
        pass


class Probe(Operation, frozen=True):
    """Whether there is room for more than a few pages."""

    def apply(self, file: Files) -> None:
        file.body("0.probe", [bytes(PROBE_BYTES)])
        file.remove("0.probe")


class JobRow(Struct, frozen=True):
    """A job as it is in the journal. `payload` is None if its file is damaged or gone."""

    number: int
    key: str
    pool: str
    digest: bytes
    header: bytes
    payload: Sequence[Frame] | None
    accepted_at: float
    lease: LeaseRow | None
    result: bytes | None  #: the header; then `payload` is the answer
    ended_at: float
    collected: bool  #: the result was sent to a client


# ---- frames ----


def packed_bytes(frames: Sequence[Frame]) -> int:
    return 4 + 8 * len(frames) + sum(map(len, frames))


def head_of(frames: Sequence[Frame]) -> bytes:
    """The number of frames and the length of each, little-endian."""
    return struct.pack(f"<I{len(frames)}Q", len(frames), *map(len, frames))


def write_all(file: FileIO, part: Frame) -> None:
    left = memoryview(part).cast("B")
    while left.nbytes:
        left = left[file.write(left) :]


def split(packed: bytes | memoryview) -> Sequence[Frame]:
    """Raises ValueError or struct.error unless it is whole. A file of an earlier version is packed as a column is."""
    (count,) = struct.unpack_from("<I", packed)
    if paged := not count and len(packed) > len(PAGED):
        (count,) = struct.unpack_from("<I", packed, len(PAGED))
    lengths = struct.unpack_from(f"<{count}Q", packed, 8 if paged else 4)
    starts, end = places(lengths) if paged else _unpaged(lengths)
    if end != len(packed):
        raise ValueError(f"{len(packed)} bytes instead of {end}")
    return [packed[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def places(lengths: Sequence[int]) -> tuple[Sequence[int], int]:
    """Where each frame begins in a file, and where the last one ends."""
    at, starts = len(PAGED) + 4 + 8 * len(lengths), list[int]()
    for length in lengths:
        if length >= MAPPED_BYTES:
            at = -(-at // mmap.PAGESIZE) * mmap.PAGESIZE
        starts.append(at)
        at += length
    return starts, at


def _unpaged(lengths: Sequence[int]) -> tuple[Sequence[int], int]:
    *starts, end = accumulate(lengths, initial=4 + 8 * len(lengths))
    return starts, end

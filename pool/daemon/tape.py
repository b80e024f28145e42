"""What a running job has printed so far, and how far each of its readers is. Pure: the clock is an argument.

    worker ──Printed──▶ take()      stdout ▓▓▓▓▓▓▓▓▓▓▓▓▓▓░░░░░░ limit        next(reader) ──Output──▶ reader
                                           ▲ reader 2    ▲ reader 1

A tape exists from the moment that somebody asks for a job's output until the job's end, and holds at most what its
result may hold anyway. A reader is a place on it: one that is slow has nothing queued for it but stays behind, and one
that comes late starts at the first byte. Order is kept within each stream; between the two it is the order in which
the runner read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pool import wire
from pool.errors import RemoteProtocolError
from pool.wire import StreamName

#: Pieces that are not full come with the runner's clock, one of each stream. Twice that is granted, for a clock that is
#: not this one.
_PIECES_PER_S = 2 * 2 / wire.PRINT_INTERVAL_S
_PIECES_AT_ONCE = 16

_NAMES: Final[tuple[StreamName, StreamName]] = ("stdout", "stderr")


class Tape:
    """Both streams of one job. `limit`: the job's own cap, for each."""

    def __init__(self, job_id: str, *, limit: int) -> None:
        self.job_id = job_id
        self._limit = limit
        self._printed: dict[StreamName, bytearray] = {name: bytearray() for name in _NAMES}
        self._readers: dict[bytes, dict[StreamName, int]] = {}
        self._since = 0.0
        self._pieces = 0

    # ---- the worker's side ----

    def start(self, now: float) -> None:
        """The worker was asked for it."""
        self._since = now

    def take(self, word: wire.Printed, payload: Sequence[wire.Frame], now: float) -> None:
        """Put it on the tape. Raises RemoteProtocolError for what no honest worker says."""
        printed = self._printed[word.name]
        if len(payload) != 1 or not 0 < (size := memoryview(payload[0]).nbytes) <= wire.MAX_PRINTED_BYTES:
            raise RemoteProtocolError(f"Printed has one frame of 1 to {wire.MAX_PRINTED_BYTES} bytes")
        if word.offset != len(printed):
            raise RemoteProtocolError(f"it said Printed from byte {word.offset} of {word.name} on, {len(printed)} came")
        if word.offset + size > self._limit:
            raise RemoteProtocolError(f"it said more of {word.name} than the {self._limit} bytes that are kept of it")
        if size < wire.MAX_PRINTED_BYTES:
            self._count_piece(now)
        printed += payload[0]

    def _count_piece(self, now: float) -> None:
        self._pieces += 1
        if self._pieces > _PIECES_AT_ONCE + _PIECES_PER_S * (now - self._since):
            raise RemoteProtocolError(f"it said Printed {self._pieces} times in {now - self._since:.3g} s")

    def check(self, answer: Sequence[wire.Frame]) -> None:
        """Raise RemoteProtocolError when the answer is not what was printed, with more behind it."""
        for printed, whole in zip(self._printed.values(), answer, strict=False):
            if bytes(memoryview(whole)[: len(printed)]) != printed:
                raise RemoteProtocolError("its answer has another output than it had printed")

    @property
    def frames(self) -> tuple[bytes, bytes]:
        """All of it: for a job whose worker will not answer any more."""
        return bytes(self._printed["stdout"]), bytes(self._printed["stderr"])

    # ---- the readers' side ----

    @property
    def readers(self) -> list[bytes]:
        return list(self._readers)

    def join(self, reader: bytes) -> None:
        """Read from the first byte on; so does a reader that joins again."""
        self._readers[reader] = dict.fromkeys(_NAMES, 0)

    def leave(self, reader: bytes) -> None:
        self._readers.pop(reader, None)

    def next(self, reader: bytes) -> tuple[wire.Output, bytes] | None:
        """The piece that comes next for this reader, who then is behind it; None when there is no more for now."""
        places = self._readers[reader]
        for name in _NAMES:
            place = places[name]
            if place < len(self._printed[name]):
                piece = bytes(memoryview(self._printed[name])[place : place + wire.MAX_PRINTED_BYTES])
                places[name] += len(piece)
                return wire.Output(job_id=self.job_id, name=name, offset=place), piece
        return None

    def close(self) -> None:
        """The job has ended, and its result has it all."""
        self._readers.clear()

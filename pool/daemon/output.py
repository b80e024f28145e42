"""The output of running jobs, for clients that read it before the job has ended.

    worker ──Printed──▶ OutputStream.append    stdout ▓▓▓▓▓▓▓▓▓▓▓▓▓▓░░░░░░ limit     OutputSender ──Output──▶ readers
                                                      ▲ reader 2    ▲ reader 1

An OutputStream exists from the first time a client asks for a job's output until the job ends. It holds at most what
the job's result may hold anyway. For each reader it keeps a position only, so a slow reader has nothing queued and gets
the rest with the result, and a late reader starts at the first byte. The order within each stream is kept; between
stdout and stderr it is the order in which the runner read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pool import wire
from pool.daemon.zmtp import ClientListener
from pool.errors import RemoteProtocolError
from pool.wire import StreamName

#: A runner sends a piece that is not full at most once in its interval, for each stream. Twice that rate is allowed,
#: because the two clocks differ.
_PIECES_PER_S = 2 * 2 / wire.PRINT_INTERVAL_S
_PIECES_AT_ONCE = 16
#: A reader that has not taken this many bytes yet is sent nothing more.
_MAX_QUEUED_BYTES = 4 * wire.MAX_PRINTED_BYTES
#: Pieces sent to one reader before the other readers, and the rest of the loop, get their turn.
_PIECES_PER_TURN = 16

_NAMES: Final[tuple[StreamName, StreamName]] = ("stdout", "stderr")


class OutputStream:
    """Both streams of one job, and the position of each reader. Pure: the clock is an argument."""

    def __init__(self, job_id: str, *, limit: int) -> None:
        """`limit`: the job's own limit, in bytes of each stream."""
        self.job_id = job_id
        self._limit = limit
        self._printed: dict[StreamName, bytearray] = {name: bytearray() for name in _NAMES}
        self._readers: dict[bytes, dict[StreamName, int]] = {}
        self._since = 0.0
        self._pieces = 0

    # ---- from the worker ----

    def start(self, now: float) -> None:
        """The worker was asked to send the output; the rate of its pieces is measured from now on."""
        self._since = now

    def begin_again(self) -> None:
        """Another attempt prints from its first byte on; each reader gets all of it."""
        self._printed = {name: bytearray() for name in _NAMES}
        self._readers = {reader: dict.fromkeys(_NAMES, 0) for reader in self._readers}
        self._pieces = 0

    def append(self, printed: wire.Printed, payload: Sequence[wire.Frame], now: float) -> None:
        """Raises RemoteProtocolError for a piece that an honest runner does not send, and keeps nothing of it."""
        kept = self._printed[printed.name]
        if len(payload) != 1 or not 0 < (size := memoryview(payload[0]).nbytes) <= wire.MAX_PRINTED_BYTES:
            raise RemoteProtocolError(f"Printed must have one frame of 1 to {wire.MAX_PRINTED_BYTES} bytes")
        if printed.offset != len(kept):
            raise RemoteProtocolError(
                f"it sent Printed from byte {printed.offset} of {printed.name}; the next byte is {len(kept)}"
            )
        if printed.offset + size > self._limit:
            raise RemoteProtocolError(f"it sent more of {printed.name} than the job's limit of {self._limit} bytes")
        if size < wire.MAX_PRINTED_BYTES:
            self._count_piece(now)
        kept += payload[0]

    def _count_piece(self, now: float) -> None:
        self._pieces += 1
        if self._pieces > _PIECES_AT_ONCE + _PIECES_PER_S * (now - self._since):
            raise RemoteProtocolError(f"it sent Printed {self._pieces} times in {now - self._since:.3g} s")

    def check(self, answer: Sequence[wire.Frame]) -> None:
        """Raise RemoteProtocolError unless the answer's streams begin with the pieces that came before."""
        for printed, whole in zip(self._printed.values(), answer, strict=False):
            if bytes(memoryview(whole)[: len(printed)]) != printed:
                raise RemoteProtocolError("the output in its answer differs from the output that it had sent before")

    @property
    def frames(self) -> tuple[bytes, bytes]:
        """Stdout and stderr so far: the output of a job whose worker was lost."""
        return bytes(self._printed["stdout"]), bytes(self._printed["stderr"])

    # ---- to the readers ----

    @property
    def readers(self) -> list[bytes]:
        return list(self._readers)

    def add_reader(self, reader: bytes) -> None:
        """It reads from the first byte, also when it was a reader before."""
        self._readers[reader] = dict.fromkeys(_NAMES, 0)

    def remove_reader(self, reader: bytes) -> None:
        self._readers.pop(reader, None)

    def next_piece(self, reader: bytes) -> tuple[wire.Output, bytes] | None:
        """The next piece for this reader, whose position moves behind it; None when it has everything so far."""
        positions = self._readers[reader]
        for name in _NAMES:
            start = positions[name]
            if start < len(self._printed[name]):
                piece = bytes(memoryview(self._printed[name])[start : start + wire.MAX_PRINTED_BYTES])
                positions[name] += len(piece)
                return wire.Output(job_id=self.job_id, name=name, offset=start), piece
        return None

    def close(self) -> None:
        """The job has ended; its result has the whole output."""
        self._readers.clear()


class OutputSender:
    """Sends output streams to their readers, a few pieces at a time. Used from the loop's thread only."""

    def __init__(self, listener: ClientListener) -> None:
        self._listener = listener
        self.behind: set[OutputStream] = set()  #: streams with a reader that has not got everything
        self.more_to_send = False  #: whether a reader would take more now, and only waits for its next turn

    def add_reader(self, stream: OutputStream, address: bytes) -> None:
        """Send this client the stream, from its first byte, and whatever is printed later."""
        stream.add_reader(address)
        self.send(stream)

    def send(self, stream: OutputStream) -> None:
        """Send each reader what it does not have yet, as far as it takes it."""
        self.behind.discard(stream)
        for reader in stream.readers:
            if not self._send_to(stream, reader):
                self.behind.add(stream)

    def catch_up(self) -> None:
        """Called in each turn of the loop while there are any: readers that are behind may take more now."""
        self.more_to_send = False
        for stream in list(self.behind):
            self.send(stream)

    def _send_to(self, stream: OutputStream, reader: bytes) -> bool:
        """Whether this reader has everything, or is gone."""
        for _ in range(_PIECES_PER_TURN):
            queued = self._listener.queued_bytes(reader)
            if queued is None:
                stream.remove_reader(reader)
                return True
            if queued > _MAX_QUEUED_BYTES:
                return False
            if (piece := stream.next_piece(reader)) is None:
                return True
            self._listener.send(reader, piece[0], [piece[1]])
        self.more_to_send = True
        return False

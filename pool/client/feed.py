"""What one caller hears of a job while it runs: pieces of its output as they come, then its result.

    I/O thread ──put, end──▶ queue ──events──▶ the caller's thread: decoded text, callbacks, the result

Every byte that the result keeps comes exactly once and in the order of its stream. Pieces are taken by their offset:
one that was heard before (the daemon begins anew after a break of the connection) is dropped, and what never came as a
piece is taken from the result. So the queue holds no more than the job's output cap allows, however slow the caller.
"""

from __future__ import annotations

import codecs
import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from pool import wire
from pool.client.ledger import Delivery
from pool.client.results import to_result
from pool.model import JobResult, OutputEvent

_Piece = tuple[wire.StreamName, bytes]
_NAMES: tuple[wire.StreamName, wire.StreamName] = ("stdout", "stderr")


class _Text:
    """One stream's bytes as text; a character may be split over pieces. Offsets are of bytes."""

    def __init__(self, name: wire.StreamName) -> None:
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._fed = 0

    def event(self, piece: bytes, *, final: bool = False) -> OutputEvent | None:
        """None when there is no whole character yet."""
        offset = self._fed - len(self._decoder.getstate()[0])
        self._fed += len(piece)
        text = self._decoder.decode(piece, final)
        return OutputEvent(stream=self._name, text=text, offset=offset) if text else None


class Feed:
    """`put` and `end` are called on the I/O thread, `events` on the caller's."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Piece | None] = SimpleQueue()
        self._next: deque[_Piece | None] = deque()  #: taken from the queue and not given out; of the caller's thread
        self._have: dict[wire.StreamName, int] = dict.fromkeys(_NAMES, 0)

    def put(self, output: wire.Output, payload: Sequence[wire.Frame]) -> None:
        """A piece, of which what is new is kept."""
        have = self._have[output.name]
        piece = bytes(payload[0]) if payload else b""
        if output.offset <= have < output.offset + len(piece):
            self._have[output.name] = output.offset + len(piece)
            self._queue.put((output.name, piece[have - output.offset :]))

    def end(self, _: Future[Delivery | None]) -> None:
        """The answer is there."""
        self._queue.put(None)

    def events(self, answer: Future[Delivery | None], wait_s: float | None) -> Iterator[OutputEvent | JobResult]:
        """All that comes, the result last. Raises queue.Empty after `wait_s`, or what the daemon answered instead."""
        texts = {name: _Text(name) for name in _NAMES}
        until = None if wait_s is None else time.monotonic() + wait_s
        while (item := self._take(until)) is not None:
            name, piece = item
            if (event := texts[name].event(piece)) is not None:
                yield event
        delivery = answer.result()
        result = to_result(delivery)
        for name, whole in zip(_NAMES, delivery.payload if delivery is not None else (), strict=False):
            if (event := texts[name].event(bytes(whole)[self._have[name] :], final=True)) is not None:
                yield event
        yield result

    def _take(self, until: float | None) -> _Piece | None:
        """The next piece: one for all that came of its stream in a row while the caller was elsewhere."""
        patience_s = None if until is None else max(0.0, until - time.monotonic())
        first = self._next.popleft() if self._next else self._queue.get(timeout=patience_s)
        if first is None:
            return None
        name, pieces = first[0], [first[1]]
        while (following := self._waiting()) is not None and following[0] == name:
            pieces.append(following[1])
            self._next.popleft()
        return name, b"".join(pieces)

    def _waiting(self) -> _Piece | None:
        """What comes after the piece that is being taken; it stays. None if nothing is there, or only the end."""
        with contextlib.suppress(Empty):
            if not self._next:
                self._next.append(self._queue.get_nowait())
        return self._next[0] if self._next else None

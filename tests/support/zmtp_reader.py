"""Feeds a decoder as a connection does, without a socket."""

from pool.daemon.zmtp.codec import Decoder, Event


class Reader:
    """Reads pieces, and keeps the events."""

    def __init__(self, *, limit: int, max_frames: int) -> None:
        self.decoder = Decoder(limit=limit, max_frames=max_frames)
        self.events: list[Event] = []

    def read(self, data: bytes, piece: int | None = None, *, first: int | None = None) -> list[Event]:
        """The events so far. `piece`: how many bytes come at once, and `first`, how many at first; None and 0: all."""
        rest, size = memoryview(data), piece if first is None else first
        while rest:
            rest = rest[self._take(rest[: size or len(rest)]) :]
            size = piece
        return self.events

    def check(self) -> None:
        """Called whenever the decoder has taken something."""

    def _take(self, piece: memoryview) -> int:
        body = self.decoder.body
        room = body.room() if body is not None else None
        if body is None or room is None:
            self._drain(bytes(piece))
            return len(piece)
        with room:
            count = min(len(room), len(piece))
            room[:count] = piece[:count]
        body.filled += count
        self._drain(b"")
        return count

    def _drain(self, data: bytes) -> None:
        event = self.decoder.next(data)
        while event is not None:
            self.events.append([bytes(each) for each in event] if isinstance(event, list) else event)
            self.check()
            event = self.decoder.next()
        self.check()

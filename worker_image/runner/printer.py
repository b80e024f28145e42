"""Says what is new of a job's kept output while it runs, for those who watch it: at once after a pause, else every
PRINT_INTERVAL_S, in pieces of at most MAX_PRINTED_BYTES.

It exists only for a job that somebody watches. When the link takes no more for now, nothing is queued here: the bytes
are kept by the stream anyway, and are offered again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pool import wire
from runner.attempt import Attempt, Stream

#: Takes a word and its payload, or does not.
Offer = Callable[[wire.Message, list[wire.Frame]], bool]


class Printer:
    """The output of one attempt, from its first byte on."""

    def __init__(self, attempt: Attempt, offer: Offer) -> None:
        self._job = attempt.job
        self._offer = offer
        self._stdout, self._stderr = attempt.out, attempt.err
        self._said = {"stdout": 0, "stderr": 0}
        self._not_before = 0.0

    def due(self) -> float | None:
        """When there is something to be said; None: not before the job prints."""
        return self._not_before if next(self._news(), None) is not None else None

    def turn(self, now: float) -> None:
        """Say it, if it is time to."""
        if now < self._not_before:
            return
        for name, stream in self._news():
            self._not_before = now + wire.PRINT_INTERVAL_S
            if not self._say(name, stream):
                return

    def _news(self) -> Iterator[tuple[wire.StreamName, Stream]]:
        if len(self._stdout.kept) > self._said["stdout"]:
            yield "stdout", self._stdout
        if len(self._stderr.kept) > self._said["stderr"]:
            yield "stderr", self._stderr

    def _say(self, name: wire.StreamName, stream: Stream) -> bool:
        while (offset := self._said[name]) < len(stream.kept):
            piece = bytes(stream.kept[offset : offset + wire.MAX_PRINTED_BYTES])
            word = wire.Printed(job_id=self._job.job_id, epoch=self._job.epoch, name=name, offset=offset)
            if not self._offer(word, [piece]):
                return False
            self._said[name] += len(piece)
        return True

"""The calls of a chunk that run apart: each is a job of its own for the runner, in a child of its own.

    daemon ──Run with n calls──▶ runner ──call 1──▶ child 1 ──answer──▶ (child 1 and all that it started is gone)
                                        ──call 2──▶ child 2 ──answer──▶ ...
    daemon ◀──Done with n rows── runner

A call has the isolation, the limits and the outcome of a job, and sees nothing of another one, not even its arguments.
A call that fails does not end the series. The answer has the form of every chunk's (`pool/wire/chunk.py`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import msgspec

from pool import wire
from pool.outcome import Outcome
from runner.channel import Frame
from runner.chunk import Answers

#: A series that has taken so long ends with the present call, so that what has ended is answered. The client sends the
#: other calls again.
_MOST_S = 1.0
#: After one of these no other call begins: it would end the same way, or nobody wants it any more.
_LAST = frozenset({Outcome.REJECTED, Outcome.CANCELLED})
_encoder = msgspec.msgpack.Encoder()


class Series(Answers):
    """The calls of one job, one after the other."""

    def __init__(self, job: wire.Run, frames: Sequence[Frame]) -> None:
        """`frames`: the header as it came, and the payload [code, no stdin, *files, *frames of all calls]."""
        super().__init__(job)
        self.job = job
        self.cancelled = False  #: no call that is left is wanted
        self._began = time.monotonic()
        self._single = msgspec.structs.replace(job, calls=())  # each is `apart`: they share the byte code
        self._header = _encoder.encode(self._single)
        self._code = frames[1]
        self._files = frames[3 : 3 + len(job.files)]
        of_calls, ends = frames[3 + len(job.files) :], list(itertools.accumulate(job.calls))
        self._of_calls = [of_calls[end - size : end] for end, size in zip(ends, job.calls, strict=True)]
        self._stdout, self._stderr = bytearray(), bytearray()

    @property
    def elapsed_s(self) -> float:
        """Since its first call began."""
        return time.monotonic() - self._began

    def next(self) -> tuple[wire.Run, list[Frame]]:
        """The next call as a job, and the frames for its child."""
        stdin, *arguments = self._of_calls[self.ended]
        return self._single, [self._header, self._code, stdin, *self._files, *arguments]

    def add(self, done: wire.Done, frames: Sequence[Frame]) -> None:
        super().add(done, frames)
        self._stdout += frames[0]
        self._stderr += frames[1]

    def goes_on(self) -> bool:
        """Whether the next call begins: there is one, with room for its answer, and its whole time is left."""
        if self._calls[-1].outcome in _LAST or not self._has_room():
            return False
        left_s = self.job.wall_s * len(self.job.calls) - self.elapsed_s
        return self.elapsed_s < _MOST_S and left_s >= self.job.wall_s

    def done(self) -> tuple[wire.Done, list[Frame]]:
        """The Done of the whole series."""
        return self._done(self._stdout, self._stderr, cpu_s=sum(call.cpu_s for call in self._calls))

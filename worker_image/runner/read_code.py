"""Code that the screen of this worker has read: the child of a later job with the same text does not read it again.

    job ──▶ child: reads the text, runs it ──▶ ok ──▶ the runner keeps its digest
    job with the same text ──▶ Run with `screened` false ──▶ child: compiles the text and runs it

A text that is refused never ends `ok`. A child that claims `ok` falsely has run the text, so the screen has let it pass
there; and what it claims counts for its own text only, for the digest is taken from what the daemon sent.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from pool import wire
from pool.model import Outcome
from runner.channel import Frame

#: How many texts are kept, each with 32 bytes: the ones that were used last.
_MOST = 1024
_encoder = msgspec.msgpack.Encoder()


class ReadCode:
    """Used for one job after the other."""

    def __init__(self) -> None:
        self._passed: OrderedDict[bytes, None] = OrderedDict()
        self._present = b""

    def frames(self, job: wire.Run, frames: Sequence[Frame]) -> Sequence[Frame]:
        """What the child of this job gets. `frames`: the header as it came, and the payload, which begins with code."""
        self._present = b""
        if job.pickled or not job.screened:
            return frames
        self._present = hashlib.sha256(frames[1]).digest()
        if self._present not in self._passed:
            return frames
        return [_encoder.encode(msgspec.structs.replace(job, screened=False)), *frames[1:]]

    def ended(self, outcome: Outcome) -> None:
        """Keep the digest of a job that has ended ok."""
        if outcome is not Outcome.OK or not self._present:
            return
        self._passed[self._present] = None
        self._passed.move_to_end(self._present)
        if len(self._passed) > _MOST:
            self._passed.popitem(last=False)

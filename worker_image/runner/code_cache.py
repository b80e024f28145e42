"""Code that this worker has read: the child of a later job with the same text neither screens nor compiles it again.

    first job of a text ───▶ child: screens, compiles and runs it ──▶ ok ──▶ the runner keeps its digest
    the second ──▶ child: compiles the text, sends the byte code to the runner, then runs it
    each later ──▶ child: loads the byte code, then runs it

The cases of `run_tests` share the byte code from the first one on. The runner never decodes byte code: it is opaque
bytes of bounded size, which a child loads when it has given up all rights.

No job can choose what the child of another text loads: the digest is taken from what the daemon sent. Nor can a job
choose what the next job of its own text loads: a child sends the byte code before any code, file or argument of the job
is used. It has done no more than parse and compile then, and only the first message of its channel is taken.

A text that is refused never ends `ok` and has no byte code. A child that claims `ok` falsely has run the text, so the
screen has let it pass there.
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib would load OpenSSL, which takes each runner 2 MB
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from pool import wire
from pool.outcome import Outcome
from runner.channel import Frame

_DIGEST_BYTES = 32
#: How many texts are kept, each with 32 bytes: the ones that were used last.
_MOST_TEXTS = 1024
#: How much byte code is kept: that of the texts that were used last.
_MOST_BYTES = 8 << 20
_encoder = msgspec.msgpack.Encoder()


class CodeCache:
    """Used for one job after the other."""

    def __init__(self) -> None:
        self._passed: OrderedDict[bytes, None] = OrderedDict()
        self._compiled: OrderedDict[bytes, bytes] = OrderedDict()  # empty where the text has none that can be kept
        self._bytes = 0
        self._present = b""
        self.learns = False  #: whether something is to be kept when the present job ends

    def frames(self, job: wire.Run, frames: Sequence[Frame]) -> tuple[list[Frame], bool]:
        """What the child of this job gets: header, code, byte code or nothing, and the rest of the payload; and whether
        it sends byte code.

        `frames`: the header as it came, and the payload, which begins with the code. In the child's header `screened`
        and `apart` say whether it has to screen the text, and to send its byte code.
        """
        header, code, *rest = frames
        passed, compiled, sends, self._present = False, None, False, b""
        if not job.pickled and job.screened:
            self._present = blake2b(code, digest_size=_DIGEST_BYTES).digest()
            passed = self._present in self._passed
            compiled = self._compiled.get(self._present)
            sends = compiled is None and (job.apart or passed)
        if passed or job.apart:
            header = _encoder.encode(msgspec.structs.replace(job, screened=job.screened and not passed, apart=sends))
        if passed:
            self._passed.move_to_end(self._present)
        if compiled is not None:
            self._compiled.move_to_end(self._present)
        self.learns = bool(self._present) and (sends or not passed)
        return [header, code, (passed and compiled) or b"", *rest], sends

    def ended(self, outcome: Outcome, byte_code: bytes | None) -> None:
        """Of the present job. `byte_code`: what its child has sent before it ran the text; None if it has sent none.

        Byte code that is not empty comes from a child whose screen has let the text pass.
        """
        if not self.learns:
            return
        if byte_code is not None:
            self._keep(byte_code)
        if outcome is Outcome.OK or byte_code:
            self._passed[self._present] = None
            if len(self._passed) > _MOST_TEXTS:
                self._passed.popitem(last=False)

    def _keep(self, byte_code: bytes) -> None:
        self._bytes += len(byte_code) - len(self._compiled.pop(self._present, b""))
        self._compiled[self._present] = byte_code
        while self._bytes > _MOST_BYTES or len(self._compiled) > _MOST_TEXTS:
            self._bytes -= len(self._compiled.popitem(last=False)[1])

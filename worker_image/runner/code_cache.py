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
from msgspec import Struct, structs

from pool import wire
from pool.outcome import Outcome
from runner.channel import Frame

_DIGEST_BYTES = 32
#: How many texts are kept, each with 32 bytes: the ones that were used last.
_MOST_TEXTS = 1024
#: How much byte code is kept: that of the texts that were used last.
_MOST_BYTES = 8 << 20
_encoder = msgspec.msgpack.Encoder()


class Text(Struct, frozen=True):
    """The text of a job that has something to show of it."""

    digest: bytes
    sends: bool  #: whether the job's child sends its byte code


class CodeCache:
    """What the jobs of a worker have shown of their texts."""

    def __init__(self) -> None:
        self._passed: OrderedDict[bytes, None] = OrderedDict()
        self._compiled: OrderedDict[bytes, bytes] = OrderedDict()  # empty where the text has none that can be kept
        self._bytes = 0

    def look_up(self, job: wire.Run, frames: Sequence[Frame]) -> tuple[list[Frame], Text | None]:
        """What the child of this job gets: header, code, byte code or nothing, and the rest of the payload; and what
        `learn` needs at its end. None: there is nothing to learn.

        `frames`: the header as it came, and the payload, which begins with the code. In the child's header `screened`
        and `apart` say whether it has to screen the text, and to send its byte code.
        """
        header, code, *rest = frames
        passed, compiled, text = False, None, None
        if job.screened and not job.pickled:
            digest = blake2b(code, digest_size=_DIGEST_BYTES).digest()
            passed, compiled = digest in self._passed, self._compiled.get(digest)
            text = Text(digest, compiled is None and (job.apart or passed))
            if passed:
                self._passed.move_to_end(digest)
            if compiled is not None:
                self._compiled.move_to_end(digest)
        sends = text is not None and text.sends
        if passed or job.apart:
            header = _encoder.encode(structs.replace(job, screened=job.screened and not passed, apart=sends))
        return [header, code, (passed and compiled) or b"", *rest], text if sends or not passed else None

    def learn(self, text: Text, outcome: Outcome, byte_code: bytes | None) -> None:
        """A job with this text has ended. `byte_code`: what its child has sent before it ran the text; None if it has
        sent none.

        Byte code that is not empty comes from a child whose screen has let the text pass.
        """
        if byte_code is not None:
            self._keep(text.digest, byte_code)
        if outcome is Outcome.OK or byte_code:
            self._passed[text.digest] = None
            if len(self._passed) > _MOST_TEXTS:
                self._passed.popitem(last=False)

    def _keep(self, digest: bytes, byte_code: bytes) -> None:
        self._bytes += len(byte_code) - len(self._compiled.pop(digest, b""))
        self._compiled[digest] = byte_code
        while self._bytes > _MOST_BYTES or len(self._compiled) > _MOST_TEXTS:
            self._bytes -= len(self._compiled.popitem(last=False)[1])

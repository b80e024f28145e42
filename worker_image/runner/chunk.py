"""The calls of a chunk as the runner sees them: what each came to, and whether the next one goes on in the same child.

    runner ──job with the arguments of n calls──▶ child
           ◀──answer of call 1── ── next ──▶ ◀──answer of call 2── ── next ──▶ ...

The child begins a call only when the runner says so. So the runner knows which call runs, and what a call printed was
printed before its answer. `pool/wire/chunk.py` draws the answer of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pool import wire
from pool.model import Outcome
from runner import usage
from runner.channel import Frame

#: One byte from the runner: begin the next call.
NEXT = b"n"
#: A child that holds this part of its memory limit after a call gets no other one: what it holds would count for that.
_MOST_KEPT = 0.5


class Chunk:
    """Collects the answers of the calls, in order."""

    def __init__(self, job: wire.Run, pid: int) -> None:
        """`pid`: of the child, before its first call."""
        self._job = job
        self._pid = pid
        self._held_before = usage.data_bytes(pid)
        self._calls: list[wire.Call] = []
        self._frames: list[bytes] = []
        self._bytes = 0
        self._last: wire.Done | None = None

    @property
    def ended(self) -> int:
        """How many calls have ended."""
        return len(self._calls)

    def add(self, done: wire.Done, frames: Sequence[Frame]) -> None:
        """A call has ended. `frames`: those of its Done."""
        sizes = tuple([memoryview(frame).nbytes for frame in frames])
        fields = {name: getattr(done, name) for name in wire.EndFields.__struct_fields__}
        self._calls.append(wire.Call(started_ns=done.started_ns, ended_ns=done.ended_ns, sizes=sizes, **fields))
        self._frames.append(b"".join(frames[2:]))
        self._bytes += sum(sizes)
        self._last = done

    def goes_on(self) -> bool:
        """Whether the child may begin the next call: the last one ended ok, and there is room for another one."""
        if len(self._calls) == len(self._job.calls) or self._calls[-1].outcome is not Outcome.OK:
            return False
        if self._bytes > self._job.result + self._job.output:
            return False
        return usage.data_bytes(self._pid) - self._held_before < self._job.memory * _MOST_KEPT

    def done(self, stdout: Frame, stderr: Frame, *, cpu_s: float) -> tuple[wire.Done, list[Frame]]:
        """The Done of the whole chunk, which ends as its last call did."""
        assert self._last is not None, "a call has ended"
        last, number, reason = self._last, len(self._calls), self._last.reason
        if last.outcome is not Outcome.OK:
            reason = f"call {number} of {len(self._job.calls)}: {reason}"
        whole = msgspec.structs.replace(
            last,
            reason=reason,
            files=(),
            truncated=tuple(sorted({name for call in self._calls for name in call.truncated})),
            stdout_bytes=sum(call.stdout_bytes for call in self._calls),
            stderr_bytes=sum(call.stderr_bytes for call in self._calls),
            started_ns=self._calls[0].started_ns,
            cpu_s=cpu_s,
            calls=number,
        )
        return whole, [stdout, stderr, b"", wire.encode_calls(self._calls), *self._frames]

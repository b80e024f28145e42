"""The calls of a chunk as the runner sees them: the answer of each, and whether the next one runs in the same child.

    runner ──job with the arguments of n calls──▶ child
           ◀──answer of call 1── ── next ──▶ ◀──answer of call 2── ── next ──▶ ...

The child begins a call only when the runner says so. So the runner knows which call runs, and what a call printed was
printed before its answer. `pool/wire/chunk.py` draws the answer of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pool import wire
from pool.outcome import Outcome
from runner import usage
from runner.channel import Frame

#: One byte from the runner: begin the next call.
NEXT = b"n"
#: A child that holds this part of its memory limit after a call gets no other one: what it holds would count for that.
_MOST_KEPT = 0.5


class Answers:
    """Collects the answers of the calls, in order."""

    def __init__(self, job: wire.Run) -> None:
        self._job = job
        self._calls: list[wire.Call] = []
        self._frames: list[bytes] = []
        self._bytes = 0
        self._telling: wire.Done | None = None  # of the first call that has not ended ok, else of the last one
        self._told_by = 0  # the number of that call, from 1 on

    @property
    def ended(self) -> int:
        """How many calls have ended."""
        return len(self._calls)

    def add(self, done: wire.Done, frames: Sequence[Frame]) -> None:
        """A call has ended. `frames`: those of its Done."""
        sizes = tuple([memoryview(frame).nbytes for frame in frames])
        fields = {name: getattr(done, name) for name in wire.EndFields.__struct_fields__}
        call = wire.Call(started_ns=done.started_ns, ended_ns=done.ended_ns, sizes=sizes, **fields)
        self._calls.append(call)
        self._frames.append(b"".join(frames[2:]))
        self._bytes += sum(sizes) + len(wire.encode_calls([call]))  # which names its files: up to 51 KB
        if self._telling is None or self._telling.outcome is Outcome.OK:
            self._telling, self._told_by = done, len(self._calls)

    def _has_room(self) -> bool:
        """Whether there is another call, and room for its answer."""
        return len(self._calls) < len(self._job.calls) and self._bytes <= self._job.result + self._job.output

    def _done(self, stdout: Frame, stderr: Frame, *, cpu_s: float) -> tuple[wire.Done, list[Frame]]:
        """The Done of all calls. It tells of the first one that has not ended ok."""
        assert self._telling is not None, "a call has ended"
        telling, reason = self._telling, self._telling.reason
        if telling.outcome is not Outcome.OK:
            reason = f"call {self._told_by} of {len(self._job.calls)}: {reason}"
        whole = msgspec.structs.replace(
            telling,
            reason=reason,
            files=(),
            truncated=tuple(sorted({name for call in self._calls for name in call.truncated})),
            stdout_bytes=sum(call.stdout_bytes for call in self._calls),
            stderr_bytes=sum(call.stderr_bytes for call in self._calls),
            started_ns=self._calls[0].started_ns,
            ended_ns=self._calls[-1].ended_ns,
            cpu_s=cpu_s,
            calls=len(self._calls),
        )
        return whole, [stdout, stderr, b"", wire.encode_calls(self._calls), *self._frames]


class Chunk(Answers):
    """The calls of one child."""

    def __init__(self, job: wire.Run, pid: int) -> None:
        """`pid`: of the child, before its first call."""
        super().__init__(job)
        self._pid = pid
        self._held_before = usage.data_bytes(pid)

    def goes_on(self) -> bool:
        """Whether the child may begin the next call: the last one ended ok, and there is room for another one."""
        if self._calls[-1].outcome is not Outcome.OK or not self._has_room():
            return False
        return usage.data_bytes(self._pid) - self._held_before < self._job.memory * _MOST_KEPT

    def done(self, stdout: Frame, stderr: Frame, *, cpu_s: float) -> tuple[wire.Done, list[Frame]]:
        """The Done of the whole chunk, which ends as its last call did. `cpu_s`: of the child."""
        return self._done(stdout, stderr, cpu_s=max(cpu_s, sum(call.cpu_s for call in self._calls)))

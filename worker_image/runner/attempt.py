"""One attempt as the runner sees it: the child, its output, its deadline and its answer."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from pool import wire
from pool.outcome import Outcome
from runner import body, channel, usage
from runner.channel import Answer, ChannelError, Collector
from runner.chunk import NEXT, Chunk
from runner.code_cache import Text
from runner.usage import Meter, Usage
from runner.verdict import OK, Evidence, Verdict, after_its_end, decide, of_claim

if TYPE_CHECKING:
    from runner.children import Child, Exit

#: How long sending a job to the parked child may take. The child only has to read.
_SEND_S = 30.0
#: For the report and the error, on top of the job's own result limit.
_ANSWER_MARGIN_BYTES = 1024 * 1024
_READ_BYTES = 65536
#: Reads from one stream in one turn of the loop: a job that floods stdout must not delay its own deadline.
_READS_PER_TURN = 16
#: Reads from one stream at the end. A pipe holds at most 1 MiB, and a process of the job may still be filling it.
_LAST_READS = 32


class Stream(Struct):
    """A captured output stream: the first `cap` bytes of each call are kept, the rest is counted and dropped."""

    name: wire.StreamName
    fd: int
    cap: int
    kept: bytearray = bytearray()  #: of all calls
    total: int = 0  #: bytes of the present call
    open: bool = True
    start: int = 0  #: where in `kept` the present call begins

    def drain(self, reads: int = _READS_PER_TURN) -> None:
        """Read what is there, with at most `reads` reads."""
        try:
            while reads and self.open:
                chunk = os.read(self.fd, _READ_BYTES)
                self.open = bool(chunk)
                self.total += len(chunk)
                self.kept += chunk[: self.start + self.cap - len(self.kept)]
                reads -= 1
        except BlockingIOError:
            pass

    def next_call(self) -> None:
        self.start, self.total = len(self.kept), 0


class Attempt:
    """From sending the job to the child until the answer for the daemon."""

    def __init__(
        self,
        job: wire.Run,
        child: Child,
        frames: Sequence[channel.Frame],
        *,
        oom_kills: int = 0,
        meter: Meter | None = None,
        text: Text | None = None,
    ) -> None:
        """Sends `frames` to the child: header, code, byte code and the rest of the payload. `oom_kills`: before it.

        `text`: of the job, if there is something to learn of it. The first message of the child may be its byte code.
        """
        self.job = job
        self.compiled: bytes | None = None  #: the byte code that the child has sent; empty if the text has none
        self.text = text
        self._sends_code = text is not None and text.sends
        self.child = child
        self._meter = meter
        self.killed_for: Outcome | None = None
        self.killed_because = ""
        self.answered = False
        self.complete = False  #: whether the child has sent a valid answer that was not passed on
        self._claimed: Answer | None = None
        self._pending: Answer | None = None  # what it claimed before its exit handlers ran
        self._invalid = ""  # what is wrong with the answer of the child
        self._oom_before = oom_kills
        most = job.result + _ANSWER_MARGIN_BYTES
        self._collector = Collector(sock=child.sock, max_bytes=most, max_frames=channel.MAX_FRAMES)
        self.out, self.err = child.out, child.err
        for stream in (self.out, self.err):
            stream.cap = job.output
            del stream.kept[job.output :]  # what the child printed while it was parked
        self._chunk = Chunk(job, child.pids[0]) if job.calls else None
        self._cpu_before_s = 0.0  # of the calls before the present one
        self._sent_ns = self._begun_ns = time.monotonic_ns()
        self.deadline = time.monotonic() + job.wall_s  #: of the present call
        child.sock.settimeout(_SEND_S)
        with contextlib.suppress(OSError):  # the child has died; its exit is reported
            channel.send(child.sock, frames)
        self._passed_ns = time.monotonic_ns() if job.trace else 0
        child.sock.setblocking(False)

    def give(self, file: int) -> None:
        """Pass on the file with the job's large arguments, which the child asks for before it runs any of the job."""
        self.child.sock.settimeout(_SEND_S)
        try:
            body.give(self.child.sock, file)
        except OSError:  # mostly because the child has died; otherwise it would wait for ever
            self.child.kill()
        self.child.sock.setblocking(False)

    def collect(self, reads: int = channel.READS_PER_TURN) -> bool:
        """Take what the child has sent, with so many reads for each message. False: nothing more will come."""
        try:
            self._collector.feed(reads)
        except ChannelError as error:
            self._reject(str(error))
            return False
        frames = self._collector.frames
        if frames is not None and self._claimed is None:
            answer = Answer.of(frames)
            if answer is None or answer.pending:
                return self._take_early(frames, answer, reads)
            if self._pending is not None and answer.outcome is self._pending.outcome:
                answer.value = self._pending.value
            self._claimed, self._sends_code, self.complete = answer, False, self.killed_for is None
        return not self._collector.closed and (self._claimed is None or self._chunk is not None)

    def _take_early(self, frames: list[bytearray], answer: Answer | None, reads: int) -> bool:
        """A message before the answer. Byte code is taken only as the first one: what comes later may be the job's."""
        expected, self._sends_code = self._sends_code, False
        if expected and answer is None and (compiled := channel.byte_code(frames)) is not None:
            self.compiled = compiled
        elif answer is not None and self._pending is None:
            self._pending = answer
        else:
            self._reject("it does not begin with a report")
            return False
        self._collector.next_message()
        return self.collect(reads)

    def _reject(self, why: str) -> None:
        self._invalid = f"after an answer that is not valid ({why})"
        self.kill(Outcome.OUTPUT if self._collector.over_cap else None)

    def kill(self, why: Outcome | None, because: str = "") -> None:
        """End the child. Of several reasons the first one counts."""
        self.complete = False
        if self.killed_for is None:
            self.killed_for, self.killed_because = why, because
        self.child.kill()

    def out_of_memory(self) -> tuple[Outcome, str] | None:
        """The kernel may have killed a process that the job itself does not wait for."""
        if usage.oom_kills() == self._oom_before:
            return None
        return Outcome.MEMORY, "the worker ran out of memory and the kernel killed a process of the job"

    def excess(self) -> tuple[Outcome, str] | None:
        """If the present call has to be ended for what it and all that it started use."""
        return self._meter.excess(self.job, self.call) if self._meter is not None else None

    @property
    def elapsed_s(self) -> float:
        """Since the job was sent to the child."""
        return (time.monotonic_ns() - self._sent_ns) / 1e9

    @property
    def call(self) -> int:
        """The present call of a chunk, from 0 on."""
        return self._chunk.ended if self._chunk is not None else 0

    @property
    def running(self) -> bool:
        """Whether its limits still apply."""
        return not self.answered and self.killed_for is None

    def answer(self) -> tuple[wire.Done, list[channel.Frame]] | None:
        """The Done of a child that has answered. It waits to be ended, so that its usage can still be read.

        None: it has begun the next call of its chunk.
        """
        if (claim := self._claimed) is None:
            raise ValueError("the child has not answered")
        told = claim.outcome is not Outcome.OK or claim.exit_code is not None or claim.about
        self.complete = False
        self.out.drain(_LAST_READS)
        self.err.drain(_LAST_READS)
        used = usage.of_process(self.child.pids[0])
        ended = self._done(used, of_claim(self.job, claim) if told else OK)
        if self._chunk is not None and self._pending is None and self._chunk.goes_on():
            self._begin_next(used.cpu_s)
            return None
        self.answered = True
        return ended if self._chunk is None else self._chunk.done(self.out.kept, self.err.kept, cpu_s=used.cpu_s)

    def _begin_next(self, cpu_s: float) -> None:
        self._claimed, self._cpu_before_s = None, cpu_s
        self._collector.next_message()
        self.out.next_call()
        self.err.next_call()
        self._begun_ns = time.monotonic_ns()
        self.deadline = time.monotonic() + self.job.wall_s
        with contextlib.suppress(OSError):  # the child has died; its exit is reported
            self.child.sock.send(NEXT)

    def conclude(self, end: Exit) -> tuple[wire.Done, list[channel.Frame]]:
        """The Done of a child that has ended, with all that it had started."""
        self.out.drain(_LAST_READS)
        self.err.drain(_LAST_READS)
        if not self._invalid:
            self.collect(channel.LAST_READS)
        evidence = Evidence(
            killed_for=self.killed_for,
            killed_because=self.killed_because,
            status=end.status,
            cpu_s=end.cpu_s,
            oom_kills=usage.oom_kills() - self._oom_before,
            claim=self._claimed,
            invalid=self._invalid,
        )
        verdict = decide(self.job, evidence)
        if self._pending is not None and self._claimed is None and not self._invalid:
            verdict = after_its_end(verdict, self._pending)
            if verdict.outcome is self._pending.outcome:
                self._claimed, self.killed_for = self._pending, None
        used = Usage(cpu_s=end.cpu_s, max_rss_bytes=end.max_rss_bytes)
        ended = self._done(used, verdict)
        return ended if self._chunk is None else self._chunk.done(self.out.kept, self.err.kept, cpu_s=used.cpu_s)

    def _done(self, used: Usage, verdict: Verdict) -> tuple[wire.Done, list[channel.Frame]]:
        claimed = None if self.killed_for else self._claimed
        now_ns = time.monotonic_ns()
        started_ns, ended_ns = self._begun_ns, now_ns
        if claimed is not None:  # its stamps as far as they can be true
            started_ns = min(max(claimed.started_ns, self._begun_ns), now_ns)
            ended_ns = min(max(claimed.ended_ns, started_ns), now_ns)
        if self._chunk is not None:
            used = structs.replace(used, cpu_s=max(0.0, used.cpu_s - self._cpu_before_s))
        if self._meter is not None and now_ns - self._begun_ns > usage.INTERVAL_S * 1e9:
            # A shorter job cannot have used much in processes that nobody waited for.
            used |= self._meter.used(self.call)
        output = [each.kept[each.start :] if each.start else each.kept for each in (self.out, self.err)]
        done = wire.Done(
            job_id=self.job.job_id,
            epoch=self.job.epoch,
            outcome=verdict.outcome,
            reason=verdict.reason,
            files=channel.file_names(claimed.files[::2]) if claimed is not None and claimed.files else (),
            exit_code=verdict.exit_code,
            signal=verdict.signal,
            truncated=tuple([each.name for each in (self.out, self.err) if each.total > len(each.kept) - each.start]),
            stdout_bytes=self.out.total,
            stderr_bytes=self.err.total,
            started_ns=started_ns,
            ended_ns=ended_ns,
            steps_ns=(self._sent_ns, self._passed_ns, now_ns) if self.job.trace and self._chunk is None else (),
            cpu_s=used.cpu_s,
            max_rss_bytes=used.max_rss_bytes,
        )
        rest = [b""] if claimed is None else [claimed.error, *claimed.files[1::2], *claimed.value]
        if self._chunk is not None:
            self._chunk.add(done, [*output, *rest])
        return done, [*output, *rest]


#: Sends a message with its payload, or returns False because the link is full.
Offer = Callable[[wire.Message, list[wire.Frame]], bool]


class Printer:
    """Sends the new part of a job's kept output while it runs, for the clients that watch it.

    It sends at once after a pause, otherwise every PRINT_INTERVAL_S, in pieces of at most MAX_PRINTED_BYTES. When the
    link is full nothing is queued: the stream keeps the bytes anyway, and they are offered again later.
    """

    def __init__(self, attempt: Attempt, offer: Offer) -> None:
        self._job = attempt.job
        self._offer = offer
        self._streams = (attempt.out, attempt.err)
        self._sent = {"stdout": 0, "stderr": 0}
        self._not_before = 0.0

    def turn(self, now: float) -> float | None:
        """Send, if it is time. Returns when there is something to send later."""
        if now >= self._not_before:
            for stream in self._unsent():
                self._not_before = now + wire.PRINT_INTERVAL_S
                if not self._send(stream):
                    break
        return self._not_before if any(self._unsent()) else None

    def _unsent(self) -> Iterator[Stream]:
        return (stream for stream in self._streams if len(stream.kept) > self._sent[stream.name])

    def _send(self, stream: Stream) -> bool:
        while (offset := self._sent[stream.name]) < len(stream.kept):
            piece = bytes(stream.kept[offset : offset + wire.MAX_PRINTED_BYTES])
            message = wire.Printed(job_id=self._job.job_id, epoch=self._job.epoch, name=stream.name, offset=offset)
            if not self._offer(message, [piece]):
                return False
            self._sent[stream.name] += len(piece)
        return True

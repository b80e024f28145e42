"""Chunks: `map` with a `chunksize` sends many calls of the same code as one job with one child.

    argument lists ──split──▶ Chunk ──Submit──▶ one child runs the calls one after the other
                                ▲                        │ a wire.Call for each that has begun
                                └── those not begun ─────┘ if one did not end ok: as another job, in another child

Each call has its own result, and none is run twice. The calls of a job that no worker has answered end as the job did:
lost, refused, or cancelled while it waited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from pool import wire
from pool.client import checks
from pool.client.checks import Buffer
from pool.client.job import arguments_of
from pool.client.options import JobOptions, Program
from pool.client.pending import Delivery, JobFuture
from pool.client.results import ToResult
from pool.errors import JobRefusedError, PoolError, RemoteProtocolError
from pool.model import JobError, JobResult, Outcome
from pool.printable import visible

Answer = JobFuture[Delivery | None]
#: The end of a call: the daemon's answer about it, or the reason why there is none.
End = Delivery | PoolError

#: The most bytes of arguments in a chunk. With larger arguments the fork is a small part of a job.
MAX_BYTES = 1 << 20
#: The most frames of arguments in one chunk, so that the code and the files fit into the message too.
MAX_FRAMES = wire.MAX_FRAMES // 2
_NS_PER_MS = 1e6
_NOTHING = (b"", b"", b"")
_NOT_BEGUN = "it had not begun when its chunk was cancelled"
_UNKNOWN = "its worker was stopped without an answer, and whether it had begun is not known: "
_ONE_PROCESS = "the calls of a chunk share a process"
_EXCLUDED = {
    "grade": f"{_ONE_PROCESS}, and each graded job needs its own",
    "grade_args": f"{_ONE_PROCESS}, and each graded job needs its own",
    "stdin": f"{_ONE_PROCESS}, and the first one would read it all",
}


def check_options(program: Program, options: JobOptions) -> None:
    """Raises InvalidJobError for options that do not work with chunks."""
    for name, why in _EXCLUDED.items():
        if options.get(name) is not None:
            raise checks.invalid("chunksize", f"it is given with {name}; {why}", "leave one of them out")
    if program.entry is None and not program.pickled:
        raise checks.invalid("chunksize", "a script has no calls", "name the function of it as entry")


def split(
    program: Program, argument_lists: Iterable[Sequence[object]], kwargs: Mapping[str, object] | None, *, size: int
) -> Iterator[Chunk]:
    """Chunks of `size` calls, or of fewer where their arguments are large."""
    calls: list[Sequence[bytes] | JobRefusedError] = []
    held = frames = 0
    for each in argument_lists:
        call = _encoded(program, each, kwargs)
        own = () if isinstance(call, JobRefusedError) else call
        bytes_ = sum(map(len, own))
        if calls and (held + bytes_ > MAX_BYTES or frames + len(own) > MAX_FRAMES):
            yield Chunk(calls)
            calls, held, frames = [], 0, 0
        calls.append(call)
        held, frames = held + bytes_, frames + len(own)
        if len(calls) == min(size, wire.MAX_CALLS):
            yield Chunk(calls)
            calls, held, frames = [], 0, 0
    if calls:
        yield Chunk(calls)


def _encoded(program: Program, args: object, kwargs: Mapping[str, object] | None) -> Sequence[bytes] | JobRefusedError:
    """The encoded arguments, copied: the caller may change his data before the chunk is sent."""
    try:
        return [bytes(frame) for frame in arguments_of(program, args, kwargs or None)]
    except JobRefusedError as error:
        return error


class Chunk:
    """Some calls, and how each of them ended. Used by one thread."""

    def __init__(self, calls: Sequence[Sequence[bytes] | JobRefusedError], *, apart: bool = False) -> None:
        """`calls`: the frames of the arguments of each, or why they cannot be sent. `apart`: each call runs in a child
        of its own, and its first frame is its stdin.
        """
        self.apart = apart
        self._ends: list[End | None] = [each if isinstance(each, JobRefusedError) else None for each in calls]
        self._arguments = [() if isinstance(each, JobRefusedError) else each for each in calls]
        self._job_ids = ["refused"] * len(calls)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def unfinished(self) -> bool:
        """Whether there are calls that have not ended."""
        return None in self._ends

    def arguments(self) -> list[Sequence[Buffer]]:
        """The arguments of the calls that have not ended."""
        return [own for own, end in zip(self._arguments, self._ends, strict=True) if end is None]

    def take(self, job: Answer) -> None:
        """Take the answer of the job with the open calls. At least one of them has ended."""
        waiting = [number for number, end in enumerate(self._ends) if end is None]
        for number in waiting:
            self._job_ids[number] = job.job_id
        for number, end in zip(waiting, _ends(job, len(waiting)), strict=False):
            self._ends[number], self._arguments[number] = end, ()

    def results(self, to_result: ToResult, refusal: Callable[[str, JobRefusedError], JobResult]) -> Iterator[JobResult]:
        """The results of all calls, in order. Raises errors that concern all jobs."""
        for job_id, end in zip(self._job_ids, self._ends, strict=True):
            if isinstance(end, JobRefusedError):
                yield refusal(job_id, end)
            elif isinstance(end, _UnreadableError):
                error = JobError(type="InvalidError", message=end.message)
                yield JobResult(job_id=job_id, outcome=Outcome.ERROR, reason=end.message, error=error)
            elif isinstance(end, PoolError):
                raise end
            else:
                yield to_result(end)


class _UnreadableError(PoolError):
    """The answer is not that of a chunk."""


def _ends(job: Answer, count: int) -> Sequence[End]:
    """The ends of those calls of this job that are over: at least one, at most `count`."""
    try:
        delivery = job.result()
    except PoolError as error:
        return [error] * count
    if delivery is None:
        return [RemoteProtocolError("the daemon answered Accepted where a result was due")] * count
    if not delivery.header.calls:
        return [_unanswered(delivery)] * count
    try:
        ended = list(_calls(delivery, count))
    except RemoteProtocolError as error:
        return [_UnreadableError(f"the answer is not that of a chunk: {error.message}")] * count
    last = ended[-1].header
    if last.outcome is Outcome.REJECTED:  # the screen's verdict on the code is true for each call
        ended += [ended[-1]] * (count - len(ended))
    elif last.outcome is Outcome.CANCELLED:
        header = wire.Result(job_id=last.job_id, outcome=Outcome.CANCELLED, reason=_NOT_BEGUN)
        ended += [Delivery(header, _NOTHING)] * (count - len(ended))
    return ended


def _unanswered(delivery: Delivery) -> Delivery:
    """The end of a call of a job that no worker has answered. Its output is not known either."""
    header, payload = delivery
    if header.outcome is Outcome.TIMEOUT and header.worker is not None:
        header = msgspec.structs.replace(header, outcome=Outcome.LOST, reason=_UNKNOWN + header.reason[:4000])
    header = msgspec.structs.replace(header, stdout_bytes=0, stderr_bytes=0)
    return Delivery(header, (b"", b"", *payload[2:]))


def _calls(delivery: Delivery, count: int) -> Iterator[Delivery]:
    """An end for each call that has begun, as if it had been a job. Raises RemoteProtocolError."""
    header, payload = delivery
    calls = wire.decode_calls(payload[wire.FIXED_FRAMES]) if len(payload) > wire.FIXED_FRAMES else ()
    bodies = payload[wire.FIXED_FRAMES + 1 :]
    if not len(calls) == len(bodies) == header.calls <= count:
        raise RemoteProtocolError(f"{header.calls} calls of {count}, {len(calls)} reports and {len(bodies)} bodies")
    stdout, stderr, first_ns = _Pieces(payload[0]), _Pieces(payload[1]), calls[0].started_ns
    for call, body in zip(calls, map(_Pieces, bodies), strict=True):
        frames = [stdout.next(call.sizes[0]), stderr.next(call.sizes[1]), *map(body.next, call.sizes[2:])]
        if call.outcome is Outcome.LOST or body.left:
            raise RemoteProtocolError("a call cannot have ended so")
        yield Delivery(_header(header, call, waited_ms=max(0, call.started_ns - first_ns) / _NS_PER_MS), frames)


class _Pieces:
    """Cuts a frame into consecutive pieces."""

    def __init__(self, frame: wire.Frame) -> None:
        self._rest = memoryview(frame)

    @property
    def left(self) -> int:
        return self._rest.nbytes

    def next(self, size: int) -> bytes:
        if size > self.left:
            raise RemoteProtocolError(f"a piece of {size} bytes is announced, {self.left} are left")
        piece, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return piece


def _header(whole: wire.Result, call: wire.Call, *, waited_ms: float) -> wire.Result:
    """The Result of one call. The daemon has checked the figures of the whole, which bound those of a call."""
    waited_ms = min(waited_ms, whole.run_ms)
    run_ms = min(max(0, call.ended_ns - call.started_ns) / _NS_PER_MS, whole.run_ms - waited_ms)
    own = {name: getattr(call, name) for name in wire.EndFields.__struct_fields__}
    own |= {"job_id": whole.job_id, "reason": visible(call.reason)[:4096]}
    own |= {"cpu_s": min(call.cpu_s, whole.cpu_s), "max_rss_bytes": min(call.max_rss_bytes, whole.max_rss_bytes)}
    own |= {"queue_ms": whole.queue_ms + waited_ms, "run_ms": run_ms}
    own |= {"collect_ms": whole.collect_ms + whole.run_ms - waited_ms - run_ms}
    return msgspec.structs.replace(whole, **own, calls=0)

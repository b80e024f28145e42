"""A Result as it was received -> JobResult, and the output that arrived before it. All of it is data made by a job.

    payload   [stdout, stderr, error, *files, *value]       and with a grade [error, *grade]

Nothing is unpickled, evaluated or imported by name, and nothing a job sends raises here: where bytes do not fit, the
outcome is `error`, with the type of the error in `JobResult.error`.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from operator import attrgetter
from queue import Empty, SimpleQueue

import msgspec

from pool import values, wire
from pool.client import checks
from pool.client.pending import Delivery
from pool.client.waiting import take
from pool.errors import PoolError, RemoteProtocolError
from pool.model import Finding, JobError, JobResult, Outcome, OutputEvent, Timings, TraceStep, Usage

#: Makes a JobResult of a Delivery.
ToResult = Callable[[Delivery | None], JobResult]

_NS_PER_US = 1e3
#: The stream and what arrived of it.
Piece = tuple[wire.StreamName, bytes]
STREAMS: tuple[wire.StreamName, wire.StreamName] = ("stdout", "stderr")
#: Called with a piece of a job's output.
OnText = Callable[[str], object]


def to_result(delivery: Delivery | None, decode: Callable[[Sequence[wire.Frame]], object] = values.decode) -> JobResult:
    """Raises RemoteProtocolError for an answer without a result, and nothing else."""
    if delivery is None:
        raise RemoteProtocolError("the daemon answered Accepted where a result was due")
    header, payload = delivery
    payload, graded = (payload, ()) if header.grade is None else _split(header.grade, payload)
    count = wire.FIXED_FRAMES + len(header.files)
    if len(payload) < count:
        problem = f"the answer has {len(payload)} frames where at least {count} were announced"
        return _result(header, error=JobError(type="InvalidError", message=problem))
    stdout, stderr, fault, *contents = map(bytes, payload[:count])
    error, findings = _error(fault) if fault else (None, ())
    files = dict(zip(header.files, contents, strict=True))
    value: object = None
    if files and (wrong := wire.misplaced(files)) is not None:
        files = {}  # the caller may well write them to disk
        problem = f"a file of the job is named {wrong!r:.80}, which is no path in its directory, or below another file"
        error = JobError(type="InvalidError", message=problem)
    elif header.outcome is Outcome.OK and error is None and payload[count:] and not header.calls:
        try:
            value = decode(payload[count:])
        except Exception as what:  # noqa: BLE001 - a job made the bytes, and must not choose the exceptions a caller sees
            error = _undecodable(what)
    result = _result(header, error=error, findings=findings, output=(stdout, stderr), files=files, value=value)
    return result if header.grade is None else _graded(result, header.grade, graded, decode)


def _split(grade: wire.Grade, payload: Sequence[wire.Frame]) -> tuple[Sequence[wire.Frame], Sequence[wire.Frame]]:
    """The job's own frames, and those of its grade."""
    own = len(payload) - grade.frames
    return (payload, ()) if own < 0 else (payload[:own], payload[own:])


def _graded(
    result: JobResult, grade: wire.Grade, frames: Sequence[wire.Frame], decode: Callable[[Sequence[wire.Frame]], object]
) -> JobResult:
    if result.outcome is not Outcome.OK and grade.outcome is Outcome.OK:  # what was graded is not what the caller has
        problem = f"the job was not graded: {result.reason:.500}"
        return dataclasses.replace(result, grade_error=JobError(type="GradeError", message=problem))
    error = _error(bytes(frames[0]))[0] if frames and frames[0] else None
    if grade.outcome is not Outcome.OK or error is not None:
        ended = "the job was not graded" if grade.outcome is None else f"the grader ended {grade.outcome}"
        what = JobError(type="GradeError", message=f"{ended}: {grade.reason}")
        return dataclasses.replace(result, grade_error=error or what)
    value, error = None, None
    try:
        value = decode(frames[1:]) if frames[1:] else None
    except Exception as what:  # noqa: BLE001 - as above
        error = _undecodable(what)
    return dataclasses.replace(result, grade=value, grade_error=error)


def _error(frame: bytes) -> tuple[JobError | None, tuple[Finding, ...]]:
    """The job's exception, or the screen's findings."""
    try:
        fault = wire.decode_fault(frame)
    except RemoteProtocolError as error:
        return JobError(type="InvalidError", message=error.message), ()
    findings = tuple(Finding(**msgspec.structs.asdict(each)) for each in fault.findings)
    return JobError(type=fault.type, message=fault.message, traceback=fault.traceback, limit=fault.limit), findings


def _undecodable(error: Exception) -> JobError:
    return JobError(type="ValueCodecError", message=f"the job's value cannot be decoded: {error!s:.1000}")


def _result(
    header: wire.Result,
    *,
    error: JobError | None,
    findings: tuple[Finding, ...] = (),
    value: object = None,
    output: tuple[bytes, bytes] = (b"", b""),
    files: dict[str, bytes] | None = None,
) -> JobResult:
    facts = dict(zip(_FACTS, _facts_of(header), strict=True))
    if error is not None and header.outcome is Outcome.OK:
        facts |= {"outcome": Outcome.ERROR, "reason": f"{error.type}: {error.message:.500}"}
    return JobResult(
        **facts,
        files=files or {},
        value=value,
        stdout=output[0].decode(errors="replace"),
        stderr=output[1].decode(errors="replace"),
        error=error,
        findings=findings,
        timings=Timings(**dict(zip(_TIMINGS, _timings_of(header), strict=True))),
        usage=Usage(**dict(zip(_USAGE, _usage_of(header), strict=True))),
        trace=_trace(header.trace) if header.trace else (),
    )


def _trace(marks: wire.Marks) -> tuple[TraceStep, ...]:
    """The daemon's steps, and this one."""
    start_ns = marks[0][1]
    ours = ("client: result received", time.monotonic_ns())
    return tuple(TraceStep(step, (at_ns - start_ns) / _NS_PER_US) for step, at_ns in (*marks, ours))


#: Fields of `wire.Result` that a JobResult has inside `timings` and `usage`, and those that it has itself. The others
#: tell what the frames are.
_TIMINGS = [each.name for each in dataclasses.fields(Timings)]
_USAGE = [each.name for each in dataclasses.fields(Usage)]
_ELSEWHERE = {*_TIMINGS, *_USAGE, "files", "grade", "calls", "trace"}
_FACTS = [name for name in wire.Result.__struct_fields__ if name not in _ELSEWHERE]
_timings_of, _usage_of, _facts_of = attrgetter(*_TIMINGS), attrgetter(*_USAGE), attrgetter(*_FACTS)


class OutputReader:
    """The output of one job for one caller: pieces as they arrive, then the result.

        I/O thread ──put, end──▶ queue ──events──▶ the caller's thread: decoded text, callbacks, the result

    Every byte that the result keeps is delivered exactly once and in the order of its stream. Pieces are taken by their
    offset: one that was delivered before (the daemon starts again after a lost connection) is dropped, and what never
    arrived as a piece is taken from the result. So the queue holds no more than the job's output cap allows, however
    slow the caller is. `arrived` is called on the I/O thread after each `put` and `end`.
    """

    def __init__(self, arrived: Callable[[], object] = lambda: None) -> None:
        self._queue: SimpleQueue[Piece | None] = SimpleQueue()
        self._next: deque[Piece | None] = deque()  # taken from the queue and not delivered; of the caller's thread
        self._have: dict[wire.StreamName, int] = dict.fromkeys(STREAMS, 0)
        self._texts = {name: Text(name) for name in STREAMS}
        self._arrived = arrived

    def put(self, output: wire.Output, payload: Sequence[wire.Frame]) -> None:
        """Keep the new bytes of a piece. Called on the I/O thread."""
        have = self._have[output.name]
        piece = bytes(payload[0]) if payload else b""
        if output.offset <= have < output.offset + len(piece):
            self._have[output.name] = output.offset + len(piece)
            self._queue.put((output.name, piece[have - output.offset :]))
            self._arrived()

    def end(self, _: Future[Delivery | None]) -> None:
        """The request has been resolved. Called on the I/O thread."""
        self._queue.put(None)
        self._arrived()

    def events(
        self, request: Future[Delivery | None], wait_s: float | None, to_result: ToResult
    ) -> Iterator[OutputEvent | JobResult]:
        """The output, then the result. Raises queue.Empty after `wait_s`, or the error that the daemon answered."""
        deadline = None if wait_s is None else time.monotonic() + wait_s
        while (piece := self.take(None if deadline is None else max(0.0, deadline - time.monotonic()))) is not None:
            yield from self.read(piece)
        yield from self.rest(request.result(), to_result)

    def take(self, wait_s: float | None) -> Piece | None:
        """The next piece; None after the last. What arrived of its stream in a row, while the caller was busy, is one.

        Raises queue.Empty after `wait_s`.
        """
        first = self._next.popleft() if self._next else take(self._queue, wait_s)
        if first is None:
            return None
        name, pieces = first[0], [first[1]]
        while (following := self._waiting()) is not None and following[0] == name:
            pieces.append(following[1])
            self._next.popleft()
        return name, b"".join(pieces)

    def read(self, piece: Piece) -> Iterator[OutputEvent]:
        """The text of a piece: one event, or none while no character is complete."""
        name, content = piece
        if (event := self._texts[name].event(content)) is not None:
            yield event

    def rest(self, delivery: Delivery | None, to_result: ToResult) -> Iterator[OutputEvent | JobResult]:
        """The output that did not arrive as a piece, and the result."""
        result = to_result(delivery)
        for name, whole in zip(STREAMS, delivery.payload if delivery is not None else (), strict=False):
            if (event := self._texts[name].event(bytes(whole)[self._have[name] :], final=True)) is not None:
                yield event
        yield result

    def _waiting(self) -> Piece | None:
        """The piece that follows, which stays where it is. None if there is none, or only the end."""
        with contextlib.suppress(Empty):
            if not self._next:
                self._next.append(self._queue.get_nowait())
        return self._next[0] if self._next else None


class Text:
    """The bytes of one stream as text. A character may be split over pieces. Offsets count bytes."""

    def __init__(self, name: wire.StreamName) -> None:
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.fed = 0  #: bytes so far

    def event(self, piece: bytes, *, final: bool = False) -> OutputEvent | None:
        """None when there is no complete character yet."""
        offset = self.fed - len(self._decoder.getstate()[0])
        self.fed += len(piece)
        text = self._decoder.decode(piece, final)
        return OutputEvent(stream=self._name, text=text, offset=offset) if text else None


class Listeners:
    """`on_stdout` and `on_stderr` of one call. Raises InvalidJobError for one that is not a function."""

    def __init__(self, on_stdout: OnText | None, on_stderr: OnText | None) -> None:
        self._of = {
            "stdout": checks.callback("on_stdout", on_stdout),
            "stderr": checks.callback("on_stderr", on_stderr),
        }

    def tell(self, event: OutputEvent, *, abandon: Callable[[], object] = lambda: None) -> None:
        """Call the listener of this stream. A PoolError from it does not concern the job's request: it ends the job."""
        listener = self._of[event.stream]
        try:
            if listener is not None:
                listener(event.text)
        except PoolError:
            abandon()
            raise

"""A Result as it came over the wire -> JobResult. What a job left behind is data here, whatever is in it.

    payload   [stdout, stderr, error, *files, *value]

Nothing in it is unpickled, evaluated or imported by name, and nothing in it raises here: bytes that do not fit their
place make the job's outcome `error`, with the type of the error in `JobResult.error`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pool import values, wire
from pool.client.ledger import Delivery
from pool.errors import RemoteProtocolError
from pool.model import Finding, JobError, JobResult, Outcome, Timings, Usage

#: stdout, stderr and error come before the files.
FIXED_FRAMES = 3


def to_result(delivery: Delivery | None) -> JobResult:
    """Raises RemoteProtocolError for an answer without a result, and nothing else."""
    if delivery is None:
        raise RemoteProtocolError("the daemon accepted the request where a result was due")
    header, payload = delivery
    frames = [bytes(frame) for frame in payload[: FIXED_FRAMES + len(header.files)]]
    if len(frames) < FIXED_FRAMES + len(header.files):
        bad = f"the answer has {len(payload)} frames where {FIXED_FRAMES + len(header.files)} were announced"
        return _result(header, error=JobError(type="InvalidError", message=bad))
    stdout, stderr, fault, *contents = frames
    files, (error, findings) = _files(header.files, contents), _error(fault)
    value: object = None
    if files is None:
        error = JobError(type="InvalidError", message="a file that the job left has a name that leads elsewhere")
    elif header.outcome is Outcome.OK and error is None:
        value, error = _value(payload[FIXED_FRAMES + len(header.files) :])
    return _result(header, error=error, findings=findings, output=(stdout, stderr), files=files or {}, value=value)


def plain_name(name: str) -> bool:
    """Whether the name stays within the directory it is written to."""
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name


def _files(names: Sequence[str], contents: Sequence[bytes]) -> dict[str, bytes] | None:
    """None if a name leads elsewhere: a loop may well write them to its disk."""
    return dict(zip(names, contents, strict=True)) if all(map(wire.is_relative_name, names)) else None


def _error(frame: bytes) -> tuple[JobError | None, tuple[Finding, ...]]:
    """The job's exception, or what the screen has against it."""
    if not frame:
        return None, ()
    try:
        fault = wire.decode_fault(frame)
    except RemoteProtocolError as error:
        return JobError(type="InvalidError", message=error.message), ()
    findings = tuple(Finding(**msgspec.structs.asdict(each)) for each in fault.findings)
    return JobError(type=fault.type, message=fault.message, traceback=fault.traceback), findings


def _value(frames: Sequence[wire.Frame]) -> tuple[object, JobError | None]:
    if not frames:
        return None, None
    try:
        return values.decode(frames), None
    except Exception as error:  # noqa: BLE001 - the bytes come from the job, and must not decide what a loop has to catch
        return None, JobError(type="ValueCodecError", message=f"the job's value cannot be decoded: {error!s:.1000}")


def _result(
    header: wire.Result,
    *,
    error: JobError | None,
    findings: tuple[Finding, ...] = (),
    value: object = None,
    output: tuple[bytes, bytes] = (b"", b""),
    files: dict[str, bytes] | None = None,
) -> JobResult:
    stdout, stderr = output
    spoiled = header.outcome is Outcome.OK and error is not None
    return JobResult(
        job_id=header.job_id,
        outcome=Outcome.ERROR if spoiled else header.outcome,
        reason=f"{error.type}: {error.message:.500}" if spoiled and error else header.reason,
        value=value,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        stdout_bytes=header.stdout_bytes,
        stderr_bytes=header.stderr_bytes,
        error=error,
        findings=findings,
        files=files or {},
        exit_code=header.exit_code,
        signal=header.signal,
        truncated=header.truncated,
        timings=Timings(
            queue_ms=header.queue_ms,
            dispatch_ms=header.dispatch_ms,
            run_ms=header.run_ms,
            collect_ms=header.collect_ms,
            total_ms=header.total_ms,
        ),
        usage=Usage(cpu_s=header.cpu_s, max_rss_bytes=header.max_rss_bytes),
        worker=header.worker,
        container=header.container,
        attempt=header.attempt,
        start=header.start,
        fallback=header.fallback,
    )

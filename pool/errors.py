"""One error tree, by whose fault an error is.

    PoolError
    ├── JobRefusedError        the submitter's: the request itself is wrong, and another try will not help
    │   ├── InvalidJobError        a field has a wrong type or an absurd value
    │   │   └── JobConflictError       the job id belongs to a job with another content
    │   ├── LimitExceededError     a limit above the template's maximum (carries both numbers)
    │   ├── TooLargeError          code, arguments or files above a size limit
    │   ├── UnknownPoolError       no pool of that name
    │   ├── UnknownJobError        no job of that id, or not one of yours
    │   ├── PoisonedCodeError      this code has cost too many workers (carries digest, kills, history, retry_after_s)
    │   └── ValueCodecError        an argument or a result of a type that cannot be sent (names the type and the path)
    ├── BusyError              nobody's: another try may work later (most carry retry_after_s)
    │   ├── BacklogFullError
    │   ├── DrainingError
    │   ├── PoolUnavailableError   no worker can be started now (says why)
    │   └── StorageFullError       no room for another job or result on disk (names the directory), or for results
    ├── DaemonUnreachableError the daemon does not answer (says what was tried)
    ├── ResultTimeoutError     the result is not there yet; the job goes on
    ├── ClosedError            this client has been closed; ExecutorClosedError: this executor
    ├── JobFailedError         a job ended with an outcome other than ok (raised by PoolExecutor futures only)
    │   └── JobOutcomeError        has the JobResult; where the job raised a built-in exception, also of that type
    ├── BatchError             not all jobs of `submit_many` could be submitted (its `batch` has those that were)
    ├── ProtocolError          LocalProtocolError (this side broke it) | RemoteProtocolError (the peer did)
    │   └── VersionMismatchError   the peer speaks another version (names the command that fixes it)
    ├── ConfigError            the operator's configuration (all problems at once)
    └── EngineError            the engine: EngineUnavailableError | ImageMissingError | StartError
        └── NoLockdownError        this host refuses a part of the local engine's lockdown (names it and the remedy)

The class docstring is the default message. Facts are in `fields` as plain scalars, not only in the text, so that an
error can be sent over the wire and becomes the same class again.
"""

from __future__ import annotations

import builtins
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pool.model import JobResult

Scalar = str | int | float | bool | None


class PoolError(Exception):
    """The pool failed."""

    code: ClassVar[str] = "pool"

    def __init__(self, message: str | None = None, **fields: Scalar) -> None:
        # Not that of a second base, such as UnicodeDecodeError, which takes other arguments.
        Exception.__init__(self, message or (type(self).__doc__ or "").partition("\n")[0])
        self.fields = fields

    @property
    def message(self) -> str:
        return str(self.args[0])


class JobRefusedError(PoolError):
    """The job was refused."""

    code = "refused"


class InvalidJobError(JobRefusedError):
    """A field of the job is not valid."""

    code = "invalid_job"


class JobConflictError(InvalidJobError):
    """This job id was already used for another job."""

    code = "job_conflict"


class LimitExceededError(JobRefusedError):
    """The job asks for more than its pool allows."""

    code = "limit_exceeded"


class TooLargeError(JobRefusedError):
    """The job is above a size limit."""

    code = "too_large"


class UnknownPoolError(JobRefusedError):
    """There is no pool of that name."""

    code = "unknown_pool"


class UnknownJobError(JobRefusedError):
    """There is no job of that id."""

    code = "unknown_job"


class PoisonedCodeError(JobRefusedError):
    """This code has cost too many workers and is refused for a while."""

    code = "poisoned_code"


class ValueCodecError(JobRefusedError):
    """A value cannot be sent between the client and the sandbox."""

    code = "value"


class BusyError(PoolError):
    """The pool cannot take the job now; try again later."""

    code = "busy"


class BacklogFullError(BusyError):
    """The backlog is full."""

    code = "backlog_full"


class DrainingError(BusyError):
    """The pool is draining and takes no new jobs."""

    code = "draining"


class PoolUnavailableError(BusyError):
    """The pool has no worker and cannot start one."""

    code = "pool_unavailable"


class StorageFullError(BusyError):
    """The daemon has no room to keep another job."""

    code = "storage_full"


class DaemonUnreachableError(PoolError):
    """The daemon does not answer."""

    code = "unreachable"


class ResultTimeoutError(PoolError, TimeoutError):
    """The result is not there yet; the job goes on."""

    code = "result_timeout"


class ClosedError(PoolError):
    """This client or executor has been closed."""

    code = "closed"


class JobFailedError(PoolError):
    """The job did not end ok."""

    code = "job_failed"


class ProtocolError(PoolError):
    """A message broke the protocol."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """This side was about to send a message that breaks the protocol."""

    code = "protocol_local"


class RemoteProtocolError(ProtocolError):
    """The peer sent a message that breaks the protocol."""

    code = "protocol_remote"


class VersionMismatchError(RemoteProtocolError):
    """The peer speaks another version of the protocol."""

    code = "version_mismatch"


class ConfigError(PoolError):
    """The configuration is not valid."""

    code = "config"

    def __init__(self, message: str | None = None, *, problems: tuple[str, ...] = (), **fields: Scalar) -> None:
        super().__init__(message, **fields)
        self.problems = problems


class EngineError(PoolError):
    """The container engine failed."""

    code = "engine"


class EngineUnavailableError(EngineError):
    """The container engine does not answer."""

    code = "engine_unavailable"


class ImageMissingError(EngineError):
    """The worker image is missing."""

    code = "image_missing"


class StartError(EngineError):
    """A worker's container could not be started."""

    code = "start"


class NoLockdownError(EngineError):
    """This host refuses a part of the lockdown, so nothing is run."""

    code = "no_lockdown"


def _tree(root: type[PoolError]) -> dict[str, type[PoolError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


_BY_CODE = _tree(PoolError)
#: Parameters of the constructors. A field of a peer's error with one of these names is dropped.
_RESERVED = frozenset({"self", "message", "problems"})


def from_code(code: str, message: str, fields: dict[str, Scalar]) -> PoolError:
    """Rebuild an error that came over the wire; an unknown code becomes a plain PoolError that names it."""
    facts = {name: value for name, value in fields.items() if name not in _RESERVED}
    kind = _BY_CODE.get(code)
    if kind is None:
        return PoolError(f"{code}: {message}", **facts)
    return kind(message, **facts)


# ---- made by a client only, and never sent ----


class ExecutorClosedError(ClosedError, RuntimeError):
    """This executor has been shut down."""


class BatchError(PoolError):
    """Not all jobs could be submitted; those in `batch` were and go on."""

    code: ClassVar[str] = "batch"

    def __init__(self, message: str | None = None, *, batch: Any = None, **fields: Scalar) -> None:
        super().__init__(message, **fields)
        self.batch = batch  #: a pool.client.Batch


class JobOutcomeError(JobFailedError):
    """The job did not end ok, or has no grade; `result` has all that is known about it."""

    def __init__(self, result: JobResult) -> None:
        from pool.printable import visible_block  # this module is in the worker image too, and that one is not

        error = result.error or result.grade_error
        what = f"{error.type}: {error.message}" if error else result.reason or "the job failed"
        trace = f"\n{error.traceback}" if error and error.traceback else ""
        super().__init__(
            visible_block(f"{what} (outcome {result.outcome}){trace}"),  # an uncaught error is printed to a terminal
            job_id=result.job_id,
            outcome=str(result.outcome),
            type=error.type if error else None,
            reason=result.reason,
        )
        self.result = result

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, tuple[JobResult]]:
        return outcome_error, (self.result,)


#: What a job may have raised and a caller may catch by its own type; not what ends a loop, or is made of other errors.
_CATCHABLE = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, StopIteration | StopAsyncIteration | ExceptionGroup)
}


def outcome_error(result: JobResult) -> JobOutcomeError:
    """The error for a job that did not end ok. `except KeyError` catches it if the job raised a KeyError."""
    error = result.error or result.grade_error
    name = error.type if error else ""
    kind = _of_kind(name) if name in _CATCHABLE else JobOutcomeError
    return kind(result)


@cache
def _of_kind(name: str) -> type[JobOutcomeError]:
    kind = _CATCHABLE[name]
    bases = (JobOutcomeError,) if kind is Exception else (JobOutcomeError, kind)
    # A traceback of a SyntaxError shows this instead of its text.
    shown = {"msg": property(lambda self: self.message)} if issubclass(kind, SyntaxError) else {}
    return type("JobOutcomeError", bases, {"__module__": __name__, "__doc__": JobOutcomeError.__doc__, **shown})

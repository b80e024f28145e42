"""Runs a job and makes its answer: report, error, files and value. Called in the child.

The runner trusts nothing of it: the job may have changed anything in this process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic_ns  # by name, because a job may replace the function in the module
from typing import NoReturn

from pool import values, wire
from pool.errors import ValueCodecError
from pool.outcome import Outcome
from runner import fault, output_files, program
from runner.channel import MAX_FRAMES, Answer, Frame
from runner.exception_hooks import call_hook
from runner.interpreter import finish, flush, has_exit_work
from runner.program import RejectedError, Setting

__all__ = ["ROOM_BYTES", "Setting", "answer", "failure"]

#: Added to a job's memory limit: to report that a job has taken all its memory takes memory too.
ROOM_BYTES = 4 << 20
_SMALL_BYTES = 4096
_TOO_MANY = "{} files and a value of {} parts are too many together; put the files or the arrays of the value into one"
_OK, _ERROR = Outcome.OK, Outcome.ERROR
#: Taken now, because a program may replace them in their module.
_close, _exit, _getpid, _listdir, _open, _write = os.close, os._exit, os.getpid, os.listdir, os.open, os.write


def answer(
    job: wire.Run,
    code: bytes,
    arguments: Sequence[Frame],
    setting: Setting,
    send: Callable[[list[Frame]], object] | None = None,
    *,
    last: bool = True,
) -> list[Frame]:
    """Run the job and end as a program does. Returns the frames: [report, error, *file names and contents, *value].

    `last`: False for a call of a chunk that others follow. Such a call ends the program only if it does not end ok, or
    leaves threads or processes; the others then run in another child.

    If code of the job may run after its value is known, the answer so far is given to `send`, and the final answer has
    no value. So an exit handler that never ends does not cost the job its value.
    """
    owner, started_ns, sent = _getpid(), monotonic_ns(), 0
    try:
        found = _run(job, code, arguments, setting)
        if send is not None and (last or found.outcome is not _OK or has_exit_work(handlers=False)):
            if (working := has_exit_work()) and _getpid() == owner:
                found.started_ns, found.pending = started_ns, True
                send(found.frames())
                sent, found.value, found.pending = _size(found.value), (), False
            finish(program.take_module, working=working)
        flush()
        if _getpid() != owner:
            _leave(found)
        found = _with_files(found, job, setting, already=sent)
    except BaseException as raised:  # noqa: BLE001 - the job has broken what is used here, or has taken all memory
        found = _broken(raised)
    found.started_ns = started_ns
    return found.frames()


def failure(raised: BaseException) -> list[Frame]:
    """The frames of a job that could not begin: its input does not fit, or the host refuses a part of the isolation."""
    now = monotonic_ns()
    about = "input" if fault.limit_of(raised) in {"tmp", "inodes"} else ""
    return Answer(_ERROR, now, started_ns=now, about=about, error=fault.encoded(raised)).frames()


def _run(job: wire.Run, code: bytes, arguments: Sequence[Frame], setting: Setting) -> Answer:
    ended_ns = 0
    try:
        room = mmap.mmap(-1, ROOM_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:  # its arguments and files have taken it all
        return Answer(Outcome.MEMORY, monotonic_ns())
    try:
        value, exit_code = program.run(job, code, arguments, setting)
        ended_ns = monotonic_ns()
        about = program.why_no_value(job, code) if value is None else ""
        encoded = values.encode(value, max_bytes=job.result)
        return Answer(_OK, ended_ns, exit_code=exit_code, about=about, value=encoded)
    except RejectedError as raised:
        return Answer(Outcome.REJECTED, monotonic_ns(), error=fault.rejected(raised.findings, fault.message(raised)))
    except MemoryError as raised:
        room.close()
        return Answer(Outcome.MEMORY, monotonic_ns(), error=fault.encoded(raised))
    except BaseException as raised:  # noqa: BLE001 - a job may raise anything, and all of it is its result
        if ended_ns and isinstance(raised, ValueCodecError):
            return _not_carried(raised, ended_ns)
        return _raised(raised)


def _raised(raised: BaseException) -> Answer:
    about = fault.limit_of(raised)
    fault.forget_callers(raised)
    last = call_hook(raised, fault.own_trace(raised)) if fault.exit_code(raised) is None else raised
    exit_code = fault.exit_code(last)
    if exit_code == 0:  # of the job's hook
        return Answer(_OK, monotonic_ns(), exit_code=0, value=values.encode(None, max_bytes=_SMALL_BYTES))
    if exit_code is not None and (text := fault.exit_text(last)):
        with contextlib.suppress(BaseException):  # the stream may be any object by now, or missing
            sys.stderr.write(f"{text}\n")
    if about == "memory":  # a system call has failed with ENOMEM
        return Answer(Outcome.MEMORY, monotonic_ns(), error=fault.encoded(raised))
    if type(raised) is KeyboardInterrupt:  # Python does not take an exception that is derived from it for an interrupt
        about = "interrupt"
    if type(raised) is ModuleNotFoundError:
        about = "module"
    return Answer(_ERROR, monotonic_ns(), exit_code=exit_code, about=about, error=fault.encoded(raised))


def _broken(raised: BaseException) -> Answer:
    if issubclass(type(raised), MemoryError):
        return Answer(Outcome.MEMORY, monotonic_ns())
    return Answer(_ERROR, monotonic_ns(), error=fault.UNKNOWN)


def _not_carried(raised: ValueCodecError, ended_ns: int) -> Answer:
    """Its value or its files are over a limit, or of a kind that cannot be carried."""
    outcome = Outcome.OUTPUT if "limit" in raised.fields else _ERROR
    about = "files" if "files" in raised.fields else "value"
    return Answer(outcome, ended_ns, about=about, error=fault.encoded(raised))


def _leave(found: Answer) -> NoReturn:
    """End a process that the job has forked and that has left the job's code. Only the first process answers."""
    if found.error and found.exit_code is None:
        _write(2, wire.decode_fault(found.error).traceback.encode())
    _exit(found.exit_code or int(found.outcome is not _OK))


def _have_a_descriptor() -> None:
    """Reading the files takes one. If the job has all in use, its stdin is closed, which nobody needs any more."""
    try:
        _close(_open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        with contextlib.suppress(OSError):
            _close(0)


def _size(frames: Sequence[Frame]) -> int:
    return sum([memoryview(frame).nbytes for frame in frames])


def _with_files(found: Answer, job: wire.Run, setting: Setting, *, already: int) -> Answer:
    """With the files in the output directory, also when the job failed. Files and value share one limit."""
    if found.outcome not in {_OK, _ERROR}:
        return found
    try:
        if not _listdir(setting.output):  # as most jobs leave it
            return found
    except OSError:  # it is gone, or the job has all descriptors in use
        _have_a_descriptor()
    left = job.result - already - _size(found.value)
    try:
        files = output_files.collect(Path(setting.output), max_bytes=left)
    except ValueCodecError as raised:
        return found if found.outcome is _ERROR else _not_carried(raised, found.ended_ns)
    if 2 + len(files) + len(found.value) > MAX_FRAMES:
        why = ValueCodecError(_TOO_MANY.format(len(files) // 2, len(found.value)), files=True)
        return _not_carried(why, found.ended_ns)
    found.files = files
    return found

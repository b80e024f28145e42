"""Exceptions that end a program, a thread or a destructor: they are printed as Python prints them, without the runner's
frames and with the lines of the source, which Python's own hooks read from files only.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import cast

from runner import fault
from runner.interpreter import ROOT, restoring

_NO_HOOK = object()


def set_up() -> None:
    """In the zygote, for all children."""
    _tell_of_thread.__module__ = threading.__name__  # so that it is among the public names of that module
    threading.excepthook = threading.__excepthook__ = _tell_of_thread
    sys.unraisablehook = sys.__unraisablehook__ = _tell_of_ignored
    sys.excepthook = sys.__excepthook__ = _tell_of_exception


def _tell_of_exception(_: object, raised: BaseException, trace: TracebackType | None, /) -> None:
    """For a job that calls sys.excepthook or sys.__excepthook__."""
    if sys.stderr is not None:
        sys.stderr.write(fault.formatted(raised, _without_runner(raised.__traceback__ or trace)))
        sys.stderr.flush()


def _tell_of_thread(args: threading.ExceptHookArgs, /) -> None:
    """Of a thread."""
    if args.exc_type is not SystemExit and sys.stderr is not None:
        name = threading.get_ident() if args.thread is None else args.thread.name
        told = traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
        sys.stderr.write(f"Exception in thread {name}:\n{''.join(told)}")
        sys.stderr.flush()


def _tell_of_ignored(unraisable: sys.UnraisableHookArgs, /) -> None:
    """In a destructor or an exit handler."""
    if sys.stderr is None:
        return
    trace = _without_runner(unraisable.exc_traceback)
    told = [] if trace is None else ["Traceback (most recent call last):\n", *traceback.format_tb(trace)]
    told += traceback.format_exception_only(unraisable.exc_type, unraisable.exc_value)
    where = f": {unraisable.object!r}" if unraisable.object is not None else ":"
    sys.stderr.write(f"{unraisable.err_msg or 'Exception ignored in'}{where}\n{''.join(told)}")
    sys.stderr.flush()


def _without_runner(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(ROOT):
        trace = trace.tb_next
    return trace


def call_hook(raised: BaseException, trace: TracebackType | None) -> BaseException:
    """Set sys.last_value, and call sys.excepthook if the job has set another. Returns what ends the program."""
    hook = getattr(sys, "excepthook", _NO_HOOK)
    sys.last_type, sys.last_value, sys.last_traceback = type(raised), raised, trace
    if hook is _tell_of_exception:
        return raised
    try:
        if hook is _NO_HOOK:
            sys.stderr.write("sys.excepthook is missing\n")
        else:
            restoring(cast("Callable[..., object]", hook), type(raised), raised, trace)
    except SystemExit as end:
        return end
    except BaseException as error:  # noqa: BLE001 - the hook is the job's
        with contextlib.suppress(BaseException):
            _tell_of_hook(error, raised)
    return raised


def _tell_of_hook(error: BaseException, raised: BaseException) -> None:
    """As Python prints it. After it comes the traceback of the job."""
    if error.__context__ is raised:
        error.__context__ = None
    told = "".join(traceback.format_exception(type(error), error, _without_runner(error.__traceback__)))
    sys.stderr.write(f"Error in sys.excepthook:\n{told}\nOriginal exception was:\n")

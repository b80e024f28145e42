"""What a program has from its caller and cannot work with: closed streams, ignored and blocked signals."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Final

#: What ends a daemon.
ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def put_right() -> None:
    """Called first by each program."""
    _open_streams()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it hides how a command has ended
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # otherwise SIGTERM may never arrive


def end_at_signals() -> None:
    """For a daemon that starts: SIGTERM, SIGINT and SIGHUP end it with status 0 and no traceback.

    What it has begun is undone by its `finally` clauses. A daemon that serves has handlers of its own.
    """

    def end(number: int, _: FrameType | None) -> None:
        os.write(2, f"ended by {signal.Signals(number).name} before the daemon served\n".encode())
        raise SystemExit(0)

    for number in ENDING:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, end)


def _open_streams() -> None:
    """Standard streams that are closed lead nowhere.

    Otherwise they are None, and the program's first files get their numbers, and so what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(null, True)
            setattr(sys, name, os.fdopen(null, "w" if number else "r", encoding="utf-8"))

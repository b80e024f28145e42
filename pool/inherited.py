"""What a program has from its caller and cannot work with: closed streams, ignored and blocked signals."""

from __future__ import annotations

import os
import signal
import sys


def put_right() -> None:
    """Called first by each program."""
    _open_streams()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it hides how a command has ended
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # otherwise SIGTERM may never arrive


def _open_streams() -> None:
    """Standard streams that are closed lead nowhere.

    Otherwise they are None, and the program's first files get their numbers, and so what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(null, True)
            setattr(sys, name, os.fdopen(null, "w" if number else "r", encoding="utf-8"))

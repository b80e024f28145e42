"""Waits for conditions, calls on threads of their own, and functions in forked children."""

import os
import signal
import threading
import time
from collections.abc import Callable

#: Generous: test machines are busy.
PATIENCE_S = 120.0


class Waiting:
    """A call on a thread of its own: its value or its error."""

    def __init__(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        self.outcome: object = None
        self._thread = threading.Thread(target=self._run, args=(function, args, kwargs))
        self._thread.start()

    def _run(self, function: Callable[..., object], args: tuple, kwargs: dict) -> None:
        try:
            self.outcome = function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.outcome = error

    def goes_on(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> object:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.outcome


def in_child(work: Callable[[], object]) -> int | str:
    """The exit status of a forked child: 0 if the work returned something true."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


def eventually(condition: Callable[[], object], deadline_s: float = PATIENCE_S) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not hold in time"
        time.sleep(0.005)

"""Runs the operator's command at the start and at the end of an alert, in a thread, one at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import IO, Literal

import msgspec
import structlog

from pool.status import Alert

log = structlog.get_logger(__name__)

#: Calls that may wait for the one before; the others are not made, and the log says so.
MAX_WAITING = 100
#: How many bytes of a failed command's stderr are logged, from its end.
_WORDS = 500


class AlertHook:
    """`tell` returns at once. The command gets `{"event": "start" | "end", "id", "since", "text"}` on its stdin."""

    def __init__(self, command: Sequence[str], *, timeout_s: float) -> None:
        """`command`: a program and its arguments; without one nothing is run."""
        self._command = list(command)
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="alert")
        self._room = BoundedSemaphore(MAX_WAITING)

    def tell(self, event: Literal["start", "end"], alert: Alert) -> None:
        if not self._command:
            return
        if not self._room.acquire(blocking=False):
            log.error("alerts.command failed", action="alert_command", alert=alert.id, reason="too many calls wait")
            return
        body = json.dumps({"event": event, **msgspec.structs.asdict(alert)}).encode()
        self._threads.submit(self._call, body, alert.id)

    def close(self) -> None:
        """Wait for the call that runs, its timeout at most. Those that wait are not made."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _call(self, body: bytes, alert: str) -> None:
        self._room.release()
        with tempfile.TemporaryFile() as words:
            problem = self._run(body, words)
            if problem:
                end = words.seek(0, os.SEEK_END)
                words.seek(max(0, end - _WORDS))
                said = words.read().decode(errors="replace")
                log.error("alerts.command failed", action="alert_command", alert=alert, reason=problem, stderr=said)

    def _run(self, body: bytes, words: IO[bytes]) -> str:
        """What went wrong, or nothing."""
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words, start_new_session=True
            )
        except (OSError, ValueError) as error:
            return f"it cannot be run: {error}"
        try:
            process.communicate(body, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the whole group; not waited for yet, so the number is its own
            process.communicate()
            return f"it was killed after {self._timeout_s:g} s"
        return f"it ended with status {process.returncode}" if process.returncode else ""

"""Messages of the guest to the host: JSON lines on the second serial port, written at once.

{"step": "docker load"}                                                        what it does now
{"fact": "kernel", "value": "6.12..."}                                         what this machine is
{"check": "...", "column": "docker-default", "passed": true, "seen": "..."}    what was looked at and seen
{"end": "all steps were taken"}
"""

import contextlib
import json
import os
import traceback

PORT = "/dev/ttyS1"


class Teller:
    def __init__(self, path=PORT):
        self._port = os.open(path, os.O_WRONLY | os.O_NOCTTY)

    def step(self, title):
        self._tell(step=title)

    def fact(self, name, value):
        self._tell(fact=name, value=str(value))

    def check(self, name, *, column, passed, seen):
        self._tell(check=name, column=column, passed=bool(passed), seen=str(seen)[:600])

    def log(self, name, text):
        self._tell(log=name, text=text[-6000:])

    def end(self, how):
        self._tell(end=how)

    @contextlib.contextmanager
    def checking(self, name, *, column):
        """A check whose own failure is one of its answers: what is raised is seen, and the next check is made."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self.check(name, column=column, passed=False, seen=f"{type(error).__name__}: {error}")
            self.log(name, traceback.format_exc())

    def _tell(self, **line):
        text = json.dumps(line).encode() + b"\n"
        while text:
            text = text[os.write(self._port, text) :]

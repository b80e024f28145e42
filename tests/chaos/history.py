"""What each process did, when, and with which result: a file of JSON lines for each, read together at the end.

A record is written with one system call, so a process that is killed leaves whole lines and at most one that is cut.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self


class History:
    """`with History(directory, "submitter-1") as history: history.add("acknowledged", id="j1")`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._name = name
        self._file = os.open(directory / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()

    def add(self, what: str, **facts: object) -> None:
        line = json.dumps({"t": time.monotonic(), "by": self._name, "what": what, **facts})
        with self._lock:
            os.write(self._file, line.encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def read(directory: Path) -> list[dict]:
    """All records in the order of time."""
    records = [record for path in directory.glob("*.jsonl") for record in _records(path)]
    return sorted(records, key=lambda each: each["t"])


def _records(path: Path) -> Iterator[dict]:
    for line in path.read_bytes().split(b"\n"):
        try:
            yield json.loads(line)
        except ValueError:  # the last one of a process that was killed
            continue

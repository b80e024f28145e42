"""How far a long run is: a bar on a terminal, else a line every ten seconds."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_EVERY_S = 10.0


class Lines:
    """The same for a log."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._count = 0
        self._lock = threading.Lock()
        self._said = time.monotonic()
        print(f"    {title}: {total:,}", flush=True)

    def one_more(self) -> None:
        with self._lock:
            self._count += 1
            if time.monotonic() - self._said < _EVERY_S:
                return
            self._said = time.monotonic()
            print(f"    {self._title}: {self._count:,} of {self._total:,}", flush=True)


@contextmanager
def progress(title: str, total: int) -> Iterator:
    """Gives what is to be called once for each job that has ended, in any thread."""
    if not sys.stdout.isatty():
        yield Lines(title, total).one_more
        return
    columns = (TextColumn("    {task.description:44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)

"""What the daemon asks of its journal, and the journal of a daemon that keeps none. The other: journal_writer.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from pool.daemon.journal_entries import Operation
from pool.errors import PoolError, StorageFullError
from pool.wire import Frame

Then = Callable[[PoolError | None], None]


class Trouble(NamedTuple):
    """Why no job can be accepted now, and since when."""

    error: StorageFullError
    since: float  #: monotonic seconds


class Journal(Protocol):
    """Used from the loop's thread."""

    @property
    def durable(self) -> bool:
        """Whether jobs survive the end of the daemon."""

    @property
    def trouble(self) -> Trouble | None: ...

    @property
    def idle(self) -> bool:
        """Whether everything that was given to `write` has been done."""

    @property
    def unwritten(self) -> Sequence[object]:
        """What `flush` has to do."""

    @property
    def size_bytes(self) -> int: ...

    def write(self, operation: Operation, then: Then) -> None:
        """Write the operation, then call `then`, with an error if it is essential and could not be written."""

    def look(self) -> None:
        """To be called now and then: notice that the files were removed or changed by others, which no write tells."""

    def flush(self) -> None:
        """To be called after each turn of the loop: do the writes of this turn."""

    def payload(self, number: int, frames: Sequence[Frame]) -> Sequence[Frame]:
        """The payload of a job whose acceptance is written: mapped from its file, if it has one."""

    def answer(self, number: int, frames: Sequence[Frame]) -> Sequence[Frame]:
        """The same for the answer of a job whose end is written."""

    def open_payload(self, number: int) -> int | None:
        """A descriptor of the file with it, whose frames are in their `places`; None if it has none."""

    def close(self) -> None: ...


class NoJournal:
    """For `durability: none`: nothing is written, and everything follows at once."""

    durable = False
    trouble = None
    idle = True
    unwritten = ()
    size_bytes = 0

    def write(self, _operation: Operation, then: Then) -> None:
        then(None)

    def look(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def payload(self, _number: int, frames: Sequence[Frame]) -> Sequence[Frame]:
        return frames

    answer = payload

    def open_payload(self, _number: int) -> None:
        pass

    def close(self) -> None:
        pass

"""The journal: accepted jobs and their results, on disk. A thread writes groups of operations, each in one transaction.

    loop ──write(operation, then)──▶ flush, once a turn: small ones in one COMMIT ──▶ then(None), ...
                                       └─▶ queue ──▶ thread: all that is there, one COMMIT ──▶ loop: then(None), ...

`then` is called on the loop's thread, in the order of the writes, and carries out what may happen only after the write:
the acknowledgement, the message to the worker, the result.

Without fsync a small write takes 20 microseconds. To wake the thread takes longer, on a busy host milliseconds. So the
loop writes small operations itself while the thread has nothing to do: all of a turn in one transaction.

    no room left    essential writes are refused: then(StorageFullError). The rest is done, so that results go on from
                    memory, and written as soon as there is room; until then new jobs are refused. No restart is needed.
    anything else   fatal: after a failed fsync it is not known what is on the disk, so nothing is tried again.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from pool.daemon.journal import Then, Trouble
from pool.daemon.journal_entries import Operation, Probe, Tidy, packed_bytes
from pool.daemon.journal_file import INLINE_BYTES, JournalFile
from pool.errors import PoolError, StorageFullError
from pool.units import format_size
from pool.wire import Frame

log = structlog.get_logger(__name__)

#: A plain tuple: each job has several.
_Item = tuple[Operation, Then]

#: How often writes that failed for want of room are tried again.
RETRY_S = 1.0
#: How often the size of the files is measured while the journal is written.
_MEASURE_S = 1.0
#: Operations in one transaction: it bounds the memory of a transaction and the wait for the first of them.
_GROUP = 512
#: The frames that the loop writes itself in one turn.
_AT_ONCE_BYTES = 4 * INLINE_BYTES


def open_file(durability: str, directory: Path) -> JournalFile | None:
    """The journal's files; None for `durability: none`. Raises ConfigError if they cannot be used."""
    if durability != "none":
        return JournalFile(directory, fsync=durability == "power")
    if directory.exists():
        text = "the jobs and results in the journal are not served: daemon.durability is none"
        log.warning(text, action="journal_ignored", directory=str(directory))
    return None


class FileJournal:
    """Writes to a JournalFile, which nobody else may use from now on."""

    def __init__(self, file: JournalFile, *, max_bytes: int, call_soon: Callable[[Callable[[], None]], None]) -> None:
        """`call_soon` has the loop call a function. What it raises there ends the daemon."""
        self.durable = True
        self.trouble: Trouble | None = None
        self.size_bytes = file.size_bytes()
        self._file = file
        self._max_bytes = max_bytes
        self._call_soon = call_soon
        self._lock = threading.Lock()  # held while the file is used
        self._woken_at = time.monotonic()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self.unwritten: list[_Item] = []  #: since the last `flush`
        self._is_removed = False  # or harmed, for the next daemon; this one goes on writing to it
        self._open = 0  # items of the thread whose `then` was not called yet
        self._owed: list[Operation] = []  # not written yet, though their `then` was called; of the thread
        self._full = False  # of the thread; the loop reads `trouble`
        self._measured_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    # ---- the loop's thread ----

    @property
    def idle(self) -> bool:
        return not self._open and not self.unwritten

    def write(self, operation: Operation, then: Then) -> None:
        self.unwritten.append((operation, then))

    def flush(self) -> None:
        while self.unwritten:  # what follows from a write may be another one
            items, self.unwritten = self.unwritten, []
            if self._open or self._file.fsync or not self._write_at_once(items):
                self._hand_over(items)
                return
            for _, then in items:
                then(None)
        if time.monotonic() >= self._woken_at + _MEASURE_S:
            self._woken_at = time.monotonic()
            self._hand_over([(Tidy(), lambda _: None)])

    def _hand_over(self, items: Sequence[_Item]) -> None:
        self._open += len(items)
        for item in items:
            self._queue.put(item)

    def _write_at_once(self, items: Sequence[_Item]) -> bool:
        """False: they are not written, because they are large, the thread has the file, or no room is left."""
        if self.trouble is not None or _are_large(items) or not self._lock.acquire(blocking=False):
            return False
        try:
            self._file.commit([operation for operation, _ in items])
        except (sqlite3.Error, OSError) as error:
            if not self._file.is_full(error):
                raise self._fatal(error) from error
            return False
        finally:
            self._lock.release()
        return True

    def payload(self, number: int, frames: Sequence[Frame]) -> Sequence[Frame]:
        return self._mapped(f"{number}.job", frames)

    def answer(self, number: int, frames: Sequence[Frame]) -> Sequence[Frame]:
        return self._mapped(f"{number}.result", frames)

    def _mapped(self, name: str, frames: Sequence[Frame]) -> Sequence[Frame]:
        if packed_bytes(frames) <= INLINE_BYTES:
            return frames
        try:
            return self._file.frames(name, None) or frames
        except OSError:  # for example because no descriptor is free: they stay in memory
            return frames

    def open_payload(self, number: int) -> int | None:
        return self._file.bodies.open(f"{number}.job")

    def _done(self, items: Sequence[_Item], refused: PoolError | None) -> None:
        for operation, then in items:
            self._open -= 1
            then(refused if operation.essential else None)

    def _note(self, size_bytes: int, no_room: StorageFullError | None) -> None:
        self.size_bytes = size_bytes
        error = no_room or (self._too_large(size_bytes) if size_bytes > self._max_bytes else None)
        if not self._is_removed:
            self._set_trouble(error)

    def _set_trouble(self, error: StorageFullError | None) -> None:
        since = self.trouble.since if self.trouble is not None else time.monotonic()
        self.trouble = Trouble(error, since) if error is not None else None

    def look(self) -> None:
        if self._is_removed or not (harm := self._harm()):
            return
        self._is_removed = True
        text = f"the journal in {self._file.directory} was {harm}, so no job can be accepted"
        log.error(text, action="journal_removed")
        remedy = "start the daemon again. Jobs that have not ended by then are lost"
        self._set_trouble(StorageFullError(f"{text}; {remedy}", directory=str(self._file.directory)))

    def _harm(self) -> str:
        if not self._lock.acquire(blocking=False):  # the thread may be moving the log; the next look will tell
            return ""
        try:
            return self._file.harm()
        except OSError as error:
            log.warning("the files of the journal cannot be looked at", action="journal_look", error=str(error))
            return ""
        finally:
            self._lock.release()

    def _too_large(self, size_bytes: int) -> StorageFullError:
        return StorageFullError(
            f"the journal in {self._file.directory} holds {format_size(size_bytes)}, more than daemon.journal_bytes "
            f"allows ({format_size(self._max_bytes)}); try again when jobs have ended and results were collected, or "
            "raise it",
            directory=str(self._file.directory),
            retry_after_s=RETRY_S,
        )

    def close(self) -> None:
        """Write the queued items and end the thread. `then` is called only if the loop goes on."""
        items, self.unwritten = self.unwritten, []
        self._hand_over(items)
        self._queue.put(None)
        self._thread.join()
        self._file.close()

    # ---- the thread ----

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception as error:  # noqa: BLE001 - the loop raises it again and ends the daemon
            fatal = self._fatal(error)
            self._call_soon(lambda: _raise(fatal))

    def _fatal(self, error: Exception) -> PoolError:
        return PoolError(
            f"the journal in {self._file.directory} cannot be written: {error}. The daemon ends, because it is not "
            "known what is on the disk; check the disk, then start it again: it reads what had been acknowledged"
        )

    def _turn(self) -> bool:
        """Write one group. False: the journal was closed."""
        items, more = self._take()
        if items or self._full:
            self._write(items)
        if not more and self._owed:
            text = "the last results could not be written: no room was left"
            log.error(text, action="journal_full", directory=str(self._file.directory), operations=len(self._owed))
        return more

    def _take(self) -> tuple[list[_Item], bool]:
        """The queued items, at least one unless it is time for another try; and whether more may come."""
        items: list[_Item] = []
        try:
            item = self._queue.get(timeout=RETRY_S if self._full else None)
            while item is not None:
                items.append(item)
                if len(items) == _GROUP:
                    return items, True
                item = self._queue.get_nowait()
        except queue.Empty:
            return items, True
        return items, False

    def _write(self, items: Sequence[_Item]) -> None:
        was_full = self._full
        with self._lock:
            written = self._try([operation for operation, _ in items])
            refused = None if written else self._no_room()
            self._call_soon(lambda: self._done(items, refused))
            if not self._full:
                self._tidy()
            self._report(changed=was_full is not self._full)

    def _tidy(self) -> None:
        try:
            self._file.tidy()
        except sqlite3.Error as error:
            if not self._file.is_full(error):
                raise

    def _try(self, operations: Sequence[Operation]) -> bool:
        """Write them and those that are owed; without the essential ones, and False, where these have no room.

        There may be room for other ones: a large body does not fit where a probe does.
        """
        if not self._full and self._commit(operations):
            return True
        self._owed += [each for each in operations if not each.essential]
        self._full = not (self._commit(()) and self._commit((Probe(),)))
        return False

    def _commit(self, operations: Sequence[Operation]) -> bool:
        """False: no room is left. Raises sqlite3.Error or OSError for everything else."""
        try:
            self._file.commit([*self._owed, *operations])
        except (sqlite3.Error, OSError) as error:
            if not self._file.is_full(error):
                raise
            return False
        self._owed.clear()
        return True

    def _report(self, *, changed: bool) -> None:
        """Tell the loop how large the journal is and whether there is room, now and then and when that has changed."""
        now = time.monotonic()
        if not changed and now < self._measured_at + _MEASURE_S:
            return
        self._measured_at = now
        size_bytes, no_room = self._file.size_bytes(), self._no_room() if self._full else None
        self._call_soon(lambda: self._note(size_bytes, no_room))
        if changed and no_room is not None:
            log.error(no_room.message, action="journal_full")
        elif changed:
            log.info("the journal has room again", action="journal_room")

    def _no_room(self) -> StorageFullError:
        directory = str(self._file.directory)
        return StorageFullError(
            f"no space is left for the journal in {directory}, so no job can be accepted; free some space there. Jobs "
            "that were accepted go on, and nothing has to be restarted",
            directory=directory,
            retry_after_s=RETRY_S,
        )


def _are_large(items: Sequence[_Item]) -> bool:
    """Whether the loop would wait for them for more than about a millisecond."""
    total = 0
    for operation, _ in items:
        if frames := operation.frames:
            size_bytes = packed_bytes(frames)
            total += size_bytes
            if size_bytes > INLINE_BYTES or total > _AT_ONCE_BYTES:
                return True
    return False


def _raise(error: PoolError) -> None:
    raise error

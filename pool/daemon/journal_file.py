"""The journal's files: one SQLite database, and one file for each large payload or answer.

    state_dir/journal/ journal.db  journal.db-wal                      jobs, leases, results, counters
                       bodies/<number>.job  bodies/<number>.result     frames of more than INLINE_BYTES together

    job     a row from the acceptance until the result is dropped, with the last dispatch, if any
    result  how a job ended, if it has                                 fact    boot, restarts, worker numbers, its name

Times are monotonic seconds. They go on through a restart of the daemon; after a restart of the host they are shifted by
the wall clock when the file is opened. `PRAGMA user_version` is the version of the schema. Used from one thread at a
time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from pool.daemon.journal_bodies import Bodies
from pool.daemon.journal_disk import DAMAGE, has_no_room, is_environment, read_all, size_of, sync_directory
from pool.daemon.journal_entries import (
    KNOWN_SINCE,
    JobRow,
    LeaseRow,
    Operation,
    SetFact,
    head_of,
    split,
)
from pool.errors import ConfigError
from pool.wire import Frame

log = structlog.get_logger(__name__)

#: Frames of more bytes go into a file of their own, and from there into the worker's socket without a copy.
INLINE_BYTES = 64 * 1024
#: "WCPJ", so that another program's database is recognized.
_APPLICATION_ID = 0x5743504A
#: Operations in the write-ahead log before they are moved into the database: about 8 MiB of small jobs.
_CHECKPOINT = 1000
#: A log that is longer is cut to this size when SQLite begins it anew.
_LOG_KEPT_BYTES = 64 * 1024 * 1024
#: Unused pages of the database that are worth giving back, and how many are given back in one go.
_SPARE_PAGES = 2048
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

#: The script that leads to each version of the schema from the one before. Never change one that was released: add one.
_MIGRATIONS = (
    """
    CREATE TABLE fact (name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
    CREATE TABLE job (
        number INTEGER PRIMARY KEY, key TEXT NOT NULL, pool TEXT NOT NULL, digest BLOB NOT NULL,
        header BLOB NOT NULL, payload BLOB, accepted_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE lease (
        number INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, attempt INTEGER NOT NULL, worker TEXT NOT NULL,
        leased_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE result (
        number INTEGER PRIMARY KEY, header BLOB NOT NULL, payload BLOB, ended_at REAL NOT NULL
    ) STRICT;
    """,
    "ALTER TABLE result ADD COLUMN collected INTEGER NOT NULL DEFAULT 0;",
    """
    ALTER TABLE job ADD COLUMN epoch INTEGER;
    ALTER TABLE job ADD COLUMN attempt INTEGER;
    ALTER TABLE job ADD COLUMN worker TEXT;
    ALTER TABLE job ADD COLUMN leased_at REAL;
    UPDATE job SET (epoch, attempt, worker, leased_at) = (
        SELECT epoch, attempt, worker, leased_at FROM lease WHERE lease.number = job.number
    );
    DROP TABLE lease;
    """,
)
SCHEMA = len(_MIGRATIONS)


class ForeignJournal(Exception):  # noqa: N818 - named after the state of the file
    """The database is not one of ours."""


class JournalFile:
    """Opened, checked and migrated. Raises ConfigError if it cannot be used at all."""

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        """`fsync`: every transaction is on the disk when `commit` returns, so it survives a loss of power."""
        self.directory = directory
        self.set_aside: Path | None = None  #: where a journal is now that could not be read
        self._path = directory / "journal.db"
        self._log_path = directory / "journal.db-wal"
        self.bodies: Final = Bodies(directory / "bodies", fsync=fsync)
        self.remove: Final = self.bodies.remove
        self.fsync = fsync
        self._uncheckpointed = 0
        try:
            self._make_directories()
            self._connection = self._open_or_set_aside()
            self._cursor = self._connection.cursor()
            self._note_files()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"cannot use the journal in {directory}: {error}; check the directory's owner, file system and free "
                "space, or set daemon.durability to none"
            ) from error

    # ---- open ----

    def _make_directories(self) -> None:
        for path in (self.directory, self.bodies.directory):
            path.mkdir(mode=0o700, exist_ok=True)

    def _open_or_set_aside(self) -> sqlite3.Connection:
        """A disk that cannot be read for a moment looks like damage, so only what is damaged twice is set aside."""
        for again in (False, True):
            try:
                return self._open()
            except (sqlite3.DatabaseError, ForeignJournal) as error:
                if is_environment(error):
                    raise
                if again:
                    self._set_aside(error)
            for path in (self._path, self._log_path):
                read_all(path)
        return self._open()

    def _open(self) -> sqlite3.Connection:
        if size_of(self._path) == 0 and size_of(self._log_path):
            raise ForeignJournal("it is empty, and its log is not")  # SQLite would remove the log and begin anew
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=0)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # the index of the log is in memory, not on a full disk
        version = _pragma(connection, "user_version")
        if not version and not _pragma(connection, "page_count"):
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        if _pragma(connection, "application_id") != _APPLICATION_ID:
            raise ForeignJournal("it is the database of another program")
        if version > SCHEMA:
            raise ConfigError(
                f"{self._path} was written by a newer version of the daemon (schema {version}; this one reads up to "
                f"{SCHEMA}): start that version again, or move {self.directory} away and lose the jobs in it"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self.fsync else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # its error would look like one of the commit
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT_BYTES}")
        connection.execute("PRAGMA trusted_schema = OFF")
        if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise ForeignJournal(f"it is damaged: {found:.200}")
        for number, script in enumerate(_MIGRATIONS[version:], version + 1):
            connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
        _adjust_clock(connection)
        _name(connection)

    def _set_aside(self, error: Exception) -> None:
        moved = self.directory.with_name(f"{self.directory.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S}")
        log.error(
            "the journal cannot be read and was set aside: the jobs and results in it are lost to this daemon",
            action="journal_corrupt",
            moved_to=str(moved),
            reason=str(error),
        )
        self.directory.rename(moved)
        self.set_aside = moved
        self._make_directories()

    # ---- write ----

    def is_full(self, error: Exception) -> bool:
        return has_no_room(error, probe=self.bodies.directory / "0.probe")

    def execute(self, statement: str, values: Sequence[object]) -> None:
        self._cursor.execute(statement, values)

    def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        self._cursor.executemany(statement, rows)

    def commit(self, operations: Sequence[Operation]) -> None:
        """All of them in one transaction, or none. Raises sqlite3.Error or OSError."""
        together = self.fsync or len(operations) != 1 or not operations[0].is_one_statement
        try:
            if together:
                self._cursor.execute("BEGIN IMMEDIATE")
            for operation in operations:
                operation.apply(self)
            if self.fsync:
                sync_directory(self.bodies.directory)
            if together:
                self._cursor.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # there may be none, or a full disk has rolled it back already
                self._cursor.execute("ROLLBACK")
            self.bodies.undo()
            raise
        self._uncheckpointed += len(operations)
        if self.bodies.changed:
            self.bodies.committed()

    def body(self, name: str, frames: Sequence[Frame]) -> bytes | None:
        """The frames as they go into a column; None: they are too large for it and have been written to a file."""
        head = head_of(frames)
        if len(head) + sum(map(len, frames)) <= INLINE_BYTES:
            return b"".join((head, *frames))
        self.bodies.write(name, head, frames)
        return None

    def tidy(self) -> None:
        """Move the log into the database if it is long, and give unused pages back to the file system.

        Raises sqlite3.Error.
        """
        if self._uncheckpointed < _CHECKPOINT:
            return
        self._uncheckpointed = 0
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if _pragma(self._connection, "freelist_count") > _SPARE_PAGES:
            self._connection.execute(f"PRAGMA incremental_vacuum({_SPARE_PAGES})").fetchall()
        self._note_files()

    def size_bytes(self) -> int:
        """The size of jobs and results, without free pages of the database."""
        pages = _pragma(self._connection, "page_count") - _pragma(self._connection, "freelist_count")
        return pages * _pragma(self._connection, "page_size") + self.bodies.size_bytes

    def _note_files(self) -> None:
        self._known, self._known_log = self._path.stat(), self._log_path.stat()

    def harm(self) -> str:
        """What another program has done to the files; "": nothing that is seen. SQLite goes on writing to them.

        Only `tidy` writes to the database, and the log becomes no smaller than it may stay. Raises OSError.
        """
        try:
            now, log_now = self._path.stat(), self._log_path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "removed or replaced"
        if not (os.path.samestat(now, self._known) and os.path.samestat(log_now, self._known_log)):
            return "removed or replaced"
        if (now.st_size, now.st_mtime_ns) != (self._known.st_size, self._known.st_mtime_ns):
            return "truncated or overwritten"
        if log_now.st_size < min(self._known_log.st_size, _LOG_KEPT_BYTES):
            return "truncated or overwritten"
        self._known_log = log_now
        return ""

    def close(self) -> None:
        self._connection.close()

    # ---- read ----

    @property
    def name(self) -> str:
        """No other journal has this name."""
        return f"{self.fact('name'):x}"

    def fact(self, name: str) -> int:
        row = self._connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row is not None else 0

    def new_era(self) -> int:
        """A number for this daemon that no earlier one had, also if the journal was lost in between."""
        era = max(self.fact("era") + 1, int(time.time()))
        self.commit([SetFact("era", era)])
        return era

    def rows(self) -> Iterator[JobRow]:
        """Every job, in the order of acceptance. Bodies that belong to none are removed."""
        self.bodies.sweep({number for (number,) in self._connection.execute("SELECT number FROM job")})
        query = (
            "SELECT job.number, key, pool, digest, job.header, job.payload, accepted_at, epoch, attempt, worker, "
            "leased_at, result.header, result.payload, ended_at, collected FROM job "
            "LEFT JOIN result USING (number) ORDER BY job.number"
        )
        for row in self._connection.execute(query):
            number, key, pool, digest, header, payload, accepted_at, *lease, result, answer, ended_at, collected = row
            done = result is not None
            yield JobRow(
                number=number,
                key=key,
                pool=pool,
                digest=digest,
                header=header,
                payload=self.frames(f"{number}.{'result' if done else 'job'}", answer if done else payload),
                accepted_at=accepted_at,
                lease=LeaseRow(*lease) if lease[0] is not None else None,
                result=result,
                ended_at=ended_at or 0.0,
                collected=bool(collected),
            )

    def frames(self, name: str, column: bytes | None) -> Sequence[Frame] | None:
        """The frames in a column or, if that is None, in a file, which is mapped and not read. None: damaged.

        Raises OSError if it cannot be told, for example because no descriptor is free.
        """
        try:
            return split(self.bodies.mapped(name) if column is None else column)
        except OSError as error:
            if error.errno in DAMAGE:
                return None
            raise
        except (ValueError, struct.error):
            return None


# ---- SQLite ----


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _adjust_clock(connection: sqlite3.Connection) -> None:
    """After a restart of the host the monotonic clock began anew: shift the times of the last one."""
    boot, offset = _BOOT_ID.read_text(encoding="ascii").strip(), time.time() - time.monotonic()
    known = dict(connection.execute("SELECT name, value FROM fact WHERE name IN ('boot', 'wall_offset')"))
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if known and known["boot"] != boot:
            by = known["wall_offset"] - offset
            connection.execute("UPDATE job SET accepted_at = accepted_at + ?, leased_at = leased_at + ?", (by, by))
            connection.execute("UPDATE result SET ended_at = ended_at + ?", (by,))
            connection.execute("DELETE FROM fact WHERE name = ?", (KNOWN_SINCE,))
        connection.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", [("boot", boot), ("wall_offset", offset)])


def _name(connection: sqlite3.Connection) -> None:
    """A new journal gets a name, and has all jobs from now on."""
    given = [("name", secrets.randbits(62)), (KNOWN_SINCE, time.monotonic_ns())]
    with connection:
        connection.executemany("INSERT OR IGNORE INTO fact VALUES (?, ?)", given)

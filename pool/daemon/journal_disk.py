"""What the disk does to the journal: which errors mean what, and reads and writes around SQLite."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path

from pool.daemon.journal_entries import PROBE_BYTES, write_all

#: A file that is gone, or that the disk does not give any more.
DAMAGE = frozenset({errno.ENOENT, errno.EIO, errno.ENODATA, errno.EBADMSG, errno.EUCLEAN})


def size_of(path: Path) -> int | None:
    """None if there is no such file. Raises OSError."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def read_all(path: Path) -> None:
    """Raises OSError if the disk does not give a part of it."""
    with contextlib.suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
        while file.read(1024 * 1024):
            pass


def is_environment(error: Exception) -> bool:
    """Whether the cause lies outside the file: no room, no right, another process. Moving it would not help."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
    }


def has_no_room(error: Exception, *, probe: Path) -> bool:
    """Whether the disk, or a quota, has no room left. SQLite takes a quota for a failure of the disk.

    `probe`: a file that may be written and is removed again.
    """
    if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_IOERR_WRITE:
        return _is_full(error)
    try:
        with probe.open("wb", buffering=0) as file:
            write_all(file, bytes(PROBE_BYTES))
    except OSError as cause:
        return _is_full(cause)
    finally:
        probe.unlink(missing_ok=True)
    return False


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""The directories of one daemon: it makes and locks them before anything else.

    run_dir/   submit.sock  admin.sock  lock  w/<number>/link.sock         0711 so that submitters reach their socket
               journal                                                     the name of the last daemon's journal
               w/<number>.json                                             see kept_workers.py
    state_dir/ lock  owner  datasets/<digest>.npy  journal/                0700

`owner` is written once. Containers have it as a label, so that a daemon finds the containers that another one with the
same state directory left behind, and touches no others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pool.daemon.kept_workers import KeptWorkers
from pool.errors import ConfigError

#: What a directory of a daemon may have in it, and a new file system.
_OWN = frozenset(
    ["journal", "owner", "owner.new", "w", "datasets", "images", "oci", "submit.sock", "admin.sock", "lost+found"]
)
#: `sun_path` holds 108 bytes with the terminating NUL.
SUN_PATH_BYTES = 107
#: The longest path below run_dir. The names are short, so that a run directory may have 85 bytes.
_LONGEST_LINK = "w/1234567890/link.sock"


class RunDirectories:
    """The directories, locked until `close` or until the process ends."""

    def __init__(self, run_dir: Path, state_dir: Path) -> None:
        """Raises ConfigError for a directory that is too long, not writable, full, or used by others."""
        self.run_dir = run_dir
        self.state_dir = state_dir
        self.instance = secrets.token_hex(6)
        try:
            self._make_and_lock(run_dir, state_dir)
        except OSError as error:
            raise _unusable(Path(error.filename or run_dir), error) from error

    def _make_and_lock(self, run_dir: Path, state_dir: Path) -> None:
        _require_short(run_dir)
        _require_apart(run_dir, state_dir)
        for directory, mode in ((run_dir, 0o711), (state_dir, 0o700)):
            _require_own(directory)
            _require_trusted(directory)
            _make(directory, mode)
            _require_trusted(directory, *directory.iterdir())  # now nobody else can add to it
        with contextlib.ExitStack() as locks:
            for directory in (run_dir, state_dir):
                locks.callback(os.close, _lock(directory))
            self.owner = _owner(state_dir)
            self.links = run_dir / "w"
            _make(self.links, 0o700)
            self.kept = KeptWorkers(self.links)
            self.datasets = state_dir / "datasets"
            _make(self.datasets, 0o700)
            self._locks = locks.pop_all()

    @property
    def journal(self) -> Path:
        return self.state_dir / "journal"

    @property
    def submit(self) -> Path:
        return self.run_dir / "submit.sock"

    @property
    def admin(self) -> Path:
        return self.run_dir / "admin.sock"

    def last_journal(self) -> str:
        """The name of the journal of the last daemon in `run_dir`; "" if it had none, or that is not known."""
        try:
            return (self.run_dir / "journal").read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return ""

    def note_journal(self, name: str) -> None:
        """For the next daemon in `run_dir`. Called before a job is accepted."""
        path = self.run_dir / "journal"
        try:
            path.unlink(missing_ok=True)
            path.write_text(name, encoding="ascii")
        except OSError as error:
            raise _unusable(path, error) from error

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Raises ConfigError in place of what the file systems, or the limit of open files, refuse to a daemon that
        starts.
        """
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"the daemon cannot start: {error}; {self._remedy(error)}") from error

    def _remedy(self, error: OSError | sqlite3.Error) -> str:
        if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
            return "raise its limit of open files (LimitNOFILE= of the service, or ulimit -n)"
        return f"check owner, free space and file system of {self.run_dir} and {self.state_dir}"

    def forget_workers(self) -> None:
        """The daemon has ended all of them. One that fails leaves them to the next daemon."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.links, ignore_errors=True)

    def close(self) -> None:
        """Remove the sockets and unlock the directories."""
        for path in (self.submit, self.admin):
            with contextlib.suppress(OSError):  # the file system may have become read-only
                path.unlink(missing_ok=True)
        self._locks.close()


def _require_short(run_dir: Path) -> None:
    longest = len(os.fsencode(run_dir / _LONGEST_LINK))
    if longest > SUN_PATH_BYTES:
        raise ConfigError(
            f"daemon.run_dir {run_dir} is too long: the path of a worker's socket would have {longest} bytes and a "
            f"Unix socket takes {SUN_PATH_BYTES}; choose a directory that is {longest - SUN_PATH_BYTES} bytes shorter"
        )


def _require_apart(run_dir: Path, state_dir: Path) -> None:
    if run_dir.resolve() == state_dir.resolve():
        raise ConfigError(f"daemon.run_dir and daemon.state_dir are both {run_dir}; name two directories")


def _require_own(directory: Path) -> None:
    """Not /tmp or /var/lib, which a daemon of root would close to all others. A daemon has left its lock in its own."""
    try:
        found = {each.name for each in directory.iterdir()}
    except OSError:  # mostly because it is not there yet; otherwise it cannot be used, which is found next
        return
    strange = sorted(found - _OWN)
    if strange and "lock" not in found:
        raise ConfigError(
            f"the directory {directory} has files of others, such as {strange[0]!r}, and the daemon would close it to "
            "them; name one that only this daemon uses"
        )


def _require_trusted(*paths: Path) -> None:
    """No other user has made what the daemon reads, writes or closes to others: a link, a journal or a lock."""
    for path, look in itertools.product(paths, (Path.lstat, Path.stat)):
        with contextlib.suppress(OSError):  # it is not there yet, or cannot be used, which is found next
            if (user := look(path).st_uid) not in {0, os.geteuid()}:
                raise ConfigError(
                    f"{path} belongs to user {user}, who could change what the daemon of user {os.geteuid()} keeps "
                    "there; remove it, give it to the daemon's user, or name another directory"
                )


def _make(directory: Path, mode: int) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
    except OSError as error:
        raise ConfigError(
            f"cannot use the directory {directory}: {error.strerror}; make it writable, or name another one: set "
            "daemon.run_dir and daemon.state_dir, or POOL_RUN_DIR and POOL_STATE_DIR"
        ) from error


def _lock(directory: Path) -> int:
    path = directory / "lock"
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise ConfigError(
            f"another daemon already uses {directory}; stop it first, or give this one directories of its own "
            "(POOL_RUN_DIR, POOL_STATE_DIR)"
        ) from None
    return held


def _owner(state_dir: Path) -> str:
    path = state_dir / "owner"
    try:
        known = path.read_text(encoding="ascii").strip() if path.exists() else ""
        if not known:
            known = secrets.token_hex(8)
            fresh = path.with_suffix(".new")
            fresh.write_text(known + "\n", encoding="ascii")
            fresh.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, error) from error
    return known


def _unusable(path: Path, error: OSError | UnicodeDecodeError) -> ConfigError:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return ConfigError(f"no space left for {path}; free some space on that file system and start again")
    return ConfigError(f"cannot write {path}: {error}; check the directory's owner and file system")

"""The files that a job leaves for its client: everything below its output directory when it ends. Called in the child.

Each file becomes two frames, its name and its content. Names are relative paths with "/". Links, devices and the like
are not carried. Large contents are mapped instead of read, because they are in memory already. A mapping keeps a
descriptor, and a process has few of them, so small files are read.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pool import wire
from pool.errors import ValueCodecError

#: The output directory, in the job's work directory. Its path is in the environment variable too.
DIRECTORY = "out"
VARIABLE = "OUTPUT_DIR"
_MAPPED_FROM_BYTES = 1 << 20
#: Taken now, because a program may replace them in their modules.
_close, _fstat, _lstat, _open, _read, _scandir = os.close, os.fstat, os.lstat, os.open, os.read, os.scandir
_mmap = mmap.mmap


def clear(directory: Path) -> None:
    """Remove what is in it, for the next call of a chunk; make it if it is missing. Raises OSError."""
    for root, directories, names in os.walk(directory, topdown=False):
        for name in names:
            os.unlink(f"{root}/{name}")  # noqa: PTH108
        for name in directories:
            path = f"{root}/{name}"
            (os.unlink if os.path.islink(path) else os.rmdir)(path)  # noqa: PTH114
    os.makedirs(directory, exist_ok=True)  # noqa: PTH103


def collect(directory: Path, *, max_bytes: int) -> list[bytes | memoryview]:
    """Names and contents in turn, sorted by name.

    Raises ValueCodecError: with a `limit` for too many files or bytes, without one for a name that is not allowed.
    """
    names = [] if _is_link(directory) else sorted(_names(str(directory)))
    if len(names) > wire.MAX_FILES_OUT:
        raise ValueCodecError(
            f"the job left {len(names)} files, at most {wire.MAX_FILES_OUT} are carried; put them into one archive",
            limit=wire.MAX_FILES_OUT,
            files=len(names),
        )
    frames: list[bytes | memoryview] = []
    for name in names:
        try:
            content = _content(f"{directory}/{name}")
        except OSError:  # a process of the job has just removed it
            continue
        max_bytes -= len(content)
        if max_bytes < 0:
            raise ValueCodecError(
                f"with {name!r:.80} the files and the value are over the limit of the result; leave less, or ask for "
                "limits.result",
                limit=max_bytes,
            )
        frames += [_checked(name).encode(), content]
    return frames


def _is_link(directory: Path) -> bool:
    try:
        return stat.S_ISLNK(_lstat(directory).st_mode)
    except OSError:  # the job has removed it
        return False


def _names(root: str) -> Iterator[str]:
    """Names of plain files, relative to the root. It does not recurse, so that no depth is too deep."""
    todo = [""]
    while todo:
        below = todo.pop()
        try:
            entries = list(_scandir(f"{root}/{below}"))
        except OSError:  # the job may have removed it, or made it unreadable
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                todo.append(f"{below}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield f"{below}{entry.name}"


def _checked(name: str) -> str:
    if not wire.is_relative_name(name):
        raise ValueCodecError(f"the file name {name!r:.80} cannot be carried; use UTF-8 and at most 255 bytes")
    return name


def _content(path: str) -> memoryview:
    fd = _open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = _fstat(fd)
        if not found.st_size or not stat.S_ISREG(found.st_mode):
            return memoryview(b"")
        if found.st_size < _MAPPED_FROM_BYTES:
            return memoryview(_read(fd, found.st_size))
        return memoryview(_mmap(fd, found.st_size, prot=mmap.PROT_READ))
    finally:
        _close(fd)

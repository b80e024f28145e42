"""Files that a job leaves for its client: whatever is below its output directory when it ends. Called in the child.

Each becomes two frames, its name and its content; names are relative paths with "/". Links and other things that are no
plain files are left where they are. Large contents are mapped and not read: they are in memory already. A map keeps a
descriptor, of which there are few, so small ones are read.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pool import wire
from pool.errors import ValueCodecError

#: The output directory, in the job's work directory; its path is also in the environment.
DIRECTORY = "out"
VARIABLE = "OUTPUT_DIR"
_MAPPED_FROM_BYTES = 1 << 20


def collect(directory: Path, *, max_bytes: int) -> list[bytes | memoryview]:
    """Name and content by turns, in the order of the names.

    Raises ValueCodecError: with a `limit` for too many files or bytes, without for a name that cannot be carried.
    """
    names = [] if directory.is_symlink() else sorted(_names(str(directory)))
    if len(names) > wire.MAX_FILES_OUT:
        raise ValueCodecError(
            f"the job left {len(names)} files, {wire.MAX_FILES_OUT} fit; put them into one", limit=wire.MAX_FILES_OUT
        )
    frames: list[bytes | memoryview] = []
    for name in names:
        try:
            content = _content(f"{directory}/{name}")
        except OSError:  # something that the job has started took it away just now
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


def _names(root: str) -> Iterator[str]:
    """Of plain files, relative to the root. Directories are walked one after another, so that no depth matters."""
    todo = [""]
    while todo:
        below = todo.pop()
        try:
            entries = list(os.scandir(f"{root}/{below}"))
        except OSError:  # the job may have taken it away, or its own right to look
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
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not found.st_size or not stat.S_ISREG(found.st_mode):
            return memoryview(b"")
        if found.st_size < _MAPPED_FROM_BYTES:
            return memoryview(os.read(fd, found.st_size))
        return memoryview(mmap.mmap(fd, found.st_size, prot=mmap.PROT_READ))
    finally:
        os.close(fd)

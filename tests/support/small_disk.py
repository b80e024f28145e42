"""A file system with little room, for tests of what happens when it is full. Needs root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Room for few files.
FEW_FILES = "size=1m,nr_inodes=40"


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    """A tmpfs with these mount options on a directory that is there."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    if os.getuid() or subprocess.run(command, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def touched(path: Path) -> bool:
    """Whether there was room for a file."""
    try:
        path.touch()
    except OSError:
        return False
    return True

"""Unpacks the layers of an image: `python -m pool.engines.untar DIRECTORY < layer.tar`, once for each layer.

It does so after chroot(DIRECTORY), so that no link in the archive leads out of it. A file `.wh.NAME` removes NAME of
the layers below, and `.wh..wh..opq` everything of theirs in its directory (OCI image specification, "Whiteouts").
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from pathlib import Path

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


def main(directory: str) -> None:
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*") as layer:  # it imports the module for this compression
        layer.extraction_filter = lambda member, _: member  # newer Pythons would change modes and refuse links
        os.chroot(directory)
        os.chdir("/")
        os.umask(0)
        for member in layer:
            _apply(layer, member)


def _apply(layer: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path = Path("/", member.name)
    if path.name == OPAQUE:
        for each in list(path.parent.iterdir()):
            _remove(each)
    elif path.name.startswith(WHITEOUT):
        _remove(path.with_name(path.name.removeprefix(WHITEOUT)))
    elif member.isfile() or member.isdir() or member.issym() or member.islnk():  # and no device
        if not (member.isdir() and path.is_dir() and not path.is_symlink()):
            _remove(path)
        layer.extract(member, "/", numeric_owner=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1])

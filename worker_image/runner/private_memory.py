"""Replaces the shared memory of the zygote by private copies, so that no job writes to what another job reads.

A fork copies private memory only. Memory that is mapped shared and may be written is the same in the zygote and in all
its children. Preloaded modules may have such memory: a `multiprocessing.Lock` is a semaphore in it, and
`mmap.mmap(-1, n)` is shared by default. With a private copy, each job has such a lock as it was after the import.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from runner import kernel

_MAPS, _SMAPS = Path("/proc/self/maps"), Path("/proc/self/smaps")
_ANY_SHARED = re.compile(r"^\S+ r\S\Ss ", re.MULTILINE)
_SHARED = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r\S\Ss .*\n(?:\w+:.*\n)*?VmFlags:(.*)", re.MULTILINE)
#: In a /proc/PID/maps: what is written, or belongs to no file that others can open. It does not tell what can be made
#: writable.
_SHARED_IN_MAPS = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (?:rw\Ss.*|r-\Ss.* \(deleted\))$", re.MULTILINE)
#: In VmFlags: it is or can be made writable. A file that was opened for reading only cannot.
_MAY_WRITE = "mw"


def replace_shared() -> None:
    """After the preloaded modules are imported, before the first child is forked. Raises OSError without /proc."""
    maps = _MAPS.read_text(encoding="ascii", errors="replace")
    if not _ANY_SHARED.search(maps):  # smaps, which some kernels do not have, costs ten times as much
        return
    found = shared(_SMAPS.read_text(encoding="ascii", errors="replace")) if _SMAPS.exists() else shared_in_maps(maps)
    for start, length in found:
        kernel.make_private(start, length)


def shared(smaps: str) -> Iterator[tuple[int, int]]:
    """Start and length of each readable mapping of a /proc/PID/smaps that is shared and may be written."""
    for start, end, flags in _SHARED.findall(smaps):
        if _MAY_WRITE in flags.split():
            yield int(start, 16), int(end, 16) - int(start, 16)


def shared_in_maps(maps: str) -> Iterator[tuple[int, int]]:
    """As `shared`, of a /proc/PID/maps."""
    for start, end in _SHARED_IN_MAPS.findall(maps):
        yield int(start, 16), int(end, 16) - int(start, 16)

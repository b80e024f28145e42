"""Large arguments: the job maps them from a file of the daemon, and nobody copies them.

    daemon ──body.sock: descriptor──▶ runner ──channel: descriptor──▶ child: maps it, closes it, begins with the job

1. `fetch`: the runner gets the descriptor of the file for the Run that it has just received.
2. `give`: when the child has decoded the header, it asks for the descriptor, and the runner passes it on.
3. `take`: the child maps each of the frames for itself. What the job writes to them are pages of its own, which end
   with it, and they count for its memory limits as the frames of every other job do. The file can only be read, and
   the daemon never makes it shorter.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from runner import kernel
from runner.channel import Frame

#: In the directory of the link.
_NAME = "body.sock"
#: The daemon answers at once, unless it is busy.
_FETCH_S = 30.0
_REFUSED = b"r"
_ASK, _GIVEN = b"a", b"g"


class NoBodyError(Exception):
    """The daemon does not give the file: it has ended."""


def fetch(directory: Path, *, shown: bool) -> int | None:
    """A descriptor of the file. None: it is not mapped here, and the daemon has been told. Raises NoBodyError.

    `shown`: a job would see the path of the file in its memory map, so it gets none.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_FETCH_S)
        try:
            sock.connect(str(directory / _NAME))
            said, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
        except OSError as error:
            raise NoBodyError(str(error)) from None
        if not said:
            raise NoBodyError("the connection has ended")
        if descriptors and not shown and _can_be_mapped(descriptors[0]):
            return descriptors[0]
        with contextlib.suppress(OSError):
            sock.sendall(_REFUSED)
    for descriptor in descriptors:
        os.close(descriptor)
    return None


def _can_be_mapped(descriptor: int) -> bool:
    """A security module of the host may refuse it."""
    try:
        mmap.mmap(descriptor, 1, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()
    except (OSError, ValueError):
        return False
    return True


def give(sock: socket.socket, descriptor: int) -> None:
    """Pass the file on to the child that has the job, once it asks. It runs nothing of the job yet. Raises OSError."""
    if sock.recv(1) == _ASK:
        socket.send_fds(sock, [_GIVEN], [descriptor])


def take(sock: socket.socket, mapped: Sequence[tuple[int, int, int]], frames: Sequence[Frame]) -> list[Frame]:
    """The frames, with those that are mapped in their places. Raises OSError or EOFError."""
    sock.sendall(_ASK)
    _, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
    if not descriptors:
        raise EOFError("the channel was closed")
    found = list(frames)
    for number, start, size in mapped:
        found[number] = _map(descriptors[0], start, size)
    os.close(descriptors[0])
    return found


def _map(descriptor: int, start: int, size: int) -> memoryview:
    """Python's own mapping of a file would keep a descriptor of it, and so show the job the file's path."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    kernel.map_file(ctypes.addressof(ctypes.c_char.from_buffer(pages)), size, descriptor=descriptor, start=start)
    return memoryview(pages)

"""The body of one frame while it arrives. Its memory grows with what is there, up to the size that was announced.

Small bodies are copied out of the reader's buffer. A large one lives in pages of its own, which the socket is read
into: they double by moving page tables and not bytes, they cost nothing until they are written, and they go back to
the system at once when the last view of the frame is gone.
"""

from __future__ import annotations

import mmap

from pool.errors import RemoteProtocolError

#: From this size on a body has pages of its own. Below, copying into memory that the heap has at hand is cheaper than
#: faulting in new pages, and a process can have only so many mappings.
LARGE_BYTES = 16 * 1024 * 1024
_FIRST_BYTES = 256 * 1024

Frame = bytes | bytearray | memoryview


class Body:
    """`add` or `room` and `took` until nothing is missing, then `frame`."""

    __slots__ = ("_pages", "_small", "filled", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.filled = 0
        self._small: bytes | bytearray = b""
        self._pages: mmap.mmap | None = None

    @property
    def missing(self) -> int:
        return self.size - self.filled

    def add(self, taken: memoryview) -> int:
        """Copy some bytes of it; how many are missing now."""
        if self.size >= LARGE_BYTES:
            while taken:
                room = self.room()
                assert room is not None
                count = min(len(room), len(taken))
                room[:count] = taken[:count]
                taken = taken[count:]
                room.release()
                self.took(count)
            return self.missing
        if not self.filled:
            self._small = bytes(taken) if len(taken) == self.size else bytearray(taken)
        else:
            self._small += taken
        self.filled += len(taken)
        return self.missing

    def room(self) -> memoryview | None:
        """Where a large body goes on; None for a small one. To be released before the next call of anything."""
        if self.size < LARGE_BYTES:
            return None
        try:
            if self._pages is None:
                self._pages = mmap.mmap(-1, _FIRST_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            elif self.filled == len(self._pages):
                self._pages.resize(min(2 * self.filled, self.size))
        except OSError as error:
            raise RemoteProtocolError(f"no memory for a frame of {self.size} bytes: {error.strerror}") from None
        return memoryview(self._pages)[self.filled :]

    def took(self, count: int) -> None:
        self.filled += count

    def frame(self) -> Frame:
        """The whole body."""
        return self._small if self._pages is None else memoryview(self._pages)

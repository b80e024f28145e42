"""One large frame while it arrives. Memory is set aside for the bytes that are here, never for an announced size."""

from __future__ import annotations

import mmap

from pool.errors import RemoteProtocolError
from pool.wire import Frame

#: From this size on a body has pages of its own. Below, copying into memory that the heap has at hand is cheaper than
#: faulting in new pages, and a process can have only so many mappings.
LARGE_BYTES = 16 * 1024 * 1024
_FIRST_BYTES = 256 * 1024


class Body:
    """Its memory grows with the bytes that have arrived, up to the announced size.

    From LARGE_BYTES on it has pages of its own: they grow by moving page tables and not bytes, they cost nothing until
    they are written, and they go back to the system at once when the last view of the frame is gone.
    """

    __slots__ = ("_pages", "_small", "filled", "more", "size")

    def __init__(self, size: int, *, more: bool = False) -> None:
        self.size = size
        self.more = more  #: whether another frame follows
        self.filled = 0
        self._small = bytearray()
        self._pages: mmap.mmap | None = None

    def add(self, data: memoryview) -> None:
        """Copy its next bytes."""
        if self.size < LARGE_BYTES:
            self._small += data
            self.filled += len(data)
            return
        while data:
            with self._grow() as room:
                count = min(len(room), len(data))
                room[:count] = data[:count]
            self.filled += count
            data = data[count:]

    def room(self) -> memoryview | None:
        """Where to read the next bytes to, then add their number to `filled`; None for a body without pages.

        To be released before the next call.
        """
        return self._grow() if self.size >= LARGE_BYTES else None

    def _grow(self) -> memoryview:
        try:
            if self._pages is None:
                self._pages = mmap.mmap(-1, _FIRST_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            elif self.filled == len(self._pages):
                self._pages.resize(min(2 * self.filled, self.size))
        except OSError as error:
            raise RemoteProtocolError(f"no memory for a frame of {self.size} bytes: {error.strerror}") from None
        return memoryview(self._pages)[self.filled :]

    def frame(self) -> Frame:
        """The whole body."""
        return self._small if self._pages is None else memoryview(self._pages)

"""Several frames in one input: each a size of two bytes, big endian, and its bytes. Any input is some frames.

A frame of 65,535 bytes or more has that number in the place of its size, and then its size in four bytes.
"""

from collections.abc import Iterable

_LONG = 0xFFFF


def join(frames: Iterable[bytes]) -> bytes:
    return b"".join(_size(len(frame)) + frame for frame in frames)


def _size(count: int) -> bytes:
    return count.to_bytes(2) if count < _LONG else _LONG.to_bytes(2) + count.to_bytes(4)


def split(data: bytes) -> list[bytes]:
    """The last frame is what there is of it."""
    frames, at = [], 0
    while at < len(data):
        size, at = int.from_bytes(data[at : at + 2]), at + 2
        if size == _LONG:
            size, at = int.from_bytes(data[at : at + 4]), at + 4
        frames.append(data[at : at + size])
        at += size
    return frames

"""Several frames in one input: each a size of two bytes, big endian, and its bytes. Any input is some frames."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 0xFFFF


def join(frames: Iterable[bytes]) -> bytes:
    """What is over the longest frame is left out."""
    return b"".join(min(len(frame), _LONGEST).to_bytes(2) + frame[:_LONGEST] for frame in frames)


def split(data: bytes) -> list[bytes]:
    """The last frame is what there is of it."""
    frames = []
    while data:
        size = int.from_bytes(data[:2])
        frames.append(data[2 : 2 + size])
        data = data[2 + size :]
    return frames

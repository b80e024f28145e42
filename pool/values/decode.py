"""`decode`: frames to a value, on hostile bytes.

The bytes cannot name a class, a module or code. They cannot make an object of a type that is not listed in
`pool.values`. They cannot ask for memory that the frames do not hold: lists and strings are checked against the head
before they are made, arrays against their buffer. They cannot nest deeper than MAX_DEPTH (msgpack's own limit of 1024
inside arrays and frames). Keys that collide are refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NoReturn

import msgpack

from pool.errors import ValueCodecError
from pool.values import arrays, columns, containers, frames, plain, scalars, stamps, times
from pool.values.codes import MAX_BUFFERS, MAX_DEPTH
from pool.values.encode import explain
from pool.values.reader import Buffer, Reader, ReadFn

_COMPOSITES: dict[int, ReadFn] = {
    **scalars.READERS,
    **containers.READERS,
    **times.READERS,
    **arrays.READERS,
    **stamps.READERS,
    **columns.READERS,
    **frames.READERS,
}
_OPTIONS: dict[str, Any] = {"strict_map_key": True, "unicode_errors": "surrogatepass", "timestamp": 1}
#: A shorter head cannot announce lists that need the second check.
_SCAN_BYTES = 1024


def decode(frames: Sequence[Buffer], *, max_bytes: int | None = None) -> object:
    """The value of the frames that `encode` made. Raises ValueCodecError for other frames, or MemoryError."""
    try:
        head, *buffers = frames
        size = _checked_size(frames, max_bytes)
        value = _unpack(head, buffers, size)
        if len(head) > MAX_DEPTH and plain.is_deeper(value, MAX_DEPTH):
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")  # noqa: TRY301 - as every other fault of the bytes
    except ImportError as error:
        raise _missing(error) from None
    except (ValueCodecError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - hostile bytes; whatever stumbles over them, this is the one error
        raise ValueCodecError(f"the bytes are not an encoded value: {explain(error)}") from None
    return value


def _checked_size(frames: Sequence[Buffer], max_bytes: int | None) -> int:
    if len(frames) > MAX_BUFFERS + 1:
        raise ValueError(f"{len(frames)} frames, {MAX_BUFFERS + 1} are allowed")
    size = sum(memoryview(frame).nbytes for frame in frames)
    if max_bytes is not None and size > max_bytes:
        raise ValueCodecError(
            f"the encoded value has {size} bytes, {max_bytes} are allowed", bytes=size, limit=max_bytes
        )
    return size


def _unpack(head: Buffer, buffers: Sequence[Buffer], size: int) -> object:
    """Most values are plain: they are read without a Reader, which is called for each list."""
    if len(head) > _SCAN_BYTES:
        _check_complete(head)
    if not buffers:
        with contextlib.suppress(_NotPlainError):
            return msgpack.unpackb(head, ext_hook=_stop, **_OPTIONS)
    reader = Reader(buffers, scalars.LEAVES, _COMPOSITES, size=size)
    value = msgpack.unpackb(head, list_hook=reader.on_list, ext_hook=reader.on_ext, **_OPTIONS)
    reader.finish()
    return value


class _NotPlainError(Exception):
    """The value has a part that msgpack alone does not carry."""


def _stop(_code: int, _payload: bytes) -> NoReturn:
    raise _NotPlainError


def _check_complete(head: Buffer) -> None:
    """Parse once without making objects. After that, every announced length is known to be present."""
    scanner = msgpack.Unpacker(max_buffer_size=len(head), read_size=len(head))
    scanner.feed(head)
    scanner.skip()


def _missing(error: ImportError) -> ValueCodecError:
    library = error.name or "a library"
    return ValueCodecError(
        f"the value holds arrays or frames, and {library} is not installed here; "
        "install them with: pip install 'warm-container-pool[values]'",
        library=library,
    )

"""`encode`: a value to frames, by the table of writers by type. `decode`: frames to a value, on hostile bytes.

The bytes cannot name a class, a module or code. They cannot make an object of a type that is not listed in
`pool.values`. They cannot ask for memory that the frames do not hold: lists and strings are checked against the head
before they are made, arrays against their buffer. They cannot nest deeper than MAX_DEPTH (msgpack's own limit of 1024
inside arrays and frames). Keys that collide are refused.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgpack

from pool.errors import ValueCodecError
from pool.values import arrays, columns, containers, frames, plain, records, scalars, stamps, times
from pool.values.codes import MAX_BUFFERS, MAX_DEPTH
from pool.values.reader import Buffer, Reader, ReadFn
from pool.values.writer import RefusalError, WriteFn, Writer, module_of, mro_of, name_of

# ---- encode ----

_BUILTINS: dict[type, WriteFn] = {
    **scalars.WRITERS, **containers.WRITERS, **times.WRITERS, frames.Columns: frames.write_columns,
}  # fmt: skip
#: By the package that a class claims. Only then is the package imported, by the name given here and not by the class.
#: The packages of the standard library are here because a worker starts without them.
_PACKAGES: dict[str, tuple[Callable[[], dict[type, WriteFn]], ...]] = {
    "fractions": (scalars.fraction_writers,),
    "numpy": (arrays.writers,),
    "pandas": (stamps.writers, columns.writers, frames.writers),
    "zoneinfo": (times.zone_writers,),
}


def encode(value: object, *, max_bytes: int) -> list[bytes | memoryview]:
    """The frames of the value: the first is msgpack, the others are the raw buffers of large arrays, not copied.

    Raises ValueCodecError, with `path` and where it applies `type`, for what cannot be carried, for a value that
    contains itself or is nested too deep, and as soon as all frames together would take more than `max_bytes`. Raises
    MemoryError where the machine has no more.
    """
    try:
        try:  # most values are plain and small, and need no Writer
            if type(value) in plain.SCALARS or (
                (type(value) is list or type(value) is dict)
                and plain.is_plain(value, min(max_bytes, plain.SMALL), depth=MAX_DEPTH)
            ):
                head = msgpack.Packer(strict_types=True, buf_size=plain.FIRST_BUFFER).pack(value)  # type: ignore[call-arg] # the stubs lack it
                if len(head) <= max_bytes:
                    return [head]
        except (plain.OverLimitError, OverflowError, UnicodeEncodeError):
            pass  # the Writer has a way for it, or says which part it is
        writer = Writer(max_bytes, _writer_for)
        writer.write(value)
        writer.finish()
    except RefusalError as refusal:
        raise _error(refusal) from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a library says of an odd value, this is the one error we raise
        raise ValueCodecError(f"the value cannot be encoded: {explain(error)}", path="value") from None
    return [writer.head, *writer.buffers]


def explain(error: BaseException) -> str:
    """An error in one line, without asking its class: `str()` of it may be foreign code."""
    first = BaseException.args.__get__(error)[:1]  # type: ignore[attr-defined]
    text = first[0][:200] if first and type(first[0]) is str else ""
    return f"{name_of(type(error))}: {text}" if text else name_of(type(error))


def _error(refusal: RefusalError) -> ValueCodecError:
    where = refusal.path if len(refusal.path) <= 200 else f"{refusal.path[:150]}…{refusal.path[-45:]}"
    if refusal.type is None:
        over = {} if refusal.limit is None else {"limit": refusal.limit}
        return ValueCodecError(f"{where}: {refusal.reason}", path=where, **over)
    return ValueCodecError(f"{where} is a {refusal.type}: {refusal.reason}", path=where, type=refusal.type)


def _writer_for(kind: type) -> WriteFn:
    """The writer of the nearest class in the method resolution order that has one."""
    found = _BUILTINS.get(kind)
    if found is not None:
        return found
    mro = mro_of(kind)
    if enum.Enum in mro:
        return records.write_enum
    for base in mro:
        found = _BUILTINS.get(base) or _package_writer(base) or records.writer_for(base, mro)
        if found is not None:
            return found
    return _refuse


def _package_writer(base: type) -> WriteFn | None:
    root = module_of(base).partition(".")[0]
    for writers in _PACKAGES.get(root, ()):
        if (found := writers().get(base)) is not None:
            return found
    if root == "pytz":
        return times.write_pytz_zone
    return None


def _refuse(_writer: Writer, value: object) -> NoReturn:
    raise RefusalError(
        "this type cannot be carried; convert it with your own code to plain data: numbers, text, bytes, lists, dicts, "
        "dataclasses, arrays or frames",
        kind=type(value),
    )


# ---- decode ----

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
        if len(frames) > 1 or len(frames[0]) > _SCAN_BYTES or max_bytes is not None:
            _check_size(frames, max_bytes)
        try:  # most values are plain, and are read without a Reader, which is called for each list
            value = _read(frames) if len(frames) > 1 else msgpack.unpackb(frames[0], ext_hook=_stop, **_OPTIONS)
        except _NotPlainError:
            value = _read(frames)
        if len(frames[0]) > MAX_DEPTH and plain.is_deeper(value, MAX_DEPTH):
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")  # noqa: TRY301 - as every other fault of the bytes
    except ImportError as error:
        raise _missing(error) from None
    except (ValueCodecError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - hostile bytes; whatever stumbles over them, this is the one error
        raise ValueCodecError(f"the bytes are not an encoded value: {explain(error)}") from None
    return value


def _check_size(frames: Sequence[Buffer], max_bytes: int | None) -> None:
    if len(frames) > MAX_BUFFERS + 1:
        raise ValueError(f"{len(frames)} frames, {MAX_BUFFERS + 1} are allowed")
    size = _size(frames)
    if max_bytes is not None and size > max_bytes:
        raise ValueCodecError(
            f"the encoded value has {size} bytes, {max_bytes} are allowed", bytes=size, limit=max_bytes
        )
    if len(frames[0]) > _SCAN_BYTES:
        _check_complete(frames[0])


def _size(frames: Sequence[Buffer]) -> int:
    return sum(memoryview(frame).nbytes for frame in frames)


def _read(frames: Sequence[Buffer]) -> object:
    """A value that may have arrays, frames, or objects of other types than those of msgpack."""
    head, *buffers = frames
    reader = Reader(buffers, scalars.LEAVES, _COMPOSITES, size=_size(frames))
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

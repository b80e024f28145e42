"""`encode`: a value to frames. The table of writers by type, and the error for what is refused."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NoReturn

from pool.errors import ValueCodecError
from pool.values import arrays, columns, containers, frames, plain, records, scalars, stamps, times
from pool.values.codes import MAX_DEPTH
from pool.values.writer import RefusalError, WriteFn, Writer, module_of, mro_of, name_of

_BUILTINS: dict[type, WriteFn] = {
    **scalars.WRITERS, **containers.WRITERS, **times.WRITERS, frames.Columns: frames.write_columns,
}  # fmt: skip
#: By the package that a class claims. Only then is the package imported, by the name given here and not by the class.
_PACKAGES: dict[str, tuple[Callable[[], dict[type, WriteFn]], ...]] = {
    "numpy": (arrays.writers,),
    "pandas": (stamps.writers, columns.writers, frames.writers),
}


def encode(value: object, *, max_bytes: int) -> list[bytes | memoryview]:
    """The frames of the value: the first is msgpack, the others are the raw buffers of large arrays, not copied.

    Raises ValueCodecError, with `path` and where it applies `type`, for what cannot be carried, for a value that
    contains itself or is nested too deep, and as soon as all frames together would take more than `max_bytes`. Raises
    MemoryError where the machine has no more.
    """
    try:
        if (head := plain.packed(value, max_bytes, depth=MAX_DEPTH)) is not None:
            return [head]
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
        "this type cannot be carried; return plain data: convert it with your own code to numbers, text, bytes, "
        "lists, dicts, dataclasses, arrays or frames",
        kind=type(value),
    )

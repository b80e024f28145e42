"""How a numpy dtype travels: as text of a strict form, or as a list for fields and sub-arrays. Never an object.

'<f8'  '|S5'  '>M8[25us]'                      a plain dtype: order, kind, size, unit
[itemsize, [name, dtype, offset, title], …]    a structured one; each field has bytes of its own
['()', dtype, [2, 3]]                          a sub-array within a structured one
"""

from __future__ import annotations

import re
from math import prod
from typing import Any

from pool.values.reader import exact, exact_ints
from pool.values.writer import RefusalError, key_step

#: numpy divides by the multiplier of a unit of time: it is at least 1, and small enough for numpy's 32 bits.
_PLAIN = re.compile(
    r"[<>|](b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SUV](0|[1-9][0-9]{0,8})"
    r"|[mM]8(\[([1-9][0-9]{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
_LONGEST = 24
_MAX_NESTED = 16
_MAX_DIMENSIONS = 32


def describe(dtype: Any) -> str | list[object]:
    """The description of a dtype. Raises RefusalError for a dtype whose bytes are pointers, such as objects."""
    import numpy as np

    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ["()", describe(base), list(shape)]
    if dtype.names is not None:
        return _describe_record(dtype)
    text = dtype.str
    if not _PLAIN.fullmatch(text) or np.dtype(text) != dtype:
        raise RefusalError(
            f"numpy dtype {dtype.name[:40]} cannot be carried; convert it with .astype()", kind=np.ndarray
        )
    return str(text)


def _describe_record(dtype: Any) -> list[object]:
    fields = [dtype.fields[name] for name in dtype.names]
    try:
        check_fields([offset for _, offset, *_ in fields], [inner.itemsize for inner, *_ in fields], dtype.itemsize)
    except ValueError:
        raise RefusalError(
            "fields of a structured dtype must take bytes of their own; carry a copy with numpy.lib.recfunctions."
            "repack_fields, without fields of no bytes"
        ) from None
    return [dtype.itemsize, *map(_describe_field, dtype.names, fields)]


def _describe_field(name: str, field: tuple[Any, ...]) -> list[object]:
    dtype, offset, *titles = field
    title = titles[0] if titles else None
    if title is not None and type(title) is not str:
        raise RefusalError("the titles of a structured dtype can only be text; leave them out")
    try:
        return [name, describe(dtype), offset, title]
    except RefusalError as refusal:
        refusal.steps.append(key_step(name))
        raise


def build(description: object, *, limit: int, nested: int = 0) -> Any:
    """The dtype of a description, whose items have at most `limit` bytes. Raises ValueError or TypeError for others."""
    if nested > _MAX_NESTED:
        raise ValueError("a dtype that is nested too deep")
    if type(description) is str:
        dtype = _build_plain(description)
    elif exact(list, description)[:1] == ["()"]:
        dtype = _build_subarray(exact(list, description)[1:], limit=limit, nested=nested + 1)
    else:
        dtype = _build_record(exact(list, description), limit=limit, nested=nested + 1)
    check_item_bytes(dtype.itemsize, limit)
    return dtype


def check_item_bytes(count: int, limit: int) -> None:
    if count > limit:
        raise ValueError(f"items of {count} bytes, which the frames do not hold")


def _build_plain(text: str) -> Any:
    import numpy as np

    check_plain(text)
    dtype = np.dtype(text)
    if dtype.str != text:
        raise ValueError("not the usual name of this dtype")
    return dtype


def check_plain(text: str) -> None:
    """Raise ValueError for the name of a dtype whose kind, size, unit or multiplier is not allowed."""
    if len(text) > _LONGEST or not _PLAIN.fullmatch(text):
        raise ValueError("not a dtype")


def _build_subarray(parts: list[Any], *, limit: int, nested: int) -> Any:
    import numpy as np

    description, dimensions = parts
    base = build(description, limit=limit, nested=nested)
    shape = exact_ints(exact(list, dimensions), len(dimensions))
    if not 0 < len(shape) <= _MAX_DIMENSIONS or min(shape) < 1:
        raise ValueError("not the shape of a sub-array")
    check_item_bytes(base.itemsize * prod(shape), limit)
    return np.dtype((base, tuple(shape)))


def _build_record(parts: list[Any], *, limit: int, nested: int) -> Any:
    import numpy as np

    head, *fields = parts
    (itemsize,) = exact_ints([head], 1)
    names, formats, offsets, titles = zip(*fields, strict=True) if fields else ((), (), (), ())
    if not {str, type(None)}.issuperset(map(type, titles)):
        raise TypeError("a title is text")
    check_item_bytes(itemsize, limit)
    spec: Any = {
        "names": [exact(str, name) for name in names],
        "formats": [build(inner, limit=limit, nested=nested) for inner in formats],
        "offsets": exact_ints(offsets, len(offsets)),
        "titles": list(titles),
        "itemsize": itemsize,
    }
    check_fields(spec["offsets"], [inner.itemsize for inner in spec["formats"]], itemsize)
    return np.dtype(spec)


def check_fields(offsets: list[int], sizes: list[int], itemsize: int) -> None:
    """Raise ValueError unless each field has bytes of its own within the item.

    Fields that share bytes, or have none, would multiply: as many as the head can name, for each record.
    """
    end = 0
    for offset, size in sorted(zip(offsets, sizes, strict=True)):
        if size < 1 or 0 <= offset < end:
            raise ValueError("fields that share bytes, or have none")
        if offset < 0:
            raise ValueError("a field outside its record")
        end = offset + size
    if end > itemsize:
        raise ValueError("a field outside its record")

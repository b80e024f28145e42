"""How a numpy dtype travels: as text of a strict form, or as a list for fields and sub-arrays. Never an object.

'<f8'  '|S5'  '>M8[25us]'                      a plain dtype: order, kind, size, unit
[itemsize, [name, dtype, offset, title], …]    a structured one
['()', dtype, [2, 3]]                          a sub-array within a structured one
"""

from __future__ import annotations

import re
from typing import Any

from pool.values.reader import exact, exact_ints
from pool.values.writer import RefusalError, key_step

_PLAIN = re.compile(
    r"[<>|=]?(b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SUV][0-9]{1,9}"
    r"|[mM]8(\[[0-9]{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
_MAX_NESTED = 16


def describe(dtype: Any) -> str | list[object]:
    """The description of a dtype. Raises RefusalError for what has no bytes of its own, such as objects."""
    import numpy as np

    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ["()", describe(base), list(shape)]
    if dtype.names is not None:
        return [dtype.itemsize, *(_describe_field(name, dtype.fields[name]) for name in dtype.names)]
    text = dtype.str
    if not _PLAIN.fullmatch(text) or np.dtype(text) != dtype:
        raise RefusalError(
            f"numpy dtype {dtype.name[:40]} cannot be carried; convert it with .astype()", kind=np.ndarray
        )
    return str(text)


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


def build(description: object, *, nested: int = 0) -> Any:
    """The dtype of a description; raises ValueError or TypeError for any other value."""
    import numpy as np

    if type(description) is str:
        if len(description) > 24 or not _PLAIN.fullmatch(description):
            raise ValueError("not a dtype")
        return np.dtype(description)
    head, *fields = exact(list, description)
    if nested > _MAX_NESTED:
        raise ValueError("a dtype that is nested too deep")
    if head == "()":
        base, shape = fields
        return np.dtype((build(base, nested=nested + 1), tuple(exact_ints(exact(list, shape), len(shape)))))
    (itemsize,) = exact_ints([head], 1)
    names, formats, offsets, titles = zip(*fields, strict=True) if fields else ((), (), (), ())
    if not {str, type(None)}.issuperset(map(type, titles)):
        raise TypeError("a title is text")
    spec: Any = {
        "names": [exact(str, name) for name in names],
        "formats": [build(inner, nested=nested + 1) for inner in formats],
        "offsets": exact_ints(offsets, len(offsets)),
        "titles": list(titles),
        "itemsize": itemsize,
    }
    return np.dtype(spec)

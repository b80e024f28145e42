"""Bytes of an array outside of its items: between the fields of a record, behind the 80 bits of a long double.

They are what happened to be in memory. They travel as zeros, so that equal arrays are equal bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

#: Of a long double of the x87; what is behind them fills it up to the item's size.
_X87_BYTES = 10


def cleared(flat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same contiguous array, or a copy of it if some of its bytes mean nothing."""
    import numpy as np

    if not flat.nbytes or not _may_have(flat.dtype):
        return flat
    idle = ~_used(flat.dtype)
    if not idle.any():
        return flat
    copy = flat.copy()
    copy.view(np.uint8).reshape(len(flat), flat.dtype.itemsize)[:, idle] = 0
    return copy


def _may_have(dtype: Any) -> bool:
    return dtype.names is not None or dtype.char in "gG"


def _used(dtype: Any) -> np.ndarray[Any, Any]:
    """Which bytes of an item belong to its value."""
    import numpy as np

    if dtype.subdtype is not None:
        return np.tile(_used(dtype.base), dtype.itemsize // max(1, dtype.base.itemsize))
    used = np.full(dtype.itemsize, dtype.names is None)
    for name in dtype.names or ():
        inner, at = dtype.fields[name][:2]
        used[at : at + inner.itemsize] |= _used(inner)
    if dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:
        each = used.reshape(1 if dtype.char == "g" else 2, -1)
        each[:, _X87_BYTES:] = False
        if dtype.newbyteorder("=") != dtype:
            used = np.ascontiguousarray(each[:, ::-1]).reshape(-1)
    return used

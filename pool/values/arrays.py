"""numpy arrays and scalars: their bytes as they lie in memory, their dtype by a strict description.

    [ARRAY, dtype, shape, order, buffer]     buffer: bytes, or the number of the frame that has them
    [OBJECTS, shape, items]                  an object array, its items as values of their own
    [TEXTS, shape, items, coerce, missing]   text of any length (StringDType); missing: [] or [what stands for it]

Large arrays leave without a copy when they are contiguous, in either order. They come out writable: in place when the
frame they came in is writable, else copied once. A subclass (matrix, recarray, memmap) travels as a plain array.
"""

from __future__ import annotations

import sys
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

from pool.values import dtypes
from pool.values.codes import EMPTY_ITEM_CHARGE, MAX_EMPTY_ITEM_BYTES, Code
from pool.values.padding import cleared
from pool.values.reader import Reader, ReadFn, exact, exact_ints
from pool.values.writer import RefusalError, WriteFn, Writer

if TYPE_CHECKING:
    import numpy as np

_MAX_DIMENSIONS = 32
_NAT = -(1 << 63)
#: Types of the placeholder for a missing text. No other decoded type has one of these names.
_MISSING = frozenset({"NoneType", "float", "str", "NAType"})


@cache
def writers() -> dict[type, WriteFn]:
    import numpy as np

    return {
        np.ma.MaskedArray: _refuse_masked,
        np.ndarray: write_array,
        np.str_: _write_str,
        np.bytes_: _write_bytes,
        np.generic: _write_scalar,
    }


def _refuse_masked(_writer: Writer, value: object) -> None:
    raise RefusalError("a masked array cannot be carried; carry .filled(), or its data and mask", kind=type(value))


def write_array(writer: Writer, value: Any) -> None:
    import numpy as np

    array = value if type(value) is np.ndarray else np.ndarray.view(value, np.ndarray)
    if array.dtype.kind in _BY_ITEM:
        _BY_ITEM[array.dtype.kind](writer, array)
        return
    dtype = dtypes.describe(array.dtype)
    if array.nbytes > writer.left:  # before a copy is made: a broadcast array is huge only once it is copied
        writer.over_limit()
    _check_honest(writer, array)
    in_c_order = array.flags.c_contiguous or not array.flags.f_contiguous
    order = "C" if in_c_order else "F"
    flat = (np.ascontiguousarray(array) if in_c_order else array.T).reshape(-1)
    buffer = cleared(flat).view(np.uint8).data if array.nbytes else memoryview(b"")
    writer.composite(
        value, Code.ARRAY, dtype=dtype, shape=list(array.shape), order=order, buffer=writer.out_of_band(buffer)
    )


def _check_honest(writer: Writer, array: np.ndarray[Any, Any]) -> None:
    if array.ndim > _MAX_DIMENSIONS:
        raise RefusalError(f"an array may have {_MAX_DIMENSIONS} dimensions; carry a .reshape() of it")
    if array.nbytes:
        try:
            check_items(array)
        except ValueError as error:
            raise RefusalError(f"it has {error}, from a view of other bytes; carry the bytes themselves") from None
        return
    if array.dtype.itemsize > MAX_EMPTY_ITEM_BYTES:
        raise RefusalError(f"an array of no items may have items of {MAX_EMPTY_ITEM_BYTES} bytes; carry an empty list")
    writer.charge(EMPTY_ITEM_CHARGE * _empty_items(list(array.shape)))


def _empty_items(shape: list[int]) -> int:
    """The number of items of an array that takes no bytes, without its dimensions of 0."""
    return prod(filter(None, shape))


def _write_objects(writer: Writer, array: np.ndarray[Any, Any]) -> None:
    if array.size > writer.left:
        writer.over_limit()
    if not array.size:
        writer.charge(EMPTY_ITEM_CHARGE * _empty_items(list(array.shape)))
    writer.composite(array, Code.OBJECTS, shape=list(array.shape), flat=array.reshape(-1).tolist())


def _write_texts(writer: Writer, array: np.ndarray[Any, Any]) -> None:
    if array.size > writer.left:
        writer.over_limit()
    if not array.size:
        writer.charge(EMPTY_ITEM_CHARGE * _empty_items(list(array.shape)))
    dtype: Any = array.dtype
    missing = [dtype.na_object] if hasattr(dtype, "na_object") else []
    flat = array.reshape(-1).tolist()
    writer.composite(array, Code.TEXTS, shape=list(array.shape), flat=flat, coerce=dtype.coerce, missing=missing)


_BY_ITEM = {"O": _write_objects, "T": _write_texts}


def _write_scalar(writer: Writer, value: Any) -> None:
    import numpy as np

    dtype = np.generic.dtype.__get__(value)
    description, buffer = dtypes.describe(dtype), np.generic.tobytes(value)
    if dtype.itemsize:
        buffer = cleared(np.frombuffer(buffer, dtype)).tobytes()
    writer.composite(value, Code.SCALAR, dtype=description, buffer=buffer)


def _write_str(writer: Writer, value: str) -> None:
    writer.composite(value, Code.NUMPY_STR, text=str.__str__(value))


def _write_bytes(writer: Writer, value: bytes) -> None:
    writer.composite(value, Code.NUMPY_BYTES, text=bytes.__getitem__(value, slice(None)))


def _read_array(reader: Reader, parts: list[Any]) -> object:
    import numpy as np

    description, dimensions, order, source = parts
    dtype = _dtype(reader, description)
    shape = _shape(reader, dimensions)
    buffer = reader.take(source) if type(source) is int else exact(bytes, source)
    size = _checked_size(reader, shape, dtype.itemsize, memoryview(buffer).nbytes)
    if order not in {"C", "F"}:
        raise ValueError("unknown order")
    if not size or not dtype.itemsize:
        return np.ndarray(shape, dtype)
    array = np.frombuffer(buffer, dtype).reshape(shape, order=order)
    check_items(array)
    return array if array.flags.writeable else array.copy(order="K")


def _dtype(reader: Reader, description: object) -> Any:
    dtype = dtypes.build(description, limit=max(reader.size, MAX_EMPTY_ITEM_BYTES))
    if dtype.subdtype is not None:
        raise ValueError("a sub-array outside a record")
    return dtype


def _shape(reader: Reader, dimensions: object) -> list[int]:
    shape = exact_ints(exact(list, dimensions), len(exact(list, dimensions)))
    if min(shape, default=0) < 0 or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("not the shape of an array")
    if 0 in shape:
        reader.charge(EMPTY_ITEM_CHARGE * _empty_items(shape))
    return shape


def _checked_size(reader: Reader, shape: list[int], itemsize: int, available: int) -> int:
    """The number of items. Raises ValueError unless the buffer holds exactly so many."""
    size = prod(shape)
    if size * itemsize != available:
        raise ValueError(f"an array of {size} items of {itemsize} bytes in a buffer of {available}")
    if not itemsize:
        reader.charge(EMPTY_ITEM_CHARGE * size)
    return size


def check_items(array: np.ndarray[Any, Any]) -> None:
    """Raise ValueError for bytes that numpy would accept unchecked and that no operation of numpy produces."""
    if array.dtype.names is not None:
        for name in array.dtype.names:
            check_items(array[name])
    elif array.size and array.dtype.itemsize:
        check = _ITEM_CHECKS.get(array.dtype.char)
        if check is not None:
            check(array)


def check_bools(array: np.ndarray[Any, Any]) -> None:
    """Bools are bytes of 0 or 1: numpy uses other bytes as counts when it copies."""
    import numpy as np

    if array.view(np.uint8).max() > 1:
        raise ValueError("a bool that is neither 0 nor 1")


def _check_text(array: np.ndarray[Any, Any]) -> None:
    import numpy as np

    points = np.ascontiguousarray(array).reshape(-1).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
    if points.max() > sys.maxunicode:
        raise ValueError("text beyond Unicode")


def _check_moments(array: np.ndarray[Any, Any]) -> None:
    """Without a unit, a moment can only be NaT: numpy cannot print any other value."""
    if array.dtype.str[1:] == "M8" and (array.astype("i8") != _NAT).any():
        raise ValueError("a moment without a unit")


def _check_long_doubles(array: np.ndarray[Any, Any]) -> None:
    """The 80 bits of an x87 float have an explicit leading 1, which is set unless the exponent is 0."""
    import numpy as np

    if np.finfo(np.longdouble).nmant != 63:
        return
    native = np.ascontiguousarray(array).reshape(-1)
    if not native.dtype.isnative:
        native = native.byteswap()
    words = native.view(np.uint8).reshape(-1, np.dtype(np.longdouble).itemsize)
    exponent = (words[:, 9] & 0x7F).astype(np.uint16) << 8 | words[:, 8]
    if ((exponent != 0) & (words[:, 7] < 0x80)).any():
        raise ValueError("a long double that is no number")


_ITEM_CHECKS = {
    "?": check_bools, "U": _check_text, "M": _check_moments, "g": _check_long_doubles, "G": _check_long_doubles,
}  # fmt: skip


def _read_objects(reader: Reader, parts: list[Any]) -> object:
    import numpy as np

    dimensions, items = parts
    shape, values = _checked_items(reader, dimensions, items)
    return np.fromiter(values, dtype=object, count=len(values)).reshape(shape)


def _checked_items(reader: Reader, dimensions: object, items: object) -> tuple[list[int], list[Any]]:
    shape = _shape(reader, dimensions)
    values = exact(list, items)
    if prod(shape) != len(values):
        raise ValueError("an array of another size than its shape")
    return shape, values


def _read_texts(reader: Reader, parts: list[Any]) -> object:
    import numpy as np

    dimensions, items, coerce, missing = parts
    shape, values = _checked_items(reader, dimensions, items)
    kinds = {type(each) for each in exact(list, missing)}
    if not {kind.__name__ for kind in kinds} <= _MISSING or not {str, *kinds}.issuperset(map(type, values)):
        raise TypeError("not an array of text")
    if any(type(each) is float and each == each for each in missing) or len(missing) > 1:  # noqa: PLR0124 - only NaN differs
        raise ValueError("a number does not stand for missing text")
    options: dict[str, Any] = dict(zip(["na_object"], missing, strict=False))
    return np.array(values, dtype=np.dtypes.StringDType(coerce=exact(bool, coerce), **options)).reshape(shape)


def _read_scalar(reader: Reader, parts: list[Any]) -> object:
    import numpy as np

    description, payload = parts
    dtype = _dtype(reader, description)
    if dtype.itemsize != len(exact(bytes, payload)):
        raise ValueError("a scalar of another size than its dtype")
    if not dtype.itemsize:
        return np.ndarray((1,), dtype)[0]
    array = np.frombuffer(payload, dtype).copy()
    check_items(array)
    return array[0]


def _read_str(_reader: Reader, parts: list[Any]) -> object:
    import numpy as np

    (text,) = parts
    return np.str_(exact(str, text))


def _read_bytes(_reader: Reader, parts: list[Any]) -> object:
    import numpy as np

    (text,) = parts
    return np.bytes_(exact(bytes, text))


READERS: dict[int, ReadFn] = {
    Code.ARRAY: _read_array,
    Code.OBJECTS: _read_objects,
    Code.TEXTS: _read_texts,
    Code.SCALAR: _read_scalar,
    Code.NUMPY_STR: _read_str,
    Code.NUMPY_BYTES: _read_bytes,
}

"""numpy arrays and scalars: their bytes as they lie in memory, their dtype by a strict description.

    [ARRAY, dtype, shape, order, buffer]     buffer: bytes, or the number of the frame that has them
    [OBJECTS, shape, items]                  an object array, its items as values of their own
    [TEXTS, shape, items, coerce, missing]   text of any length (StringDType); missing: [] or [what stands for it]

Large arrays leave without a copy when they are contiguous, in either order. They come out writable: in place when the
frame they came in is writable, else copied once. A subclass (matrix, recarray, memmap) travels as a plain array.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

from pool.values import dtypes
from pool.values.codes import MAX_EMPTY_ITEMS, Code
from pool.values.padding import cleared
from pool.values.reader import Reader, ReadFn, exact, exact_ints
from pool.values.writer import RefusalError, WriteFn, Writer

if TYPE_CHECKING:
    import numpy as np

#: Types of what may stand for a missing text; nothing else that is decoded has such a name.
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
    in_c_order = array.flags.c_contiguous or not array.flags.f_contiguous
    order = "C" if in_c_order else "F"
    flat = (np.ascontiguousarray(array) if in_c_order else array.T).reshape(-1)
    buffer = cleared(flat).view(np.uint8).data if array.nbytes else memoryview(b"")
    writer.composite(
        value, Code.ARRAY, dtype=dtype, shape=list(array.shape), order=order, buffer=writer.out_of_band(buffer)
    )


def _write_objects(writer: Writer, array: np.ndarray[Any, Any]) -> None:
    if array.size > writer.left:
        writer.over_limit()
    writer.composite(array, Code.OBJECTS, shape=list(array.shape), flat=array.reshape(-1).tolist())


def _write_texts(writer: Writer, array: np.ndarray[Any, Any]) -> None:
    if array.size > writer.left:
        writer.over_limit()
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
    dtype = dtypes.build(description)
    shape = exact_ints(exact(list, dimensions), len(exact(list, dimensions)))
    buffer = reader.take(source) if type(source) is int else exact(bytes, source)
    size = _checked_size(shape, dtype.itemsize, memoryview(buffer).nbytes)
    if order not in {"C", "F"}:
        raise ValueError("unknown order")
    if not size or not dtype.itemsize:
        return np.ndarray(shape, dtype)
    array = np.frombuffer(buffer, dtype).reshape(shape, order=order)
    _check_items(array)
    return array if array.flags.writeable else array.copy(order="K")


def _checked_size(shape: list[int], itemsize: int, available: int) -> int:
    """Number of items, once it is sure that the buffer holds just them."""
    if min(shape, default=0) < 0:
        raise ValueError("a negative dimension")
    size = prod(shape)
    if size * itemsize != available:
        raise ValueError(f"an array of {size} items of {itemsize} bytes in a buffer of {available}")
    if not itemsize and size > MAX_EMPTY_ITEMS:
        raise ValueError("too many items of no bytes")
    return size


def _check_items(array: np.ndarray[Any, Any]) -> None:
    """Refuse items that numpy takes on trust: it counts a bool as its byte, and copies by that count."""
    import numpy as np

    if array.dtype.names is not None:
        for name in array.dtype.names:
            _check_items(array[name])
    elif array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise ValueError("a bool that is neither 0 nor 1")
    elif array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        points = np.ascontiguousarray(array).reshape(-1).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if points.max() > 0x10FFFF:
            raise ValueError("text beyond Unicode")


def _read_objects(_reader: Reader, parts: list[Any]) -> object:
    import numpy as np

    dimensions, items = parts
    shape, values = _checked_items(dimensions, items)
    return np.fromiter(values, dtype=object, count=len(values)).reshape(shape)


def _checked_items(dimensions: object, items: object) -> tuple[list[int], list[Any]]:
    shape = exact_ints(exact(list, dimensions), len(exact(list, dimensions)))
    values = exact(list, items)
    if min(shape, default=0) < 0 or prod(shape) != len(values):
        raise ValueError("an array of another size than its shape")
    return shape, values


def _read_texts(_reader: Reader, parts: list[Any]) -> object:
    import numpy as np

    dimensions, items, coerce, missing = parts
    shape, values = _checked_items(dimensions, items)
    kinds = {type(each) for each in exact(list, missing)}
    if not {kind.__name__ for kind in kinds} <= _MISSING or not {str, *kinds}.issuperset(map(type, values)):
        raise TypeError("not an array of text")
    options: dict[str, Any] = dict(zip(["na_object"], missing, strict=False))
    return np.array(values, dtype=np.dtypes.StringDType(coerce=exact(bool, coerce), **options)).reshape(shape)


def _read_scalar(_reader: Reader, parts: list[Any]) -> object:
    import numpy as np

    description, payload = parts
    dtype = dtypes.build(description)
    if dtype.subdtype is not None or dtype.itemsize != len(exact(bytes, payload)):
        raise ValueError("a scalar of another size than its dtype")
    if not dtype.itemsize:
        return np.ndarray((1,), dtype)[0]
    array = np.frombuffer(payload, dtype).copy()
    _check_items(array)
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

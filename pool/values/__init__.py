"""How arguments and results travel between the loop (trusted) and the sandbox (hostile). A leaf module.

    frames = encode(value, max_bytes=16 << 20)      [head, buffer, buffer, …]
    value  = decode(frames)

    ┌───────────────────────────┬──────────────┬──────────────┬───
    │ head: one msgpack value,  │ raw buffer   │ raw buffer   │ …   of the arrays of 64 KiB and more, in the order
    │ with the codes of codes.py│ of an array  │ of an array  │     in which the head refers to them
    └───────────────────────────┴──────────────┴──────────────┴───

Rules:
1. Both raise only `pool.errors.ValueCodecError`, and MemoryError where the machine has no memory left.
2. `decode` makes objects of the types below and no others. It never unpickles, evaluates, or imports by name, and its
   memory is bounded by the bytes it was given (worst case: a head of empty dicts, about a hundred times its size).
3. `encode` runs none of a value's own code: no `__iter__`, `__repr__`, `__eq__`, `__reduce__`, no property.

These come out equal and of the same type, nested in any way:

    None bool int float complex str bytes bytearray list tuple dict set frozenset range slice
    datetime date time timedelta timezone ZoneInfo (by key) Decimal Fraction UUID PurePosixPath PureWindowsPath
    numpy     scalars and arrays of every dtype; object arrays item by item
    pandas    Series DataFrame, every Index, Timestamp Timedelta Period Interval NaT NA; columns of numpy dtypes, zoned
              times, category, str and string, Int Float boolean, period, interval, object. `freq` of a time index up
              to 100,000 items; not `attrs`, not sparse and Arrow columns

These come out as another type:

    subclass of a builtin (defaultdict, OrderedDict, Counter, your own)     the builtin
    enum member                                                             its value
    dataclass, named tuple                                                  a dict of its fields, in their order
    Path                                                                    the pure path of its kind
    zone of pytz                                                            itself, or ZoneInfo where pytz is missing
    subclass of ndarray, Series, DataFrame                                  the plain one
    pandas array of numpy's own dtypes, on its own                          numpy's array

Arrays come out writable: in place where their frame is a bytearray, else copied once. All other types are refused.

Bytes between the fields of a record are zeros.

Time is bounded by the frames' size, for `decode` and for printing, comparing, hashing, sorting and pickling the value.
Both sides refuse a value that would cost more (`codes.py` has the limits, docs/security.md the table of checks).

Not bounded: pandas hashes without a secret, so `groupby`, `merge` or `unique` on hostile *columns*, and lookups in a
hostile MultiIndex, can be made slow. numpy stores each text of a list with the width of the longest.
"""

from pool.values.codec import decode, encode
from pool.values.codes import MAX_BUFFERS, MAX_DEPTH, OUT_OF_BAND_BYTES

__all__ = ["MAX_BUFFERS", "MAX_DEPTH", "OUT_OF_BAND_BYTES", "decode", "encode"]

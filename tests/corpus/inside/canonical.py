"""A value as text, so that two values have the same text if they are equal and of the same types.

It knows the rules by which a value of the pool may come out as another type (an enum as its value, a dataclass as a
dict), and nothing of how the pool carries values. Runs in the plain process and, for results of the pool, outside.
"""

import json
import sys

_DEPTH = 250
_BUILTINS = (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)
#: Looked up where they are, if they are: to import them all takes longer than most programs run.
_BY_REPR = {
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "uuid": ("UUID",),
}


class ForeignError(Exception):
    """The value is, or has in it, what the pool does not carry."""


def canonical(value: object) -> str:
    """Raises ForeignError."""
    try:
        return json.dumps(_tree(value, 0))
    except RecursionError:
        raise ForeignError("deep or endless") from None


def _tree(value: object, depth: int) -> object:
    if depth > _DEPTH:
        raise RecursionError
    if value is None or isinstance(value, bool):
        return value
    if type(value) not in _BUILTINS:
        for told in (_of_libraries, _of_records, _of_leaves):
            tree = told(value, depth + 1)
            if tree is not NotImplemented:
                return tree
    return _builtin(value, depth + 1)


def _of_leaves(value: object, _depth: int) -> object:
    known = ((range, slice), *(_loaded(module, *names) for module, names in _BY_REPR.items()))
    if any(isinstance(value, kinds) for kinds in known):
        return [type(value).__name__, repr(value)]
    return ["path", str(value)] if isinstance(value, _loaded("pathlib", "PurePath")) else NotImplemented


def _loaded(module: str, *names: str) -> tuple[type, ...]:
    """These types, unless nobody has imported their module."""
    found = sys.modules.get(module)
    return () if found is None else tuple(getattr(found, name) for name in names)


def _of_records(value: object, depth: int) -> object:
    """What the pool carries as data."""
    if isinstance(value, _loaded("enum", "Enum")):
        return _tree(value.value, depth)
    if hasattr(type(value), "__dataclass_fields__"):
        names = [each.name for each in sys.modules["dataclasses"].fields(value)]
        return _dict({name: getattr(value, name) for name in names}, depth)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _dict(dict(zip(value._fields, value, strict=True)), depth)
    return NotImplemented


def _builtin(value: object, depth: int) -> object:
    kind = next((each for each in _BUILTINS if isinstance(value, each)), None)
    if kind is None:
        raise ForeignError(f"{type(value).__module__}.{type(value).__qualname__}")
    if kind is int:
        return ["int", hex(int(value))]
    if kind in {float, complex}:
        return [kind.__name__, kind.__repr__(value)]
    if kind is str:
        return str.__str__(value)
    if kind in {bytes, bytearray}:
        return [kind.__name__, bytes(value).hex()]
    if kind is dict:
        return _dict(value, depth)
    items = [_tree(item, depth) for item in value]
    return [kind.__name__, sorted(items, key=json.dumps) if kind in {set, frozenset} else items]


def _dict(value: dict, depth: int) -> object:
    return ["dict", [[_tree(key, depth), _tree(item, depth)] for key, item in dict.items(value)]]


def _of_libraries(value: object, depth: int) -> object:
    """A value of numpy or pandas, if its program has them."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return _array(value, depth)
    if pandas is None:
        return NotImplemented
    if isinstance(value, pandas.DataFrame):
        columns = [_of_libraries(value.iloc[:, at], depth) for at in range(value.shape[1])]
        return ["DataFrame", _of_libraries(value.columns, depth), columns]
    if isinstance(value, pandas.Series):
        index = _of_libraries(value.index, depth)
        return ["Series", str(value.dtype), _tree(value.name, depth), index, _tree(value.tolist(), depth)]
    if isinstance(value, pandas.Index):
        return [type(value).__name__, str(value.dtype), _tree(list(value.names), depth), _tree(value.tolist(), depth)]
    scalars = (pandas.Timestamp, pandas.Timedelta, pandas.Period, pandas.Interval, type(pandas.NaT), type(pandas.NA))
    return [type(value).__name__, repr(value)] if isinstance(value, scalars) else NotImplemented


def _array(value, depth: int) -> object:
    kind = "array" if hasattr(value, "tolist") and value.shape else type(value).__name__
    if value.dtype.kind == "O":
        return [kind, "O", list(value.shape), _tree(value.tolist(), depth)]
    import hashlib

    content = value.tobytes()
    told = content.hex() if len(content) <= 256 else hashlib.sha256(content).hexdigest()
    return [kind, str(value.dtype), list(value.shape), told]

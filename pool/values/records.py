"""Instances of the user's own classes that are records. Their data travels; the class does not.

    enum member    its value
    dataclass      a dict of its fields, in their order
    named tuple    a dict of its fields, in their order

The fields are read from where Python keeps them (instance dict, slots), never through the class: a property or a
`__getattribute__` of a hostile class does not run.
"""

from __future__ import annotations

from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from pool.values.writer import RefusalError, WriteFn, Writer, mro_of, namespace_of


def writer_for(base: type, mro: tuple[type, ...]) -> WriteFn | None:
    """The writer of classes that have this one in their `mro`, if it makes them records."""
    namespace = namespace_of(base)
    if "__dataclass_fields__" in namespace:
        return _write_dataclass
    if "_fields" in namespace and tuple in mro:
        return _write_named_tuple
    return None


def write_enum(writer: Writer, value: object) -> None:
    writer.write(_stored(value, "_value_"))


def _write_dataclass(writer: Writer, value: Any) -> None:
    import dataclasses  # takes longer than all other modules of a worker that need not have it

    names = [field.name for field in dataclasses.fields(type(value))]
    writer.mapping(value, ((name, _stored(value, name)) for name in names), count=len(names))


def _write_named_tuple(writer: Writer, value: tuple[object, ...]) -> None:
    fields = next(space["_fields"] for base in mro_of(type(value)) if "_fields" in (space := namespace_of(base)))
    if type(fields) is not tuple or not {str}.issuperset(map(type, fields)) or len(fields) != tuple.__len__(value):
        raise RefusalError("its _fields do not match its items", kind=type(value))
    writer.mapping(value, zip(fields, tuple.__iter__(value), strict=True), count=len(fields))


def _stored(value: object, name: str) -> object:
    """The value that the instance itself stores under this name."""
    for base in mro_of(type(value)):
        namespace = namespace_of(base)
        instance_dict, slot = namespace.get("__dict__"), namespace.get(name)
        if type(instance_dict) is GetSetDescriptorType and name in (own := instance_dict.__get__(value)):
            return own[name]
        if type(slot) is MemberDescriptorType:
            return slot.__get__(value)
    raise RefusalError(f"it has no value for its field {name[:40]!r}", kind=type(value))

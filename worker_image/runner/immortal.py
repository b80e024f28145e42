"""The zygote's objects without a reference count, so that a child that reads them writes to no page of them.

From Python 3.12 on an object can be immortal (PEP 683): the interpreter no longer counts references to it, and never
frees it. So a child that calls functions and looks at modules of the zygote copies only the pages that it really
changes. Python makes its own constants so; here it is done to all that the zygote has loaded. Older versions, and
builds whose counts look different, go without.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

#: The reference count of an immortal object in CPython 3.12 and 3.13: the lower 32 of its 64 bits are set.
_IMMORTAL = 0xFFFFFFFF
#: What many values refer to, and is a part of none.
_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType)
#: All memory as 32-bit numbers. The count of an object is at its address.
_Memory = ctypes.c_uint32 * (1 << 45)


def supported() -> bool:
    """Whether this interpreter marks immortal objects in the way that is known here."""
    return sys.getrefcount(None) == _IMMORTAL and sys.byteorder == "little" and sys.maxsize == 2**63 - 1


def make(*, mortal: Iterable[object] = ()) -> None:
    """Make all objects of this process immortal.

    `mortal`: those that are not, with their parts, such as data sets: libraries ask for the count of a frame.
    """
    if not supported():
        return
    kept = _parts(mortal)
    memory = _Memory.from_address(0)
    level = gc.get_objects()
    while level:
        for each in level:
            if id(each) not in kept:
                memory[id(each) >> 2] = _IMMORTAL
        level = [each for each in _parts_of(level) if sys.getrefcount(each) != _IMMORTAL and id(each) not in kept]


def _parts_of(objects: list[object]) -> list[object]:
    """All that these refer to. The collector knows this of its containers, and does not look into code."""
    code = [each for each in objects if type(each) is CodeType]
    return gc.get_referents(*objects) + [part for each in code for part in (each.co_consts, each.co_names)]


def _parts(values: Iterable[object]) -> set[int]:
    """The addresses of these values and of their parts."""
    found: set[int] = set()
    level = list(values)
    while level:
        level = [each for each in level if id(each) not in found and not isinstance(each, _SHARED)]
        found.update(map(id, level))
        level = gc.get_referents(*level)
    return found

"""Values that msgpack carries as they are, judged level by level with C-speed iteration and no call per value.

Most values are plain, so this is the quick way; it also keeps the packer, which knows no size limit, from being given
a value that looks small in memory and is huge when written out (`x = [x, x]` forty times over).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import msgpack

#: Items looked through for containers at once; a value with more on one level is written piece by piece instead.
_MAX_LEVEL = 1 << 20

#: The packer asks for 256 KiB unless told otherwise, which costs more than packing a small value; it grows as needed.
_FIRST_BUFFER = 1024

_TEXT = frozenset({str, bytes})
_NESTED = frozenset({list, dict})
_PLAIN = frozenset({type(None), bool, int, float}) | _TEXT | _NESTED
_KEYS = frozenset({str})
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


class OverLimitError(Exception):
    """The value cannot fit, found out before anything was written."""


def is_plain(value: list[Any] | dict[Any, Any], limit: int, *, depth: int) -> bool:
    """Whether msgpack alone can carry the value, at most `depth` levels of it. Raises OverLimitError when it is plain
    so far but takes more than `limit` bytes: an item takes at least one byte, a character too.
    """
    lists: list[list[Any]] = [value] if type(value) is list else []
    dicts: list[dict[Any, Any]] = [value] if type(value) is dict else []
    least = 1
    for _ in range(depth):
        count = sum(map(len, lists)) + sum(map(len, dicts))
        least += count
        if dicts:
            if not _KEYS.issuperset(map(type, chain.from_iterable(dicts))):
                return False
            least += sum(map(len, chain.from_iterable(dicts)))
        if least > limit:
            raise OverLimitError
        kinds = set(map(type, _items(lists, dicts)))
        if not kinds <= _PLAIN:
            return False
        if kinds & _TEXT:
            least += sum(map(len, filter(_is_text, _items(lists, dicts))))
        if not kinds & _NESTED:
            if least > limit:
                raise OverLimitError
            return True
        if count > _MAX_LEVEL:
            return False
        inner = list(_items(lists, dicts))
        lists = [item for item in inner if type(item) is list] if list in kinds else []
        dicts = [item for item in inner if type(item) is dict] if dict in kinds else []
    return False


def _is_text(item: object) -> bool:
    return type(item) in _TEXT


def _items(lists: list[list[Any]], dicts: list[dict[Any, Any]]) -> Iterable[Any]:
    if not lists and len(dicts) == 1:
        return dicts[0].values()
    if not dicts and len(lists) == 1:
        return lists[0]
    return chain(chain.from_iterable(lists), chain.from_iterable(map(dict.values, dicts)))


def pack(value: object) -> bytes:
    """One plain value as msgpack. Raises OverflowError for an int of more than 64 bits, TypeError for the rest."""
    try:
        return msgpack.Packer(strict_types=True, buf_size=_FIRST_BUFFER).pack(value)  # type: ignore[call-arg] # the stubs lack it
    except UnicodeEncodeError:  # a lone surrogate: rare, and the packer is half as quick when it is told to mind them
        return msgpack.Packer(strict_types=True, unicode_errors="surrogatepass").pack(value)


def is_deeper(value: object, limit: int) -> bool:
    """Whether builtin containers are nested deeper than `limit` levels in a decoded value."""
    level: Iterable[Any] = [value]
    for _ in range(limit + 1):
        if _CONTAINERS.isdisjoint(map(type, level)):
            return False
        containers = [item for item in level if type(item) in _CONTAINERS]
        dicts = [item for item in containers if type(item) is dict]
        level = list(chain(chain.from_iterable(containers), chain.from_iterable(map(dict.values, dicts))))
    return True

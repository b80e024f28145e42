"""Finds values that msgpack can carry unchanged, one level at a time, with iteration in C and no Python call per value.

Most values are plain, so this is the fast way. It also keeps values that are small in memory and huge when written
(`x = [x, x]` repeated forty times) from the packer, which has no size limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import msgpack

#: The most items of one level that are searched for containers. A value with more is written piece by piece.
_MAX_LEVEL = 1 << 20

#: With so many containers on one level, it is checked whether they are the same few objects again and again.
_MANY = 1024

#: The packer's default buffer is 256 KiB, which costs more than packing a small value. It grows when needed.
FIRST_BUFFER = 1024

_TEXT = frozenset({str, bytes})
_NESTED = frozenset({list, dict})
SCALARS = frozenset({type(None), bool, int, float})
_FLAT = SCALARS | _TEXT
_PLAIN = _FLAT | _NESTED
_KEYS = frozenset({str})
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})

#: Characters and items of a value that is packed at once as a whole. A larger one is searched level by level anyway.
SMALL = 64 * 1024


class OverLimitError(Exception):
    """The value exceeds the limit. Raised before anything is written."""


def is_plain(value: list[Any] | dict[Any, Any], limit: int, *, depth: int) -> bool:
    """Whether msgpack alone can carry the value, at most `depth` levels of it. Raises OverLimitError for a value
    that is plain so far and takes more than `limit` bytes. An item and a character take at least one byte each.
    """
    lists: list[list[Any]] = [value] if type(value) is list else []
    dicts: list[dict[Any, Any]] = [value] if type(value) is dict else []
    least = 1
    for left in range(depth, 0, -1):
        count = sum(map(len, lists)) + sum(map(len, dicts))
        if not _KEYS.issuperset(map(type, chain.from_iterable(dicts))):
            return False
        least += count + sum(map(len, chain.from_iterable(dicts)))
        if least > limit:
            raise OverLimitError
        if count > _MAX_LEVEL:
            return _is_flat(lists, dicts, limit - least)
        items = [*chain.from_iterable(lists), *chain.from_iterable(map(dict.values, dicts))]
        kinds = set(map(type, items))
        if not kinds <= _PLAIN:
            return False
        if not kinds.isdisjoint(_TEXT):
            least += sum(map(len, filter(_is_text, items)))
        if kinds.isdisjoint(_NESTED):
            if least > limit:
                raise OverLimitError
            return True
        lists, dicts = [each for each in items if type(each) is list], [each for each in items if type(each) is dict]
        if len(lists or dicts) >= _MANY and _are_shared(lists or dicts):
            return _is_plain_shared([*lists, *dicts], limit - least, depth=left - 1)
    return False


def _is_flat(lists: list[list[Any]], dicts: list[dict[Any, Any]], limit: int) -> bool:
    """Whether a level that is too large to be searched has no containers, and its texts are within the limit."""
    kinds = set(map(type, _items(lists, dicts)))
    if not kinds <= _FLAT:
        return False
    if not kinds.isdisjoint(_TEXT) and sum(map(len, filter(_is_text, _items(lists, dicts)))) > limit:
        raise OverLimitError
    return True


def _items(lists: list[list[Any]], dicts: list[dict[Any, Any]]) -> Iterable[Any]:
    return chain(chain.from_iterable(lists), chain.from_iterable(map(dict.values, dicts)))


def _are_shared(containers: Sequence[object]) -> bool:
    """Judged by a sample: where values are made by doubling, any sample has repetitions."""
    return 2 * len(set(map(id, containers[:_MANY]))) <= _MANY


def _is_plain_shared(containers: list[Any], limit: int, *, depth: int) -> bool:
    """`is_plain` of containers that are the same again and again: each is checked once and counted as often as it
    occurs.
    """
    times, level = Counter(map(id, containers)), {id(each): each for each in containers}
    for _ in range(depth):
        inner_times: Counter[int] = Counter()
        inner: dict[int, Any] = {}
        for key, each in level.items():
            items = each.values() if type(each) is dict else each
            keys = each if type(each) is dict else ()
            if not (_PLAIN.issuperset(map(type, items)) and _KEYS.issuperset(map(type, keys))):
                return False
            limit -= times[key] * (len(each) + sum(map(len, keys)) + sum(map(len, filter(_is_text, items))))
            if limit < 0:
                raise OverLimitError
            for item in items:
                if type(item) in _NESTED:
                    inner_times[id(item)] += times[key]
                    inner[id(item)] = item
        if not inner:
            return True
        times, level = inner_times, inner
    return False


def _is_text(item: object) -> bool:
    return type(item) in _TEXT


def pack(value: object) -> bytes:
    """One plain value as msgpack. Raises OverflowError for an int of more than 64 bits, TypeError for the rest."""
    try:
        return msgpack.Packer(strict_types=True, buf_size=FIRST_BUFFER).pack(value)  # type: ignore[call-arg] # the stubs lack it
    except UnicodeEncodeError:  # a lone surrogate: rare, and the option that packs them makes the packer half as fast
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

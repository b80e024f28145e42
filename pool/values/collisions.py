"""Finds keys that were chosen to collide, before a set or a dict is made of them.

A hash table is fast because keys spread over it. Hashes of numbers and of tuples of numbers are not secret, so a job
can choose keys that do not spread. Filling a table with n of them takes n * n steps inside one call that nothing can
interrupt. Two counts have a fixed limit:

    keys that have one and the same hash             MAX_ALIKE, or MAX_ALIKE_DEAR where comparing two keys is slow
    slots that CPython looks at to place each key    MAX_STEPS for each key, plus FREE_STEPS for the whole table

The second count follows CPython's tables slot by slot. Keys with pairwise different hashes can also be slow, when they
probe the same run of slots.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Sequence
from itertools import chain, groupby, islice
from typing import Any, NoReturn

#: Honest keys collide too. -1 and -2 have the same hash, so 32 of the points of {-2..2}^5 share one. 2.0**k and
#: 2.0**(k + 61) have the same hash, so 35 powers of two share one.
MAX_ALIKE = 36
#: For keys that are compared by Python code or by conversion: Decimal, Fraction, numpy and pandas scalars, and others.
MAX_ALIKE_DEAR = 4
MAX_STEPS = 48
FREE_STEPS = 1024
#: With fewer keys than this, n * n steps are few.
_FEW_KEYS = 256

_TEXT = frozenset({str, bytes})
_CHEAP = frozenset({type(None), bool, int, float, str, bytes})
_HASH_MASK = (1 << 64) - 1
_SET_LINEAR_PROBES = 9
_SET_SLOW_GROWTH = 50_000


def check_dict_keys(keys: Sequence[Any]) -> None:
    """Raise ValueError for keys that would collide in a dict; TypeError for one that has no hash."""
    if not _is_secret(keys):
        hashes = list(map(hash, keys))
        check_alike(keys, hashes)
        check_dict_steps(hashes)


def check_set_items(items: Sequence[Any]) -> None:
    """Raise ValueError for items that would collide in a set; TypeError for one that has no hash."""
    if not _is_secret(items):
        hashes = list(map(hash, items))
        check_alike(items, hashes)
        check_set_steps(hashes)


def check_labels(labels: Sequence[Any]) -> None:
    """Raise ValueError for labels of an index that would collide in a table. They may repeat, and may have no hash."""
    if _is_secret(labels):
        return
    try:
        hashes = list(map(hash, labels))
    except TypeError:  # pandas cannot look these up at all
        return
    limit = MAX_ALIKE if _are_cheap(labels) else MAX_ALIKE_DEAR
    distinct: list[int] = []
    for number, group in groupby(sorted(range(len(hashes)), key=hashes.__getitem__), hashes.__getitem__):
        found = _distinct([labels[at] for at in group], limit)
        distinct += [number] * found
    check_dict_steps(distinct)


def _distinct(alike: list[Any], limit: int) -> int:
    """The number of different labels among these, which have the same hash."""
    found: list[Any] = []
    for label in alike:
        if not any(label is other or label == other for other in found):
            found.append(label)
            if len(found) > limit:
                _refuse_alike(limit)
    return len(found)


def check_numbers(numbers: Any) -> None:
    """Raise ValueError for an array of 64-bit labels if too many of them have the same hash in pandas."""
    import numpy as np

    if len(numbers) <= _FEW_KEYS:
        return
    words, kind = numbers.view(np.uint64), numbers.dtype.kind
    if _are_alike(_pandas_hashes(words, kind)) and _are_alike(_pandas_hashes(np.unique(words), kind)):
        _refuse_alike(MAX_ALIKE)  # and not because labels repeat


def _are_alike(hashes: Any) -> bool:
    """Whether one hash occurs more than MAX_ALIKE times."""
    import numpy as np

    ordered = np.sort(hashes)
    return bool((ordered[MAX_ALIKE:] == ordered[:-MAX_ALIKE]).any())


def _pandas_hashes(words: Any, kind: str) -> Any:
    """The 32-bit hash of pandas for a 64-bit number: murmur2 for a float, shifts for an int."""
    import numpy as np

    if kind != "f":
        return ((words >> np.uint64(33)) ^ words ^ (words << np.uint64(11))).astype(np.uint32)
    factor, hashes = np.uint32(0x5BD1E995), np.full(len(words), 0xC70F6907 ^ 4, np.uint32)
    for half in (words.astype(np.uint32), (words >> np.uint64(32)).astype(np.uint32)):
        mixed = half * factor
        mixed ^= mixed >> np.uint32(24)
        hashes = hashes * factor ^ mixed * factor
    return hashes  # the further steps of pandas map different hashes to different ones


def _is_secret(keys: Sequence[Any]) -> bool:
    """Whether Python hashes all these keys with this process's secret."""
    return len(keys) < 2 or (bool(sys.flags.hash_randomization) and _TEXT.issuperset(map(type, keys)))


def check_alike(keys: Sequence[Any], hashes: list[int]) -> None:
    """Raise ValueError if too many keys have the same hash. It sorts: a table of the hashes would collide too."""
    limit = MAX_ALIKE if len(keys) <= MAX_ALIKE_DEAR or _are_cheap(keys) else MAX_ALIKE_DEAR
    ordered = sorted(hashes)
    if any(map(operator.eq, ordered, islice(ordered, limit, None))):
        _refuse_alike(limit)


def _refuse_alike(limit: int) -> NoReturn:
    raise ValueError(f"the keys collide: more than {limit} of them have the same hash")


def _are_cheap(keys: Iterable[Any]) -> bool:
    """Whether the keys are numbers, text, and tuples of those."""
    level = keys
    while True:
        kinds = set(map(type, level))
        if kinds <= _CHEAP:
            return True
        if not kinds <= _CHEAP | {tuple}:
            return False
        level = list(chain.from_iterable(key for key in level if type(key) is tuple))


def check_dict_steps(hashes: list[int]) -> None:
    """CPython doubles a dict when two thirds of its slots are taken, and places all keys anew."""
    size = 8
    while (usable := (size << 1) // 3) < len(hashes):
        _count_dict_steps(hashes[:usable], size)
        size <<= 1
    _count_dict_steps(hashes, size)


def _count_dict_steps(hashes: list[int], size: int) -> None:
    if len(hashes) < _FEW_KEYS:
        return
    taken, mask, left = bytearray(size), size - 1, FREE_STEPS + MAX_STEPS * len(hashes)
    for number in hashes:
        slot = number & mask
        if taken[slot]:
            perturb = number & _HASH_MASK
            while taken[slot]:
                perturb >>= 5
                slot = (5 * slot + perturb + 1) & mask
                left -= 1
                if left < 0:
                    _refuse_steps()
        taken[slot] = 1


def check_set_steps(hashes: list[int]) -> None:
    """CPython enlarges a set when three fifths of its slots are taken, and places all items anew."""
    size = 8
    while (full := ((size - 1) * 3 + 4) // 5) < len(hashes):
        _count_set_steps(hashes[:full], size)
        wanted = full * (2 if full > _SET_SLOW_GROWTH else 4)
        while size <= wanted:
            size <<= 1
    _count_set_steps(hashes, size)


def _count_set_steps(hashes: list[int], size: int) -> None:
    if len(hashes) < _FEW_KEYS:
        return
    taken, mask, left = bytearray(size), size - 1, FREE_STEPS + MAX_STEPS * len(hashes)
    for number in hashes:
        slot = number & mask
        if taken[slot]:
            slot, steps = set_slot(taken, number, mask, left)
            left -= steps
        taken[slot] = 1


def set_slot(taken: bytearray, number: int, mask: int, left: int) -> tuple[int, int]:
    """The free slot that a set finds: it looks at nine neighbours before it jumps."""
    slot, perturb, steps = number & mask, number & _HASH_MASK, 0
    while True:
        last = slot + (_SET_LINEAR_PROBES if slot + _SET_LINEAR_PROBES <= mask else 0)
        free = taken.find(0, slot, last + 1)
        if free >= 0:
            return free, steps + 1
        steps += 1
        if steps > left:
            _refuse_steps()
        perturb >>= 5
        slot = (5 * slot + 1 + perturb) & mask


def _refuse_steps() -> NoReturn:
    raise ValueError("the keys collide: they were chosen to make a table of them slow")

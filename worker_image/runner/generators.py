"""The global random generators of `random` and NumPy: a new state for each child, or the one that a job asks for. And
the key of multiprocessing, which is drawn when that is imported: a new one for each child.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

from runner import kernel
from runner.kernel import Step

#: In CPython, the place of the state in an object of `random.Random`.
_STATE_OFFSET = 20
#: In CPython, the place of the content in an object of `bytes`, whose size counts the zero behind it.
_BYTES_OFFSET = bytes.__basicsize__ - 1


def renewing() -> list[Step]:
    """In the zygote: steps by which the kernel gives them a new state in each child.

    Otherwise all forks of a zygote would draw the same numbers. The generators' own functions for that are slow in a
    child. The state of each is 624 words. Next to them is the position, which stays that of a generator that was just
    seeded. Where a generator keeps its state in another way, its own function is called.
    """
    random.seed()
    words = struct.pack("=624I", *random.getstate()[1][:-1])
    steps = [_renewing(random.seed, id(random._inst) + _STATE_OFFSET, words)]  # noqa: SLF001
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy.random, "get_bit_generator"):
        numpy.random.seed()
        address = numpy.random.get_bit_generator().ctypes.state_address
        steps.append(_renewing(numpy.random.seed, address, numpy.random.get_state()[1].tobytes()))
    elif numpy is not None:
        steps.append(Step(_reseed, (numpy.random.seed,), "seed"))
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        key = processes.current_process().authkey
        steps.append(_renewing(partial(_new_key, processes), id(key) + _BYTES_OFFSET, bytes(key)))
    return steps


def _renewing(seed: Callable[[], object], address: int, words: bytes) -> Step:
    if ctypes.string_at(address, len(words)) == words:
        return kernel.calling("getrandom", ctypes.c_void_p(address), len(words), 0)
    return Step(_reseed, (seed,), "seed")


def _new_key(processes: ModuleType) -> None:
    processes.current_process().authkey = os.urandom(32)


def _reseed(seed: Callable[[], object]) -> int:
    seed()
    return 0


def seed(number: int | None) -> None:
    """Jobs with the same seed draw the same numbers."""
    random.seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number)

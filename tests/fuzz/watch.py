"""Runs a target on one input and holds it to the CPU time and the memory that it may take.

Time is the thread's own CPU time, so that a busy host breaks no contract. Memory is the peak of what Python and numpy
allocate, by tracemalloc. That makes everything five times as slow, so an engine has it done for one input in so many,
chosen by its bytes; the others are held by the peak of the resident set, which no input may push up far.
"""

import resource
import time
import tracemalloc
import zlib
from typing import NamedTuple

from tests.fuzz.target import Target

_PUSH_BYTES = 64 << 20


class BoundError(AssertionError):
    """An input cost more than it may."""


class Spent(NamedTuple):
    cpu_s: float
    bytes: int  #: 0 where they were not counted


class Watch:
    """`run` raises what the target raises, or BoundError."""

    def __init__(self, target: Target, *, every: int = 1) -> None:
        self._target = target
        self._every = every
        target.one(b"")  # what is made once is no input's fault

    def run(self, data: bytes) -> Spent:
        peak, started = peak_rss(), time.thread_time()
        self._target.one(data)
        cpu_s, pushed = time.thread_time() - started, peak_rss() - peak
        if pushed > _PUSH_BYTES + self._target.per_byte * len(data):
            raise BoundError(f"{len(data)} bytes of input made the process grow by {pushed} bytes")
        if cpu_s > self._target.cpu_s:
            raise BoundError(f"{len(data)} bytes of input took {cpu_s:.2f} s of CPU")
        return Spent(cpu_s, 0 if zlib.crc32(data) % self._every else self._traced(data))

    def _traced(self, data: bytes) -> int:
        tracemalloc.start(1)
        try:
            self._target.one(data)
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        allowed = self._target.base_bytes + self._target.per_byte * len(data)
        if taken > allowed:
            raise BoundError(f"{len(data)} bytes of input took {taken} bytes of memory, {allowed} are allowed")
        return taken


def peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

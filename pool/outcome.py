"""How a job ended, what it found at its start, and what the screen refuses: the value types that workers have too.

They are in a module of their own, and none of them is a dataclass: the module `dataclasses` and a dataclass of six
fields take a worker 7 ms of its start.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """How a job ended. Every job ends in exactly one of these."""

    OK = "ok"  #: it ran to its end
    ERROR = "error"  #: the code raised, did not compile, has no such entry, or returned what cannot be carried
    TIMEOUT = "timeout"  #: over its wall, CPU or queue time; everything it started is gone
    MEMORY = "memory"  #: over its memory
    OUTPUT = "output"  #: its result is over the limit
    CRASH = "crash"  #: the process died without an answer: signal, os._exit, closed channel
    REJECTED = "rejected"  #: the screen refused the code, or the code had cost too many workers; it did not run
    CANCELLED = "cancelled"  #: its submitter cancelled it
    LOST = "lost"  #: its worker vanished after the dispatch; its effect is unknown, and no further attempt is allowed


class StartKind(StrEnum):
    """What a submitted job found; the hit rate counts all but cold."""

    PARKED = "parked"  #: an idle worker with a child that was forked ahead
    WARM = "warm"  #: busy workers: it waited for another job, or for the cleaning up after one
    COLD = "cold"  #: no usable worker: it waited for a container to start


class Finding(NamedTuple):
    """One refusal of the screen: the place in the program, the reason, and what to write instead."""

    rule: str  #: such as "S101"; stable, so that a policy and a statistic can name it
    line: int  #: from 1
    column: int  #: from 1, in characters
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column} {self.rule} {self.reason}; {self.remedy}"

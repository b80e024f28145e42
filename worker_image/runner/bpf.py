"""Compiles a set of allowed system calls into a seccomp filter: classic BPF, as linux/{filter,seccomp}.h have it.

    load arch ─▶ native? ──no──▶ kill          the numbers of another architecture mean other calls
        │
    load nr ─▶ binary search over ranges of numbers ─▶ allow | deny | absent | look at one argument ─▶ allow | deny

A search tree, and not one comparison after another: when a filter is loaded the kernel runs it once for every number
there is, and a parked child's job waits for that.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALLOW = 0x7FFF0000
KILL = 0x80000000
TRAP = 0x00030000
_ERRNO = 0x00050000

_LOAD, _JUMP, _EQUAL, _AT_LEAST, _SET, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_FARTHEST = 255  # a conditional jump has eight bits
_LAYOUT = struct.Struct("=HBBI")

Instruction = tuple[int, int, int, int]


def fail(number: int) -> int:
    """The action that lets a call fail with an errno."""
    return _ERRNO | number


DENY = fail(errno.EPERM)
ABSENT = fail(errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Only:
    """Allowed with these values of one argument. The kernel takes all of them as 32 bits, so do we."""

    argument: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """Allowed with none of these bits in one argument."""

    argument: int
    bits: int


@dataclass(frozen=True, slots=True)
class Except:
    """Allowed but with these values of one argument."""

    argument: int
    values: tuple[int, ...]


Rule = Only | Without | Except | None


def compile_filter(allowed: Mapping[int, Rule], *, arch: int, newest: int, absent: Sequence[int], denied: int) -> bytes:
    """The program, ready for the kernel. `allowed`: rule by number, None for any arguments; `absent` and all numbers
    above `newest` are answered with ENOSYS, everything else with the action `denied`.
    """
    steps: list[tuple[int, int | Rule]] = []
    for number in range(newest + 1):
        action: int | Rule = denied
        if number in absent:
            action = ABSENT
        elif number in allowed:
            action = allowed[number] or ALLOW
        if not steps or steps[-1][1] != action:
            steps.append((number, action))
    steps.append((newest + 1, ABSENT))
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER),
        *_search(steps, denied),
    ]
    return b"".join(_LAYOUT.pack(*each) for each in program)


def _search(steps: Sequence[tuple[int, int | Rule]], denied: int) -> list[Instruction]:
    """What to do with a number, given the first number of each step."""
    if len(steps) == 1:
        return _leaf(steps[0][1], denied)
    middle = len(steps) // 2
    below, above = _search(steps[:middle], denied), _search(steps[middle:], denied)
    first = steps[middle][0]
    if len(below) <= _FARTHEST:
        return [(_AT_LEAST, len(below), 0, first), *below, *above]
    return [(_AT_LEAST, 0, 1, first), (_JUMP, 0, 0, len(below)), *below, *above]


def _leaf(action: int | Rule, denied: int) -> list[Instruction]:
    if isinstance(action, int):
        return [(_RETURN, 0, 0, action)]
    if action is None:
        return [(_RETURN, 0, 0, ALLOW)]
    load = (_LOAD, 0, 0, _ARGUMENTS + 8 * action.argument)  # its low half: every architecture here is little endian
    if isinstance(action, Without):
        return [load, (_SET, 0, 1, action.bits), (_RETURN, 0, 0, denied), (_RETURN, 0, 0, ALLOW)]
    listed, others = (ALLOW, denied) if isinstance(action, Only) else (denied, ALLOW)
    tests = [(_EQUAL, len(action.values) - at, 0, value) for at, value in enumerate(action.values)]
    return [load, *tests, (_RETURN, 0, 0, others), (_RETURN, 0, 0, listed)]

"""Thread stacks that cost a job's memory limit nothing until they are used.

The C library keeps the stacks of ended threads for later ones, and forks inherit them. A new stack counts with its
whole size against RLIMIT_DATA; one that the zygote had before the fork does not. Called once, in the zygote.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from pathlib import Path

from runner import kernel

#: How many are kept, by their size in MiB. The large ones are for programs that set threading.stack_size. A thread gets
#: the smallest that is large enough, unless it is more than four times as large as needed.
_KEPT = {8: 63, 32: 16, 128: 8, 512: 2}
_USUAL = min(_KEPT)
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
#: How the module threading starts threads, in all versions.
_STARTERS = ("_start_new_thread", "_start_joinable_thread")


def set_up() -> None:
    """For all jobs. Where the kernel sets all memory aside (mode 2), only stacks of the usual size are kept."""
    strict = _OVERCOMMIT.exists() and _OVERCOMMIT.read_text(encoding="ascii").strip() == "2"
    for size, count in _KEPT.items():
        if size == _USUAL or not strict:
            kernel.reserve_stacks(count, size << 20)
    for name in _STARTERS:
        if hasattr(threading, name):
            setattr(threading, name, with_a_smaller_stack(getattr(threading, name)))


def with_a_smaller_stack(start: Callable[..., object]) -> Callable[..., object]:
    """`start`, but a thread for whose large stack there is no memory gets one of the usual size.

    Few programs use what they ask for: since Python 3.11 a call of a Python function takes nothing of it.
    """

    def start_new_thread(*arguments: object, **named: object) -> object:
        try:
            return start(*arguments, **named)
        except RuntimeError:
            wanted = _thread.stack_size()
            if wanted <= _USUAL << 20:
                raise
        _thread.stack_size(0)
        try:
            return start(*arguments, **named)
        finally:
            _thread.stack_size(wanted)

    return start_new_thread

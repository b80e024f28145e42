"""Thread stacks that cost a job's memory limit nothing until they are used.

A new stack counts with its whole size against RLIMIT_DATA, though a thread touches little of it. So the zygote maps
room that counts in the same way and is never touched. A fork copies one entry for it, and no page tables. When a job
starts a thread, it gives back as much of the room as the new stack takes.
"""

from __future__ import annotations

import _thread
import ctypes
import mmap
import threading
from collections.abc import Callable
from pathlib import Path

from runner import kernel

#: The stack of a thread that asks for no size; room is given back in pieces of this size.
_USUAL = 8 << 20
#: Stacks that the C library keeps ready for threads that a library starts without the module threading.
_KEPT = 8
#: At least the size of sem_t and of pthread_attr_t.
_OPAQUE_BYTES = 128
#: Pieces of room. Programs that set threading.stack_size ask for up to 512 MiB a thread.
_ROOM = 384
#: Where the kernel sets all memory aside (mode 2), the room is for stacks of the usual size.
_ROOM_IF_STRICT = 56
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
#: How the module threading starts threads, in all versions.
_STARTERS = ("_start_new_thread", "_start_joinable_thread")


def set_up() -> None:
    """Called once, in the zygote, for all jobs."""
    strict = _OVERCOMMIT.exists() and _OVERCOMMIT.read_text(encoding="ascii").strip() == "2"
    _reserve(_KEPT, _USUAL)
    room = Room(_ROOM_IF_STRICT if strict else _ROOM)
    for name in _STARTERS:
        if hasattr(threading, name):
            setattr(threading, name, starting(getattr(threading, name), room))


def _reserve(count: int, size: int) -> None:
    """Have the C library keep `count` stacks of `size` bytes for later threads, here and in forks.

    How much is kept is set by glibc.pthread.stack_cache_size when the process starts. The threads run no Python: they
    wait for a semaphore, so that all of them exist at the same time. Kept stacks have no guard page, but room for one,
    which is set up when a thread gets the stack. So they lie in one mapping, which a fork copies quicker than many.
    """
    gate, attributes = (ctypes.create_string_buffer(_OPAQUE_BYTES) for _ in range(2))
    kernel.libc.sem_init(gate, 0, 0)
    kernel.libc.pthread_attr_init(attributes)
    kernel.libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(size + mmap.PAGESIZE))
    kernel.libc.pthread_attr_setguardsize(attributes, ctypes.c_size_t(0))
    threads = (ctypes.c_ulong * count)()
    started = 0
    for at in range(count):
        wait = ctypes.cast(kernel.libc.sem_wait, ctypes.c_void_p)
        if kernel.libc.pthread_create(
            ctypes.byref(threads, at * ctypes.sizeof(ctypes.c_ulong)), attributes, wait, gate
        ):
            break  # no more processes or memory: fewer stacks are kept
        started += 1
    for _ in range(started):
        kernel.libc.sem_post(gate)
    for thread in threads[:started]:
        kernel.libc.pthread_join(ctypes.c_ulong(thread), None)


class Room:
    """Memory that is mapped and not touched. `_given`: the stacks of `_size` bytes for which there has been room."""

    def __init__(self, pieces: int) -> None:
        room = kernel.map_room(pieces * _USUAL)
        self._pieces = list(range(room, room + pieces * _USUAL, _USUAL))
        self._given, self._size = _KEPT, _USUAL

    def make(self, size: int) -> None:
        """For one more stack of `size` bytes, unless an ended thread has left one."""
        if size != self._size:
            self._given, self._size = 0, size
        while self._given < threading.active_count() and self._pieces:
            self._given += 1
            for _ in range(0, size, _USUAL):
                if self._pieces:  # pop() is one step: two threads never get the same piece
                    kernel.unmap(self._pieces.pop(), _USUAL)


def starting(start: Callable[..., object], room: Room) -> Callable[..., object]:
    """`start`, with room for the stack. A thread for whose large stack there is no memory gets one of the usual size.

    Few programs use what they ask for: since Python 3.11 a call of a Python function takes nothing of it.
    """

    def start_new_thread(*arguments: object, **named: object) -> object:
        wanted = _thread.stack_size()  # this sets it to the usual size as well
        _thread.stack_size(wanted)
        room.make(wanted or _USUAL)
        try:
            return start(*arguments, **named)
        except RuntimeError:
            if wanted <= _USUAL:
                raise
        _thread.stack_size(0)
        try:
            return start(*arguments, **named)
        finally:
            _thread.stack_size(wanted)

    return start_new_thread

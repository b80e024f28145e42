"""How the zygote forks: without the hooks by which Python's own modules prepare for threads.

At os.fork() threading and logging make new locks in the child, and random takes a new seed. That writes to two hundred
pages, and none of it is needed: the zygote has one thread, which holds no lock, and child.py has the kernel give the
generators a new state. So the zygote calls the C library's fork. It calls os.fork() if a preloaded library has hooks of
its own, or if this was not looked up for the version of Python.

A job that forks calls os.fork(), with all hooks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from runner import kernel

#: Modules whose hooks are not needed.
_KNOWN = frozenset({"threading", "logging", "random", "concurrent.futures.thread"})
_LOOKED_UP = sys.version_info < (3, 12)


#: For a process with one thread that has imported nothing but the runner.
quick_fork: Callable[[], int] = kernel.fork if _LOOKED_UP else os.fork


class Hooks:
    """Notes which modules register hooks. Made before any library is imported."""

    def __init__(self) -> None:
        self._modules: set[str] = set()
        self._register: Callable[..., None] = os.register_at_fork
        setattr(os, "register_at_fork", self._note)  # noqa: B010

    def _note(self, **hooks: Callable[[], object]) -> None:
        self._modules.add(str(sys._getframe(1).f_globals.get("__name__")))  # noqa: SLF001
        self._register(**hooks)

    def fork(self) -> Callable[[], int]:
        """Call it after the libraries are imported. The function by which the zygote forks."""
        setattr(os, "register_at_fork", self._register)  # noqa: B010
        return quick_fork if self._modules <= _KNOWN else os.fork

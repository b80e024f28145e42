"""Landlock rules of a job: what it may reach by path, and whom by signal or abstract socket.

Source: the kernel's Documentation/userspace-api/landlock.rst. A right that the running kernel does not know is left out
of what is handled, so that the rules hold as far as it goes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from runner import kernel

_VERSION = 1
_PATH_BENEATH = 1
_RULE = struct.Struct("=Qi")

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE = 1 << 14
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}  # by ABI; IOCTL_DEV since 5
_ALL_SINCE_5 = (1 << 16) - 1
#: Making device files: nobody may, anywhere.
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_NET_ABI, _NET = 4, 0b11  # bind and connect of TCP
_SCOPE_ABI, _SCOPE = 6, 0b11  # abstract sockets and signals

READ = _READ_FILE | _READ_DIR
RUN = READ | _EXECUTE
DEVICE = _READ_FILE | _WRITE_FILE
WRITE = _ALL_SINCE_5 & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK)
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE


def abi() -> int:
    """Version of the kernel's Landlock; 0 where there is none."""
    try:
        return kernel.call("landlock_create_ruleset", None, 0, _VERSION)
    except OSError:
        return 0


class Ruleset:
    """Laid out once; made by each child while paths can still be opened, applied at its end."""

    def __init__(self, version: int, allowed: Mapping[str, int]) -> None:
        """`allowed`: rights by path, below a directory or for one file; a path that is not there needs no rule."""
        handled = _ALL.get(version, _ALL_SINCE_5)
        net = _NET if version >= _NET_ABI else 0
        scope = _SCOPE if version >= _SCOPE_ABI else 0
        self._attributes = struct.pack("=QQQ", handled, net, scope)
        self._size = 24 if scope else 16 if net else 8
        self._rules = [
            (path, rights & handled if Path(path).is_dir() else rights & handled & _OF_FILES)
            for path, rights in allowed.items()
            if Path(path).exists()
        ]
        self._fd = -1

    def make(self) -> None:
        self._fd = kernel.call("landlock_create_ruleset", self._attributes, self._size, 0)
        for path, rights in self._rules:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            kernel.call("landlock_add_rule", self._fd, _PATH_BENEATH, _RULE.pack(rights, fd), 0)
            os.close(fd)

    def apply(self) -> None:
        """To this thread and all it starts; there is no way back."""
        kernel.call("landlock_restrict_self", self._fd, 0)
        os.close(self._fd)

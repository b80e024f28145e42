"""Run as a program of its own: tries as a user without privileges to make the namespaces that a job gets.

Says nothing when it could, else why not. Making one is not all: where AppArmor restricts them, a process may enter a
user namespace and finds itself there without the capabilities to go on; so the mount namespace is tried as well.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
NOBODY = 65534


def attempt() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    for flag, name in ((CLONE_NEWUSER, "user namespace"), (CLONE_NEWNS, "mount namespace inside of it")):
        if libc.unshare(flag) != 0:
            return f"{name}: {os.strerror(ctypes.get_errno())}"
    return ""


if __name__ == "__main__":
    sys.stdout.write(attempt())

"""What the process of the tests has at a moment, for tests that a call leaves nothing behind; and another interpreter.

Sets and not counts: what an earlier test left in the same process may end while a later test runs, and a count would
then be lower than expected.
"""

import os
import subprocess
import sys
import threading

import psutil


def threads() -> set[threading.Thread]:
    """The running threads."""
    return set(threading.enumerate())


def children() -> set[psutil.Process]:
    """The child processes, those included that ended and were not waited for."""
    return set(psutil.Process().children())


def descriptors() -> set[tuple[str, str]]:
    """The open descriptors, each with what it is open on."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:
            continue  # the descriptor that listed them
    return found


def python(*arguments, timeout=120, check=False, **options):
    """Run this interpreter with these arguments; the ended process, with its output as text."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=check, **options)

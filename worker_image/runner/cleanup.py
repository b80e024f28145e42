"""Removes what a job has left in the worker: processes and files.

Only descendants of the runner are ever signalled, and only the scratch directories that the engine named are emptied,
so the same code is safe where the runner is not PID 1 of its own namespace.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from runner import usage

#: A fork bomb may win some rounds against the sweep. The pids limit bounds it; a worker that needs more is replaced.
_ROUNDS = 50


# ---- processes ----


def descendants(root: int) -> Iterator[int]:
    """Pids below `root`, children before grandchildren."""
    todo = [root]
    while todo:
        found = _children(todo.pop())
        yield from found
        todo.extend(found)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            found.extend(map(int, usage.read_file(f"/proc/{pid}/task/{task}/children").split()))
    return found


def kill_strays(own: Collection[int]) -> str:
    """Kill every descendant except `own`, and reap those that were reparented to us. "" or what could not be killed.

    Where each job has a pid namespace there are none: the kernel has killed them all.
    """
    if _alone_with(own):
        return ""
    for _ in range(_ROUNDS):
        strays = [pid for pid in descendants(os.getpid()) if pid not in own]
        if not strays:
            return ""
        if not all(map(_kill, strays)):
            break
        _reap(strays)
    return f"processes: {len(strays)} would not die"


def _alone_with(own: Collection[int]) -> bool:
    """Whether /proc has no other process. Only where it has none of others: in a worker's own pid namespace.

    This looks at one directory; the walk below opens a file for each thread.
    """
    with contextlib.suppress(OSError):
        others = {*os.listdir("/proc")}.difference(map(str, (1, *own)))  # noqa: PTH208
        return os.getpid() == 1 and not any(map(str.isdigit, others))
    return False


def _kill(pid: int) -> bool:
    """False for a process of another user, which no job can have started."""
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True


def _reap(pids: Sequence[int]) -> None:
    """Reap those that are our own children by now. The zygote reaps its own."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0 if os.getpid() == _parent(pid) else os.WNOHANG)


def _parent(pid: int) -> int:
    try:
        status = usage.read_file(f"/proc/{pid}/stat")
    except OSError:
        return 0
    return int(status.rpartition(b")")[2].split()[1])


# ---- files ----


def empty(directory: Path) -> str:
    """Remove everything in a scratch directory. "" or what could not be removed.

    Directories are flattened and not walked: the children of each are moved up into the root, so that no depth, no path
    length and no name can stop it.
    """
    try:
        moved = 0
        while entries := list(os.scandir(directory)):
            for entry in entries:
                moved = _remove(entry, directory, moved)
    except OSError as error:
        return f"files: {directory} cannot be emptied ({error.strerror})"
    return ""


def _remove(entry: os.DirEntry[str], root: Path, moved: int) -> int:
    if not stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
        os.unlink(entry.path)  # noqa: PTH108 - surrogates in names survive os, and nothing is followed
        return moved
    os.chmod(entry.path, 0o700)  # noqa: PTH101
    for inner in list(os.scandir(entry.path)):
        moved += 1
        if inner.is_dir(follow_symlinks=False):
            os.chmod(inner.path, 0o700)  # noqa: PTH101 - a directory without write permission cannot be moved
        os.rename(inner.path, f"{root}/.{os.getpid()}.{moved}.{os.urandom(4).hex()}")  # noqa: PTH104
    os.rmdir(entry.path)  # noqa: PTH106
    return moved

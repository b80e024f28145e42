"""What a job leaves behind, and its removal: processes and files of this worker that are not the worker's own.

Only descendants of the runner are ever signalled and only the scratch directories that the engine named are emptied,
so that the same code is safe where the runner is not PID 1 of a namespace of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

#: A fork bomb may win a few rounds against a sweep; the pids limit bounds it, and a worker that needs more is replaced.
_ROUNDS = 50


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
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.extend(map(int, (task / "children").read_bytes().split()))
    return found


def kill_strays(own: Collection[int]) -> str:
    """Kill every descendant but `own`, and reap what was reparented to us. Words for what would not go, else "".

    Where each job has a pid namespace there are none: the kernel has killed them all.
    """
    for _ in range(_ROUNDS):
        strays = [pid for pid in descendants(os.getpid()) if pid not in own]
        if not strays:
            return ""
        if not all(map(_kill, strays)):
            break
        _reap(strays)
    return f"processes: {len(strays)} would not die"


def _kill(pid: int) -> bool:
    """False for another user's, which no job can have started."""
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    except ProcessLookupError:
        pass
    return True


def _reap(pids: Sequence[int]) -> None:
    """Those that are our own children by now; the zygote's are the zygote's to reap."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0 if os.getpid() == _parent(pid) else os.WNOHANG)


def _parent(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(status.rpartition(b")")[2].split()[1])


def empty(directory: Path) -> str:
    """Remove all that is in a scratch directory. Words for what would not go, else "".

    Directories are flattened, not walked: the children of each are moved up into the root, so that no depth, no path
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

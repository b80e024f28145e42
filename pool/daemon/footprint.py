"""How much memory a worker takes: what its own cgroup counts as anonymous, or else the sum over its processes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")


def of_worker(pid: int | None, container: str | None) -> int | None:
    """Bytes, or None if it cannot be told. `pid` is its first process."""
    if pid is None:
        return None
    return _of_cgroup(pid, container or "") or _of_processes(pid)


def _of_cgroup(pid: int, container: str) -> int | None:
    """memory.stat of version 2 (`anon`) or 1 (`total_rss`), if the cgroup is that container's own."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
        for _, controllers, path in (line.split(":", 2) for line in lines):
            if container and container in path and controllers in {"", "memory"}:
                name = "anon" if not controllers else "total_rss"
                stat = (_CGROUPS / controllers / path.lstrip("/") / "memory.stat").read_text(encoding="ascii")
                return next(int(line.split()[1]) for line in stat.splitlines() if line.startswith(f"{name} "))
    return None


def _of_processes(pid: int) -> int | None:
    """A page that two processes share counts for both."""
    total = 0
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total or None

"""Data sets: from the files that the daemon has pinned to what every job finds as `datasets["name"]`.

    zygote ──fork──▶ loader   checks each file against its stamp; reads tables with pandas and, if needed, pyarrow
      ◀── the frames of pool.values, or what is wrong ──┘ ends, and its threads and memory end with it
      imports the template's modules, unpacks the tables, maps the arrays ──▶ children, by fork

1. The loader is forked before the zygote has imported a library, so that pandas and pyarrow meet only there. The
   zygote and the jobs get columns of numpy types and of Python text, whatever the file was.
2. An array (.npy) is mapped privately. Its pages are those of the page cache, which all workers share. A page that a
   job writes to is copied for that job. A table is in the zygote's memory, and its pages are copied in the same way.
3. A file that was changed after the daemon computed its digest is not loaded. Size and time of the last change are
   compared: reading all of it again would take most of the start of a worker with large data sets.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple, NoReturn

from pool import values
from runner import channel, kernel

#: Libraries that only loaders import; they are not on the path of a job. See worker_image/assemble.py.
LOADERS = Path("/usr/lib/pool-loaders")
#: More than a worker can hold: the memory limit of the worker comes first.
_MOST_BYTES = 1 << 62
#: Makes pyarrow use one thread where it would use many, and an allocator that has no thread of its own.
_FRUGAL = {"ARROW_DEFAULT_MEMORY_POOL": "system", "ARROW_IO_THREADS": "1", "OMP_NUM_THREADS": "1"}


class DatasetError(Exception):
    """A data set cannot be loaded; the message names it."""


class Source(NamedTuple):
    """One data set, as the daemon names it on the command line: NAME=STAMP=PATH."""

    name: str
    stamp: str  #: size and time of the last change, in bytes and nanoseconds: SIZE-TIME
    path: Path

    @classmethod
    def parse(cls, text: str) -> Source:
        name, stamp, path = text.split("=", 2)
        return cls(name, stamp, Path(path))


#: The frames of each table; none for an array.
Fetched = dict[Source, list[bytearray]]


def fetch(sources: Sequence[Source]) -> Fetched:
    """Check all files and read the tables in another process. Raises DatasetError.

    Call it before any library is imported in this process.
    """
    if not sources:
        return {}
    ours, theirs = socket.socketpair()
    with ours:
        pid = os.fork()
        if pid == 0:
            ours.close()
            _load_all(theirs, sources)
        theirs.close()
        try:
            tables = channel.trusting(ours)
            return {source: _receive(tables, source, pid) for source in sources}
        finally:
            _end(pid)


def unpack(fetched: Fetched) -> Mapping[str, object]:
    """What jobs see. Raises DatasetError. Empties `fetched`, so that only frames which arrays use stay in memory."""
    return MappingProxyType(_Named({source.name: _unpack(source, fetched.pop(source)) for source in list(fetched)}))


class _Named(dict[str, object]):
    """A dict whose KeyError says which data sets there are."""

    def __missing__(self, name: object) -> NoReturn:
        known = ", ".join(self) or "none; name them under preload.datasets. The local engine has none: give arguments"
        raise KeyError(f"there is no data set {name!r:.80} in this pool; there are: {known}")


# ---- the zygote's side ----


def _receive(tables: channel.Collector, source: Source, pid: int) -> list[bytearray]:
    try:
        complaint, *frames = tables.wait()
    except EOFError:
        raise DatasetError(f"data set {source.name!r}: {_how_it_ended(pid)}") from None
    if complaint:
        raise DatasetError(f"data set {source.name!r}: {complaint.decode()}")
    return frames


def _how_it_ended(pid: int) -> str:
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    if ended is not None and ended.si_code != os.CLD_EXITED and ended.si_status == signal.SIGKILL:
        return "the memory of the worker was not enough to load it; raise limits.memory, or keep it as .npy"
    return f"its loader died (code {ended.si_code}, status {ended.si_status})" if ended is not None else "it died"


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)  # it has sent everything, or the rest is not needed
    os.waitpid(pid, 0)


def _unpack(source: Source, frames: list[bytearray]) -> object:
    try:
        return values.decode(frames) if frames else _map_array(source.path)
    except Exception as error:
        raise DatasetError(f"data set {source.name!r}: {error}") from error


def _map_array(path: Path) -> object:
    import numpy as np

    return np.asarray(np.lib.format.open_memmap(path, mode="c"))


# ---- the loader's side ----


def _load_all(sock: socket.socket, sources: Sequence[Source]) -> NoReturn:
    try:
        kernel.die_with_parent()
        _be_killed_first()
        os.environ.update(_FRUGAL)
        if any(source.path.suffix in _WITH_ARROW for source in sources):
            sys.path.append(str(LOADERS))
        for source in sources:
            channel.send(sock, _load(source))
        sock.recv(1)  # until the zygote kills this process
    finally:
        os._exit(0)


def _be_killed_first() -> None:
    """When the worker's memory is not enough, the kernel kills this process, and the zygote can report it."""
    kernel.set_dumpable(True)  # otherwise its files in /proc belong to root
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _load(source: Source) -> list[bytes | memoryview]:
    """[b"", *frames of the table], [b""] for an array, or [what is wrong]."""
    try:
        _check(source)
        loader = _TABLES.get(source.path.suffix)
        table = values.encode(loader(source.path), max_bytes=_MOST_BYTES) if loader is not None else []
    except MemoryError:
        return [b"the memory of the worker was not enough to load it; raise limits.memory, or keep it as .npy"]
    except Exception as error:  # noqa: BLE001 - a library may raise anything for a damaged file
        return [f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:1500]]
    return [b"", *table]


def _check(source: Source) -> None:
    found = source.path.stat()
    if f"{found.st_size}-{found.st_mtime_ns}" != source.stamp:
        raise DatasetError("the daemon's copy of its file was changed after it was pinned; restart the daemon")


def _read_csv(path: Path) -> object:
    return _pandas().read_csv(path)


def _read_parquet(path: Path) -> object:
    return _pandas().read_parquet(path, engine="pyarrow", use_threads=False)


def _read_feather(path: Path) -> object:
    return _pandas().read_feather(path, use_threads=False)


def _pandas() -> ModuleType:
    import pandas as pd

    pd.options.mode.string_storage = "python"  # as in the zygote, which has no pyarrow
    return pd


_TABLES: Mapping[str, Callable[[Path], object]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".feather": _read_feather,
}
_WITH_ARROW = frozenset({".parquet", ".feather"})

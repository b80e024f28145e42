"""Records calls of Python functions in this process and all that it forks. Standard library only: the runner loads it.

The calls go to a shared mapping of a file, one region for each process, because a job's process closes every descriptor.
"""

import json
import mmap
import os
import sys
import time
from pathlib import Path

REGION_BYTES, REGIONS = 1 << 20, 128
#: A comprehension belongs to the function that it stands in; a module's body is no function.
_INNER = frozenset({"<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<module>"})


class Recorder:
    """`roots` are directories, by the name that their files are given: {"/x/pool": "pool"}."""

    def __init__(self, path: Path, roots: dict[str, str]) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), REGION_BYTES * REGIONS)
        self._roots = {f"{Path(root).resolve()}/": name for root, name in roots.items()}
        self._names: dict[object, tuple[str, ...]] = {}
        self._pid = 0
        self._at = self._end = 0

    def __call__(self, frame, event, _argument):
        if event != "call":
            return
        code = frame.f_code
        name = self._names.get(code)
        if name is None:
            name = self._names[code] = name_of(code, self._roots)
        if name:
            self._write(f"{time.monotonic_ns()} {name[0]} {name[1]}{_message(frame)}\n".encode())

    def _write(self, line):
        if os.getpid() != self._pid:
            self._begin_region()
        if self._at + len(line) <= self._end:
            self._map[self._at : self._at + len(line)] = line
            self._at += len(line)

    def _begin_region(self):
        """The first byte of the file counts the regions that are taken."""
        self._pid = os.getpid()
        self._map[0] += 1
        self._at = self._map[0] * REGION_BYTES
        self._end = min(self._at + REGION_BYTES, len(self._map))


def name_of(code, roots):
    """(file, function) of a function of the project, else an empty tuple."""
    if code.co_name not in _INNER:
        for root, name in roots.items():
            if code.co_filename.startswith(root):
                return f"{name}/{code.co_filename.removeprefix(root)}", code.co_qualname
    return ()


def _message(frame):
    """The type of the message that is encoded or decoded, to find the end of the worker's part."""
    if frame.f_code.co_name != "encode" or "message" not in frame.f_locals:
        return ""
    return f" {type(frame.f_locals['message']).__name__}"


def install(options: str) -> None:
    """From now on, in this thread and in processes that are forked. `options`: JSON of the recorder's arguments."""
    path, roots = json.loads(options)
    recorder, set_profile = Recorder(Path(path), roots), sys.setprofile
    set_profile(recorder)
    # The runner takes the profiler off before it runs a job; what it does after the job is to be seen as well.
    sys.setprofile = lambda _: set_profile(recorder)


def make_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(REGION_BYTES * REGIONS)


def read(path: Path) -> list[list[tuple[int, str, str, str]]]:
    """The calls of each process: (monotonic ns, file, function, message type or "")."""
    data = path.read_bytes()
    regions = []
    for number in range(1, data[0] + 1):
        text = data[number * REGION_BYTES : (number + 1) * REGION_BYTES].rstrip(b"\0").decode()
        rows = [line.split(" ") for line in text.splitlines()]
        regions.append([(int(row[0]), row[1], row[2], row[3] if len(row) > 3 else "") for row in rows])
    return regions

"""The helper process of `Client(decode="process")`: decodes what a job made, under limits, and encodes it again.

It first imports all modules that values need. Then it cannot open files or sockets, because RLIMIT_NOFILE is 0. It
keeps only the socket to its parent and the memory that they share. It ends when the socket is closed.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import resource
import socket
import sys
import zoneinfo
from collections.abc import Sequence

import msgspec

from pool import values
from pool.client.decoder import MEMORY_BYTES, MEMORY_PER_BYTE, Reply, Request, most_bytes, write
from pool.errors import ValueCodecError
from pool.wire import MAX_FRAME_BYTES

_to_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
#: A request names up to 1026 sizes.
MAX_REQUEST_BYTES = 65_536


def main() -> None:
    """Arguments: sys.path (already applied), and three descriptors."""
    link, given, made = map(int, sys.argv[2:])
    with socket.socket(fileno=link) as maker:
        kept = _preload()
        base = _close_the_world()
        maker.send(b"ready")
        while message := maker.recv(MAX_REQUEST_BYTES):
            request = _to_request.decode(message)
            _limit(request, base)
            maker.send(msgspec.msgpack.encode(_serve(request, given, made)))
        del kept


def _preload() -> list[object]:
    """Import everything that `values.decode` may import later, because the limits would prevent that."""
    for library in ("numpy", "pandas", "pytz"):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    values.decode(values.encode(_samples(), max_bytes=1 << 20))
    kept: list[object] = []
    for name in sorted(zoneinfo.available_timezones()):
        with contextlib.suppress(Exception):  # a file that is not a zone
            kept.append(zoneinfo.ZoneInfo(name))
        if "pytz" in sys.modules:
            with contextlib.suppress(Exception):
                kept.append(sys.modules["pytz"].timezone(name))
    return kept


def _samples() -> list[object]:
    """A value of each library, because libraries load parts of themselves at first use."""
    samples: list[object] = []
    if "numpy" in sys.modules:
        import numpy as np

        samples += [np.arange(3), np.array(["2026-01-01"], "M8[s]"), np.float64(1)]
    if "pandas" in sys.modules:
        import pandas as pd

        index = pd.date_range("2026-01-01", periods=3, tz="UTC")
        samples += [pd.DataFrame({"a": [1.0, 2, 3], "b": pd.Categorical(["x", "y", "x"])}, index=index)]
        samples += [pd.Series(["x", None], dtype="string"), pd.Series(pd.period_range("2026", periods=2, freq="D"))]
        samples += [pd.Series([1, None], dtype="Int64"), pd.Timestamp("2026-01-01", tz="UTC"), pd.Timedelta(1)]
        samples += [pd.IntervalIndex.from_breaks([0, 1, 2])]
    return samples


def _close_the_world() -> int:
    """Give up all rights that decoding does not need. Returns the present size of the address space."""
    for fd in (0, 1, 2):
        os.close(fd)
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - one of the last files
        base = int(file.read().split()[0]) * resource.getpagesize()
    most = MEMORY_BYTES + 2 * MEMORY_PER_BYTE * MAX_FRAME_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (base + most, base + most))
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    return base


def _limit(request: Request, base: int) -> None:
    _, highest = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (min(base + request.memory, highest), highest))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + request.cpu_s)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def _serve(request: Request, given: int, made: int) -> Reply:
    try:
        frames = _read(request.sizes, given)
        head, *buffers = values.encode(values.decode(frames), max_bytes=most_bytes(sum(request.sizes)))
    except ValueCodecError as error:
        return Reply(error=error.message[:1000])
    except MemoryError:
        return Reply(error=f"decoding the value takes more than {request.memory} bytes of memory")
    places = {_address(frame): number for number, frame in enumerate(frames) if number}
    numbers, at = [], 0
    for buffer in (head, *buffers):
        number = places.get(_address(buffer), 0)  # arrays are decoded in place, if they can be
        if number and len(frames[number]) == len(buffer):
            numbers.append(number)
        else:
            write(made, buffer, at)
            at += len(buffer)
            numbers.append(-len(buffer))
    return Reply(head=-numbers[0], buffers=numbers[1:])


def _read(sizes: Sequence[int], given: int) -> list[bytearray]:
    frames, at = [], 0
    for size in sizes:
        frame = bytearray(size)
        os.preadv(given, [frame], at)
        frames.append(frame)
        at += size
    return frames


def _address(buffer: bytes | bytearray | memoryview) -> int:
    np = sys.modules.get("numpy")
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]) if np and len(buffer) else 0

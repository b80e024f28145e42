"""The warm-up: small jobs of our own that take the same path through the code as a real job.

The zygote runs them all until the interpreter has specialised the byte code and the libraries have imported what they
import late; its children inherit that. A parked child runs them once when its worker has been free for a while, so that
the pages which a job writes to are copied before a job comes: copying a page takes ten times as long as the work on it.
Beside a job that does not take long no child does that, for it would cost each job more than it saves.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Iterator

import msgspec
from msgspec import structs

from pool import screen, values, wire
from pool.outcome import Outcome
from runner.answer import Setting, answer
from runner.channel import Answer, Frame
from runner.fault import FILENAME

#: CPython 3.11 specialises a function's byte code at its eighth call. A few more rounds do no harm.
ZYGOTE_ROUNDS = 12

_JOBS = {
    "": b"def main(x):\n    return {'x': [x, 1.5, 'text']}\n",
    "numpy": b"""
import numpy as np
def main(x):
    return float(np.cumsum(np.arange(64.0) * x).std())
""",
    "pandas": b"""
import numpy as np, pandas as pd
def main(x):
    frame = pd.DataFrame({"a": np.arange(64.0), "b": np.arange(64.0)})
    return float((frame["a"].rolling(5).mean() > frame["b"]).sum())
""",
    "pandas.core": b"""
import numpy as np, pandas as pd
def main(x):
    frame = pd.DataFrame({"a": np.arange(64.0), "b": np.arange(64.0)})
    mean = frame["a"].rolling(5).mean().shift(1).fillna(0.0)
    held = pd.Series(np.where(mean > frame["b"].ewm(span=5).mean(), 1.0, 0.0))
    change = frame["a"].pct_change().replace(np.inf, 0.0).fillna(0.0)
    returns = held * change - 0.1 * held.diff().abs().fillna(0.0)
    return float((1 + returns).cumprod().iloc[-1]), int((held > 0).sum())
""",
}
_RUN = wire.Run(
    job_id="warm-up",
    epoch=0,
    wall_s=1,
    cpu_s=1,
    memory=1,
    tmp=1,
    output=1,
    result=65536,
    processes=1,
    entry="main",
    screened=False,
)


_NO_FILES = "/nonexistent"


class WarmUpError(Exception):
    """The image cannot run a job."""


def parts() -> list[str]:
    """The warm-ups for what is imported: "" for plain Python, then the names of libraries."""
    return [library for library in _JOBS if not library or library in sys.modules]


def job(*, tmp: int) -> list[Frame]:
    """The frames of a job in plain Python. `tmp`: its scratch space, in bytes."""
    header = msgspec.msgpack.encode(structs.replace(_RUN, tmp=tmp))
    return [header, _JOBS[""], b"", b"", *_arguments()]


def _arguments() -> list[Frame]:
    return [bytes(frame) for frame in values.encode([[1], {}], max_bytes=4096)]


@contextlib.contextmanager
def without_traces() -> Iterator[None]:
    """What a warm-up leaves in sys.modules and in linecache is removed."""
    main, cached = sys.modules.get("__main__"), dict(linecache.cache)
    yield
    linecache.cache.clear()
    linecache.cache.update(cached)
    sys.modules.pop("job", None)
    if main is not None:
        sys.modules["__main__"] = sys.modules["__mp_main__"] = main


def run(part: str, setting: Setting) -> None:
    """Screen and run one warm-up. Raises WarmUpError with its error."""
    # Where children share the scratch directory, files of the last job may still be in it: they are not the warm-up's.
    setting = structs.replace(setting, output=_NO_FILES)
    screen.examine(_JOBS[part], setting.policy, filename=FILENAME)
    with without_traces():
        frames = answer(_RUN, _JOBS[part], _arguments(), setting)
    found = Answer.of(frames)
    if found is None or found.outcome is not Outcome.OK:
        fault = wire.decode_fault(frames[1])
        raise WarmUpError(f"the warm-up with {part or 'plain Python'} failed: {fault.type}: {fault.message}")

"""A job of our own that walks the path of every job, with the libraries that the template preloads.

The zygote runs all of it until the interpreter has specialised the code and the libraries have loaded what they load
late: the children find that done. Each child runs it once, so that the pages a job writes to are its own by the time a
job comes: a page that is copied on a write costs ten times what the work on it does. The plain part comes before the
child parks; the libraries' parts come after, one by one, as long as no job is waiting.
"""

from __future__ import annotations

import sys

from pool import screen, values, wire
from pool.model import Outcome
from runner import report
from runner.execution import Setting, execute
from runner.fault import FILENAME

#: CPython 3.11 specialises a function's byte code at its eighth call; a few more settle the rest.
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
_LIMITS = wire.Run(
    job_id="rehearsal",
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


class RehearsalError(Exception):
    """The image cannot run a job."""


def parts() -> list[str]:
    """What there is to rehearse: "" for plain Python, then by the libraries that are imported."""
    return [library for library in _JOBS if not library or library in sys.modules]


def rehearse(part: str, setting: Setting) -> None:
    """Have one part screened, whatever comes of it, and run it. Raises RehearsalError with the job's own error."""
    screen.examine(_JOBS[part], setting.policy, filename=FILENAME)
    arguments = [bytes(frame) for frame in values.encode(((1,), {}), max_bytes=4096)]
    frames = execute(_LIMITS, _JOBS[part], arguments, setting)
    sys.modules.pop("job", None)
    claim = report.unpack(bytes(frames[0]))
    if claim is None or claim.outcome is not Outcome.OK:
        fault = wire.decode_fault(frames[1])
        raise RehearsalError(f"the rehearsal with {part or 'plain Python'} failed: {fault.type}: {fault.message}")

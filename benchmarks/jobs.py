"""The two jobs that every way of running code is measured with, and how each way is asked to run one.

Each job is a source text with a `main`, as a loop would send it; every way compiles it anew, as it has to for code it
has not seen before.
"""

import importlib
from dataclasses import dataclass

_NOOP = """
def main():
    return 1.0
"""

_PANDAS = """
import numpy as np
import pandas as pd

def main():
    day = np.arange(2000)
    frame = pd.DataFrame({"close": 100 + 10 * np.sin(day / 40) + 3 * np.sin(day / 7)})
    frame["fast"] = frame["close"].rolling(10).mean()
    frame["slow"] = frame["close"].rolling(50).mean()
    held = (frame["fast"] > frame["slow"]).astype(float).shift(1).fillna(0.0)
    returns = held * frame["close"].pct_change().fillna(0.0)
    return float(returns.mean() / returns.std() * 252**0.5)
"""


@dataclass(frozen=True, slots=True)
class BenchJob:
    name: str
    source: str

    @property
    def script(self) -> str:
        """The job as a program of its own."""
        return f"{self.source}\nprint(main())\n"


JOBS = (BenchJob("no-op", _NOOP), BenchJob("pandas", _PANDAS))


def call(source: str) -> float:
    """Compile and run a job here; also what the processes of the executor do."""
    names: dict[str, object] = {"__name__": "job"}
    exec(compile(source, "job", "exec"), names)
    main = names["main"]
    if not callable(main):
        raise TypeError("the job has no main")
    return float(main())


def preload() -> None:
    """What a warm process has imported before its first job; the same as the workers' template."""
    for name in ("numpy", "pandas"):
        importlib.import_module(name)

"""One strategy, three ways, measured here and now: in this process, as a job in the pool, by a fresh `docker run`.

All three run the same text on the same file. The container of `docker run` starts from the worker's own image with
Python as its program, without network and with the prices mounted read-only, and has to import what the strategy
imports; that is what each job costs without a pool. The first run of each way is not counted.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples import prices
from examples.backtest import GRADER
from examples.evaluation import Run, Score, read_score

QUICK_RUNS = 20
DOCKER_RUNS = 5
DOCKER_TIMEOUT_S = 120
PYTHON_IN_IMAGE = "/usr/bin/python3"
PRICES_IN_WORKER = "/datasets/prices.npy"
NO_PRICES = "this process has no prices (give --prices FILE, the one the daemon was given)"

#: Runs the strategy once.
Once = Callable[[], Score | None]

_BEFORE = f"""import json
import numpy
datasets = {{"prices": numpy.load("{PRICES_IN_WORKER}", allow_pickle=False)}}
"""


class ComparisonError(Exception):
    """This way of running a strategy is not available here; the text says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    way: str
    runs: int
    median_ms: float
    score: Score | None


@dataclass(frozen=True, slots=True)
class Comparison:
    measured: tuple[Measured, ...]
    left_out: tuple[str, ...]  #: a sentence for each way that could not be measured

    def median_ms(self, way: str) -> float | None:
        return next((each.median_ms for each in self.measured if each.way == way), None)

    @property
    def times_cheaper(self) -> float | None:
        """How many pool jobs one `docker run` pays for."""
        docker_ms, pool_ms = self.median_ms("docker run"), self.median_ms("pool")
        return docker_ms / pool_ms if docker_ms and pool_ms else None

    @property
    def agree(self) -> bool:
        """True if all ways have the same metrics (compared as printed: libraries differ in the last digits)."""
        return len({str(_rounded(each.score)) for each in self.measured}) <= 1


def compare(source: str, split: float, run: Run, *, prices_file: Path | None, image: str) -> Comparison:
    measured, left_out = [], []
    with tempfile.TemporaryDirectory(prefix="strategy-") as scratch:
        ways: dict[str, tuple[int, Callable[[], Once]]] = {
            "in-process": (QUICK_RUNS, lambda: in_process(source, split, prices_file)),
            "pool": (QUICK_RUNS, lambda: lambda: read_score(run(source).grade)),
            "docker run": (
                DOCKER_RUNS,
                lambda: docker_run(source, split, prices_file, image=image, scratch=Path(scratch)),
            ),
        }
        for way, (runs, prepare) in ways.items():
            try:
                measured.append(measure(way, runs, prepare()))
            except ComparisonError as error:
                left_out.append(f"{way} is left out: {error}")
    return Comparison(tuple(measured), tuple(left_out))


def measure(way: str, runs: int, once: Once) -> Measured:
    score = once()
    taken_ms = []
    for _ in range(runs):
        started_s = time.perf_counter()
        once()
        taken_ms.append((time.perf_counter() - started_s) * 1000)
    return Measured(way, runs, statistics.median(taken_ms), score)


def in_process(source: str, split: float, prices_file: Path | None) -> Once:
    """Compile and run the text in this process: for a strategy that has been through the pool, and only for that."""
    if prices_file is None:
        raise ComparisonError(NO_PRICES)
    loaded = prices.load(prices_file)

    def once() -> Score | None:
        main, grade = (_function(text, name, loaded) for text, name in ((source, "main"), (GRADER, "grade")))
        return read_score(grade(main(), split))

    return once


def _function(source: str, name: str, loaded: object) -> Callable[..., object]:
    names: dict[str, Any] = {"__name__": "strategy", "datasets": {"prices": loaded}}
    exec(compile(source, "strategy", "exec"), names)  # noqa: S102 - the point of the comparison
    function: Callable[..., object] = names[name]
    return function


def docker_run(source: str, split: float, prices_file: Path | None, *, image: str, scratch: Path) -> Once:
    if prices_file is None:
        raise ComparisonError(NO_PRICES)
    if shutil.which("docker") is None:
        raise ComparisonError("there is no docker client on this machine")
    script = scratch / "strategy.py"
    script.write_text(f"{_BEFORE}{source}\n{GRADER}\nprint(json.dumps(grade(main(), {split})))\n", encoding="utf-8")
    script.chmod(0o644)
    command = ["docker", "run", "--rm", "--pull", "never", "--network", "none", "--entrypoint", PYTHON_IN_IMAGE]
    command += ["--volume", f"{script}:/strategy.py:ro", "--volume", f"{prices_file.resolve()}:{PRICES_IN_WORKER}:ro"]
    command += [image, "/strategy.py"]

    def once() -> Score | None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOCKER_TIMEOUT_S, check=True)
        except subprocess.TimeoutExpired:
            raise ComparisonError(f"it did not end within {DOCKER_TIMEOUT_S} s") from None
        except subprocess.CalledProcessError as error:
            said = [line for line in error.stderr.splitlines() if "rror" in line] or [error.stderr.strip()]
            raise ComparisonError(f"it ended with status {error.returncode} ({said[-1]:.200})") from None
        return read_score(json.loads(done.stdout))

    return once


def _rounded(score: Score | None) -> object:
    if score is None:
        return None
    return [
        (round(each.sharpe, 6), round(each.cagr, 6), round(each.max_drawdown, 6), each.trades)
        for each in (score.in_sample, score.out_of_sample)
    ]

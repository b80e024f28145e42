"""`./dev fuzz [TARGET...] [--inputs N]`: runs the targets, two at a time, and prints what came of them.

What a target has found stays in .cache/fuzz/TARGET: the next run goes on from there.
"""

import argparse
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from tests.fuzz.place import HOME, ROOT, settle
from tests.fuzz.target import NAMES, load

_TOGETHER = 2
_LOG_LINES = 40


class Outcome(NamedTuple):
    name: str
    status: int
    figures: dict[str, float]
    coverage: str
    reproducers: list[Path]


def _run(name: str, inputs: int, commands: Callable[[str, int, Path], list[list[str]]]) -> Outcome:
    directory = HOME / name
    (directory / "corpus").mkdir(parents=True, exist_ok=True)
    for old in directory.glob("figures*"):
        old.unlink()
    known = set(_reproducers(directory))
    with (directory / "log").open("ab") as out:
        out.truncate(0)
        running = [
            subprocess.Popen([sys.executable, "-m", *command], stdout=out, stderr=out, cwd=ROOT)
            for command in commands(name, inputs or load(name).inputs, directory)
        ]
        statuses = [process.wait() for process in running]
    outcome = _outcome(name, next(filter(None, statuses), 0), directory, known)
    _say(outcome)
    return outcome


def _with_coverage(name: str, inputs: int, directory: Path) -> list[list[str]]:
    return [["tests.fuzz.engine", name, str(inputs), str(directory)]]


def _forked(name: str, inputs: int, directory: Path, *, jobs: int) -> list[list[str]]:
    """A process with a seed of its own for each share of the inputs."""
    shares = [inputs // jobs + (seed < inputs % jobs) for seed in range(jobs)]
    return [["tests.fuzz.forked", name, str(share), str(directory), str(seed)] for seed, share in enumerate(shares)]


def _reproducers(directory: Path) -> list[Path]:
    """Written by libFuzzer, the newest last."""
    found = [
        path
        for kind in ("crash-*", "hang-*", "broke-*", "timeout-*", "oom-*", "leak-*")
        for path in directory.glob(kind)
    ]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def _outcome(name: str, status: int, directory: Path, known: set[Path]) -> Outcome:
    told = total([json.loads(path.read_text()) for path in directory.glob("figures*")])
    reached = re.findall(r"cov: (\d+)", (directory / "log").read_text(errors="replace"))
    new = [path for path in _reproducers(directory) if path not in known]
    return Outcome(name, status, told, reached[-1] if reached else "-", new or _reproducers(directory)[-1:])


def total(figures: list[dict[str, float]]) -> dict[str, float]:
    """The figures of processes that ran together."""
    counted, keys = {"inputs", "cpu_s", "kinds", "findings"}, dict.fromkeys(chain.from_iterable(figures))
    return {key: (sum if key in counted else max)(each[key] for each in figures) for key in keys}


def _say(outcome: Outcome) -> None:
    if outcome.status == 0:
        facts = zip(_COLUMNS[1:], _cells(outcome)[1:], strict=True)
        print(f"    {outcome.name}: " + ", ".join(f"{title} {value}" for title, value in facts), flush=True)
        return
    log = HOME / outcome.name / "log"
    print(*log.read_text(errors="replace").splitlines()[-_LOG_LINES:], sep="\n", file=sys.stderr)
    place = " ".join(str(path.relative_to(ROOT)) for path in outcome.reproducers) or log.relative_to(ROOT)
    how = f"status {outcome.status}" if outcome.status >= 0 else signal.Signals(-outcome.status).name
    print(f"    {outcome.name}: FAILED ({how}); the input: {place}", file=sys.stderr, flush=True)


_COLUMNS = (
    "target", "inputs", "time", "CPU", "inputs/s of CPU", "edges", "slowest input", "memory for one", "peak RSS",
)  # fmt: skip


def _cells(outcome: Outcome) -> list[str]:
    told = outcome.figures
    if not told:
        return [outcome.name, *["-"] * (len(_COLUMNS) - 1)]
    return [
        outcome.name, f"{told['inputs']:,}", f"{told['seconds']:.0f} s", f"{told['cpu_s']:.0f} s",
        f"{told['inputs'] / max(told['cpu_s'], 0.01):,.0f}", outcome.coverage, f"{told['slowest_ms']:.0f} ms",
        f"{told['most_bytes'] / 1024:,.0f} KiB", f"{told['peak_rss'] / 1024**2:.0f} MiB",
    ]  # fmt: skip


def _table(outcomes: list[Outcome], seconds: float) -> None:
    table = Table(*_COLUMNS, "contract", box=box.MARKDOWN)
    for outcome in outcomes:
        table.add_row(*_cells(outcome), load(outcome.name).contract if outcome.status == 0 else "BROKEN")
    Console(width=220).print(table)
    total = sum(int(outcome.figures.get("inputs", 0)) for outcome in outcomes)
    print(f"{total:,} inputs in {seconds:.0f} s; {sum(outcome.status != 0 for outcome in outcomes)} contracts broken")


def _repeat(path: Path) -> None:
    """One input again, without atheris: raises what it raises."""
    from tests.fuzz.watch import Watch

    print(Watch(load(path.resolve().parent.name)).run(path.read_bytes()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="Runs fuzzers over what reads foreign bytes.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(NAMES)}; or none, for all")
    parser.add_argument(
        "--inputs", type=int, default=0, metavar="N", help="for each target; else over a million in all"
    )
    parser.add_argument("--no-coverage", action="store_true", help="without atheris, in a child that may crash")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="run this input of .cache/fuzz/TARGET again")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="with --no-coverage: processes for a target")
    given = parser.parse_args()
    unknown = set(given.targets) - set(NAMES)
    if unknown or given.inputs < 0:
        parser.error(f"there is no target {', '.join(sorted(unknown))}" if unknown else "--inputs is a count")
    if given.jobs < 1 or (given.jobs > 1 and not given.no_coverage):
        parser.error("--jobs is a count, and goes with --no-coverage")
    if given.repeat is not None and not (given.repeat.is_file() and given.repeat.resolve().parent.name in NAMES):
        parser.error("--repeat takes a file in a directory that has the name of its target")
    return given


def main() -> int:
    given = _arguments()
    if given.repeat is not None:
        _repeat(given.repeat)
        return 0
    commands = partial(_forked, jobs=given.jobs) if given.no_coverage else _with_coverage
    if not given.no_coverage and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed; run ./dev fuzz, which installs it", file=sys.stderr)
        return 1
    started = time.monotonic()
    names = [name for name in NAMES if name in given.targets or not given.targets]
    with ThreadPoolExecutor(_TOGETHER) as pool:
        try:
            outcomes = list(pool.map(lambda name: _run(name, given.inputs, commands), names))
        except KeyboardInterrupt:  # the engines have it too
            pool.shutdown(cancel_futures=True)
            return 130
    _table(outcomes, time.monotonic() - started)
    return int(any(outcome.status for outcome in outcomes))


if __name__ == "__main__":
    settle("tests.fuzz")
    sys.exit(main())

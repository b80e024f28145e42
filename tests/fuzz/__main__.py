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
from concurrent.futures import ThreadPoolExecutor
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


def _run(name: str, inputs: int) -> Outcome:
    directory = HOME / name
    (directory / "corpus").mkdir(parents=True, exist_ok=True)
    (directory / "figures").unlink(missing_ok=True)
    known = set(_reproducers(directory))
    command = [sys.executable, "-m", "tests.fuzz.engine", name, str(inputs or load(name).inputs), str(directory)]
    with (directory / "log").open("wb") as out:
        status = subprocess.run(command, stdout=out, stderr=out, cwd=ROOT, check=False).returncode
    outcome = _outcome(name, status, directory, known)
    _say(outcome)
    return outcome


def _reproducers(directory: Path) -> list[Path]:
    """Written by libFuzzer, the newest last."""
    found = [path for kind in ("crash-*", "timeout-*", "oom-*", "leak-*") for path in directory.glob(kind)]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def _outcome(name: str, status: int, directory: Path, known: set[Path]) -> Outcome:
    figures = directory / "figures"
    told = json.loads(figures.read_text()) if figures.exists() else {}
    reached = re.findall(r"cov: (\d+)", (directory / "log").read_text(errors="replace"))
    new = [path for path in _reproducers(directory) if path not in known]
    return Outcome(name, status, told, reached[-1] if reached else "-", new or _reproducers(directory)[-1:])


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
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="run this input of .cache/fuzz/TARGET again")
    given = parser.parse_args()
    unknown = set(given.targets) - set(NAMES)
    if unknown or given.inputs < 0:
        parser.error(f"there is no target {', '.join(sorted(unknown))}" if unknown else "--inputs is a count")
    if given.repeat is not None and not (given.repeat.is_file() and given.repeat.resolve().parent.name in NAMES):
        parser.error("--repeat takes a file in a directory that has the name of its target")
    return given


def main() -> int:
    given = _arguments()
    if given.repeat is not None:
        _repeat(given.repeat)
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed; run ./dev fuzz, which installs it", file=sys.stderr)
        return 1
    started = time.monotonic()
    names = [name for name in NAMES if name in given.targets or not given.targets]
    with ThreadPoolExecutor(_TOGETHER) as pool:
        try:
            outcomes = list(pool.map(lambda name: _run(name, given.inputs), names))
        except KeyboardInterrupt:  # the engines have it too
            pool.shutdown(cancel_futures=True)
            return 130
    _table(outcomes, time.monotonic() - started)
    return int(any(outcome.status for outcome in outcomes))


if __name__ == "__main__":
    settle("tests.fuzz")
    sys.exit(main())

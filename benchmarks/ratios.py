"""The ratios of a benchmark run, against the bounds of baseline.json or against the ratios of an earlier run.

    python -m benchmarks.ratios [--check] [--compare SAVED.json] [--quick]

`./dev bench` calls it after the measurements. It writes the ratios to results/ratios.json, the form of --compare.
A ratio is of two figures of one run, so that a faster or busier machine changes both. Most are "other way / pool" of
the medians: how many times cheaper the pool is. Exit status 1: a ratio is beyond its bound or has no figure.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import BASE, LATEST, SUSTAINED, ReportError, Row, as_text, find, read

HERE = Path(__file__).parent
BASELINE = HERE / "baseline.json"
FLOOR = HERE / "results" / "floor.json"
RATIOS = HERE / "results" / "ratios.json"

OTHERS = (BASE, "subprocess", "process pool")
POOLS = ("pool, max_jobs 1", "pool, max_jobs 100", "5 ms apart, max_jobs 100", "back to back, max_jobs 100")
#: Against another run: a ratio that got worse by more than this has fallen. Two runs of one version differ by up to a
#: third on a machine with two cores and other work.
WORSE = 1.5
HEAD = ("ratio", "before", "now", "judgement")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a ratio must keep: at least `least`, or at most `most`. Exactly one of them is not None."""

    ratio: str
    least: float | None
    most: float | None

    def __str__(self) -> str:
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"

    def kept(self, value: float) -> bool:
        return value >= self.least if self.least is not None else self.most is not None and value <= self.most


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of one ratio. `fell`: it is worse than it may be, or it has no figure although it must have one."""

    ratio: str
    before: str
    now: str
    said: str
    fell: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        return self.ratio, self.before, self.now, self.said


# ---- the ratios of a run ----


def of_rows(rows: Sequence[Row]) -> dict[str, float]:
    """By name. A way that was not measured has no ratios."""
    found = {}
    for job in dict.fromkeys(row.group for row in rows if row.group != SUSTAINED):
        for other in OTHERS:
            for pool in POOLS:
                one, two = find(rows, job, other), find(rows, job, pool)
                if one is not None and two is not None:
                    found[f"{job}: {other} / {pool}"] = one.median_ms / two.median_ms
    return found


def of_floor(path: Path) -> dict[str, float]:
    """What `python -m benchmarks.floor --json` wrote; nothing if it was not run."""
    return read_ratios(path) if path.exists() else {}


def read_ratios(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["ratios"]
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path} has no ratios of a benchmark run ({type(error).__name__}: {error})") from None


def write_ratios(path: Path, ratios: Mapping[str, float]) -> None:
    rounded = {name: round(value, 3) for name, value in ratios.items()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"ratios": rounded}, indent=1) + "\n", encoding="utf-8")


# ---- judgements ----


def read_bounds(path: Path) -> list[Bound]:
    """Raises ReportError for a file that is not like baseline.json."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["bounds"]
        bounds = [Bound(row["ratio"], row.get("least"), row.get("most")) for row in rows]
        unclear = [row["ratio"] for row in rows if (("least" in row) == ("most" in row)) or not row["why"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path} is not a baseline ({type(error).__name__}: {error})") from None
    if unclear:
        raise ReportError(f"{path}: {unclear[0]!r} needs either least or most, and a reason in why")
    return bounds


def check(ratios: Mapping[str, float], bounds: Sequence[Bound], *, quick: bool) -> list[Judgement]:
    """One judgement a bound. `quick`: a bound against `docker run` or the fork loop may have no figure."""
    return [_checked(bound, ratios.get(bound.ratio), quick=quick) for bound in bounds]


def _checked(bound: Bound, value: float | None, *, quick: bool) -> Judgement:
    if value is None:
        left_out = quick and (BASE in bound.ratio or "fork loop" in bound.ratio)
        said = "left out" if left_out else "NOT MEASURED"
        return Judgement(bound.ratio, str(bound), "-", said, fell=not left_out)
    kept = bound.kept(value)
    return Judgement(bound.ratio, str(bound), f"{value:.2f}", "kept" if kept else "FELL", fell=not kept)


def compare(ratios: Mapping[str, float], saved: Mapping[str, float], bounds: Sequence[Bound]) -> list[Judgement]:
    """One judgement for each ratio that both runs have. Less is better where the baseline has `most`."""
    less = {bound.ratio for bound in bounds if bound.most is not None}
    return [_compared(name, saved[name], ratios[name], less=name in less) for name in ratios if name in saved]


def _compared(name: str, before: float, now: float, *, less: bool) -> Judgement:
    better = before / now if less else now / before
    fell = better < 1 / WORSE
    said = "FELL" if fell else "better" if better > WORSE else "alike"
    return Judgement(name, f"{before:.2f}", f"{now:.2f}", f"{said} ({better:.2f} x)", fell=fell)


def told(title: str, judgements: Sequence[Judgement]) -> str:
    fallen = [each.ratio for each in judgements if each.fell]
    last = f"Fallen: {'; '.join(fallen)}." if fallen else f"None of {len(judgements)} has fallen."
    return "\n".join([title, "", *as_text(HEAD, [each.cells for each in judgements]), "", last])


def judged(options: argparse.Namespace) -> bool:
    """Print what was asked for. True if no ratio has fallen."""
    ratios = of_rows(read(LATEST)) | of_floor(FLOOR)
    write_ratios(RATIOS, ratios)
    bounds, tables = read_bounds(BASELINE), []
    if options.check:
        judgements = check(ratios, bounds, quick=options.quick)
        tables.append(("Against the bounds of benchmarks/baseline.json", judgements))
    if options.compare:
        judgements = compare(ratios, read_ratios(options.compare), bounds)
        if not judgements:
            raise ReportError(f"{options.compare} and this run have no ratio in common")
        tables.append((f"Against {options.compare}", judgements))
    for title, judgements in tables:
        print(told(title, judgements))
    return not any(each.fell for _, judgements in tables for each in judgements)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Judge the ratios of the last benchmark run.")
    parser.add_argument("--check", action="store_true", help="against the bounds of baseline.json")
    parser.add_argument(
        "--compare", type=Path, metavar="SAVED.json", help="against the results/ratios.json of another run"
    )
    parser.add_argument("--quick", action="store_true", help="the run was without docker run and the fork loop")
    try:
        return 0 if judged(parser.parse_args(arguments)) else 1
    except ReportError as error:
        print(f"ratios: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

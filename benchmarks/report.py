"""A table from the JSON of a benchmark run: `python benchmarks/report.py [FILE.json] [--markdown]`.

For each job a row for each way of running it: median, 95th percentile, how many times cheaper than `docker run` of the
same job at the median, and what it costs over running the same text in-process. Then what the pools sustain, and
whether the bar is met.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BAR = 50  #: times cheaper than docker run at the median, for every job and every warm pool
BASE, FLOOR, POOL, HASTY = "docker run", "in-process", "pool, ", "back to back, max_jobs 100"
SUSTAINED = "sustained"
HEAD = ("case", "rounds", "median ms", "p95 ms", "cheaper than docker run", "over in-process ms", "jobs found")
LATEST = Path(__file__).parent / "results" / "latest.json"

WAITED = (
    "Each round of the pool began with workers that had been idle for 0.1 s; 5 ms apart, back to back and sustained "
    "are without that wait."
)


class ReportError(Exception):
    """The file is not what a benchmark run writes."""


@dataclass(frozen=True, slots=True)
class Row:
    group: str
    case: str
    rounds: int
    median_ms: float
    p95_ms: float
    extra: Mapping[str, object]


def read(path: Path) -> list[Row]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
        return [_row(each) for each in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path} is not the JSON of a benchmark run ({type(error).__name__}: {error})") from None


def _row(entry: Mapping[str, object]) -> Row:
    stats, extra = entry["stats"], entry["extra_info"]
    if not isinstance(stats, Mapping) or not isinstance(extra, Mapping):
        raise TypeError("stats and extra_info are mappings")
    taken_s = sorted(float(value) for value in stats["data"])
    p95_s = taken_s[max(0, math.ceil(0.95 * len(taken_s)) - 1)]
    return Row(
        str(entry["group"]), str(extra["case"]), len(taken_s), float(stats["median"]) * 1000, p95_s * 1000, extra
    )


def find(rows: Iterable[Row], group: str, case: str) -> Row | None:
    return next((row for row in rows if (row.group, row.case) == (group, case)), None)


def groups(rows: Iterable[Row]) -> list[str]:
    return [name for name in dict.fromkeys(row.group for row in rows) if name != SUSTAINED]


def cells(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    base, floor = find(rows, row.group, BASE), find(rows, row.group, FLOOR)
    cheaper = f"{base.median_ms / row.median_ms:,.0f} x" if base and base is not row else "-"
    over = f"{row.median_ms - floor.median_ms:.2f}" if floor and floor is not row else "-"
    return (row.case, str(row.rounds), f"{row.median_ms:.2f}", f"{row.p95_ms:.2f}", cheaper, over, starts(row))


def starts(row: Row) -> str:
    found = row.extra.get("starts")
    return ", ".join(f"{count} {kind}" for kind, count in found.items()) if isinstance(found, Mapping) else ""


def verdict(rows: Sequence[Row]) -> str:
    """One line: whether the worst warm pool of each job reaches the target."""
    said, met = [], True
    for group in groups(rows):
        base = find(rows, group, BASE)
        pools = [row.median_ms for row in rows if row.group == group and row.case.startswith(POOL)]
        if base is None or not pools:
            return f"The bar cannot be judged: {group} lacks docker run or the pool."
        times = base.median_ms / max(pools)
        met = met and times >= BAR
        said.append(f"{group} {times:.0f} times")
    if not said:
        return "The bar cannot be judged: nothing was measured."
    judged = "met" if met else "NOT met"
    bar = f"The bar (a warm job at least {BAR} times cheaper than docker run, median) is {judged}: {', '.join(said)}."
    return f"{bar} {hasty(rows)}".rstrip()


def hasty(rows: Sequence[Row]) -> str:
    """The same without the wait for an idle worker."""
    said = []
    for group in groups(rows):
        base, row = find(rows, group, BASE), find(rows, group, HASTY)
        if base is not None and row is not None:
            said.append(f"{group} {base.median_ms / row.median_ms:.0f} times")
    return f"Back to back: {', '.join(said)}." if said else ""


def sustained(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in (row for row in rows if row.group == SUSTAINED):
        jobs = row.extra.get("jobs")
        if isinstance(jobs, int):
            rate = jobs / (row.median_ms / 1000)
            lines.append(
                f"Sustained, {row.case}: {rate:.1f} jobs/s in a closed loop of {jobs} no-op jobs ({starts(row)})."
            )
    return lines


def parts(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        found = row.extra.get("p50_ms")
        if isinstance(found, Mapping):
            shown = ", ".join(f"{str(name).removesuffix('_ms')} {value:.2f}" for name, value in found.items())
            lines.append(f"Of {row.group} in {row.case}, by the daemon's clock, p50 in ms: {shown}.")
    return lines


def notes(rows: Sequence[Row]) -> list[str]:
    waited = any(row.case == "pool, max_jobs 1" for row in rows)
    return [WAITED] if waited else []


def as_text(head: Sequence[str], table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[place]) for line in (head, *table)) for place in range(len(head))]
    lines = []
    for line in (head, *table):
        first, *others = (cell for cell in line)
        padded = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(padded).rstrip())
    return lines


def as_markdown(head: Sequence[str], table: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(line)} |" for line in (head, rule, *table)]


def report(rows: Sequence[Row], *, markdown: bool) -> str:
    lines = []
    for group in groups(rows):
        table = [cells(row, rows) for row in rows if row.group == group]
        lines += [f"**{group} job**" if markdown else f"{group} job", ""]
        lines += [*(as_markdown if markdown else as_text)(HEAD, table), ""]
    remarks = [*sustained(rows), *parts(rows), *notes(rows), verdict(rows)]
    return "\n".join([*lines, *(f"- {line}" if markdown else line for line in remarks)])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a table from the JSON of a benchmark run.")
    parser.add_argument("file", type=Path, nargs="?", default=LATEST, help="the JSON of a run (%(default)s)")
    parser.add_argument("--markdown", action="store_true", help="as Markdown, for a README")
    options = parser.parse_args(arguments)
    try:
        print(report(read(options.file), markdown=options.markdown))
    except ReportError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The report of a benchmark run as one Markdown page: python -m benchmarks.page [DIRECTORY].

`./dev bench` calls it last. It takes what the benchmarks have left in results/: latest.json, the tables that they
printed (NAME.md) and their pictures (NAME.png), and writes report.md beside them. One that was not run has no section.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from pool._version import __version__

RESULTS = Path(__file__).parent / "results"
PAGE = "report.md"
#: By the name of the benchmark, in the order of the page.
SECTIONS = {
    "floor": "Workers and pool over a loop that only forks",
    "transport": "A no-op over its transport",
    "openloop": "Latency from the planned time, by load",
    "growth": "How cost grows",
    "dispatch": "The daemon alone",
    "memory": "Memory",
    "engines": "A worker for each job, by engine",
    "ratios": "Ratios of this run",
}


def page(results: Path) -> str:
    lines = ["# Benchmark report", "", *machine(), ""]
    if (results / report.LATEST.name).exists():
        rows = report.read(results / report.LATEST.name)
        lines += ["## What a job costs", "", report.report(rows, markdown=True), ""]
    for name, title in SECTIONS.items():
        lines += _section(results, name, title)
    return "\n".join(lines)


def _section(results: Path, name: str, title: str) -> list[str]:
    printed, picture = results / f"{name}.md", results / f"{name}.png"
    if not printed.exists():
        return []
    lines = [f"## {title}", "", f"`python -m benchmarks.{name}`", "", *_shown(printed.read_text(encoding="utf-8"))]
    if picture.exists():
        lines += [f"![{title}]({picture.name})", ""]
    return lines


def _shown(printed: str) -> list[str]:
    """A table of Markdown as it is, anything else as text."""
    text = printed.strip("\n")
    return [text, ""] if "|" in text else ["```text", text, "```", ""]


def machine() -> list[str]:
    """The facts without which figures mean little."""
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    facts = {
        "version": f"{__version__}, {_commit()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.1f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "load at the end": load,
    }
    return [f"- {name}: {fact}" for name, fact in facts.items()]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no checkout"


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    results = Path(given[0]) if given else RESULTS
    try:
        (results / PAGE).write_text(page(results), encoding="utf-8")
    except (OSError, report.ReportError) as error:
        print(f"page: {error}", file=sys.stderr)
        return 1
    print(f"The report is in {results / PAGE}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The run in figures, as Markdown: for the terminal and for docs/corpus.md."""

import os
import platform
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tests.corpus.compare import Difference
from tests.corpus.memory import MOST_GROWTH_BYTES, WARM_JOBS, Watch
from tests.corpus.poolrun import Round
from tests.corpus.session import Findings

_MISSING = "ModuleNotFoundError"
_NAMES = 8

_INTRO = """# The corpus run

Written by `./dev corpus` (`pytest -m corpus`). Programs that people and models wrote run in the pool, twice, and once in
a plain process of the same interpreter: a fresh `python3` for each, in a default container of the worker image. Outcome,
exception, value with its types, stdout and stderr have to be equal. What differs is listed with its cause."""


def text(findings: Findings) -> str:
    sections = (_INTRO, _machine(), *_outcomes(findings), *_differences(findings), *_pace(findings), *_left(findings))
    return "\n\n".join(sections) + "\n"


def _machine() -> str:
    return f"Machine: {os.cpu_count()} cores of {platform.machine()}, Linux {platform.release().split('-')[0]}."


def _outcomes(findings: Findings) -> Iterator[str]:
    first = findings.rounds[0]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    missing: Counter[str] = Counter()
    for case, answer in zip(findings.cases, first.answers, strict=True):
        counts[case.part][answer.seen.outcome] += 1
        missing[case.part] += answer.seen.type == _MISSING
    outcomes = sorted({name for counted in counts.values() for name in counted}, key=lambda name: (name != "ok", name))
    yield "## Outcomes"
    rows = [
        [part, sum(counted.values()), *(counted[name] for name in outcomes), missing[part]]
        for part, counted in counts.items()
    ]
    total = ["all", *(sum(int(row[at]) for row in rows) for at in range(1, len(outcomes) + 3))]
    yield _table(["corpus", "jobs", *outcomes, "of them: module not in the image"], [*rows, total])
    yield (
        f"Every job had exactly one result, in both runs: {2 * len(first.answers):,} jobs. An error is what the program "
        "does in the plain process as well, but for those that are listed below."
    )


def _differences(findings: Findings) -> Iterator[str]:
    yield "## Differences"
    equal = len(findings.cases) - len({each.case.name for each in findings.differences})
    yield f"{equal:,} of {len(findings.cases):,} jobs were equal in all three runs."
    if not findings.differences:
        return
    groups: dict[tuple[str, str], list[Difference]] = defaultdict(list)
    for each in findings.differences:
        groups[each.between, each.cause.value].append(each)
    rows = [[of, cause, len(found), _told(found)] for (of, cause), found in sorted(groups.items())]
    yield _table(["between", "cause", "jobs", "which"], rows)


def _told(found: Sequence[Difference]) -> str:
    """The programs; with what was denied, where that is the cause."""
    by_about: dict[str, list[str]] = defaultdict(list)
    for each in found:
        by_about[each.about].append(each.case.name)
    return "; ".join(f"{_list(names)}{f' ({about})' if about else ''}" for about, names in by_about.items())


def _list(names: Iterable[str]) -> str:
    """Without the seeds, the first few of many."""
    programs = list(dict.fromkeys(_program(name) for name in names))
    more = f" and {len(programs) - _NAMES} more" if len(programs) > _NAMES else ""
    return ", ".join(programs[:_NAMES]) + more


def _program(name: str) -> str:
    return name.rpartition(".")[0] if name.startswith("codeio.") else name


def _pace(findings: Findings) -> Iterator[str]:
    yield "## Pace and overhead"
    yield (
        "In milliseconds, by the timings of the results. *Around*: the total without the code's own time. *Own*: the same "
        "without the wait for a worker that is free; what is left is dispatch and collection."
    )
    header = ["run", "jobs/s", "parked", "", "p50", "p90", "p99", "max"]
    yield _table(header, [row for each in findings.rounds for row in _round(each)])
    assert findings.memory is not None
    yield _memory(findings.memory)


def _round(each: Round) -> Iterator[list[object]]:
    starts = Counter(answer.start for answer in each.answers)
    parked = f"{100 * starts['parked'] / len(each.answers):.0f} %"
    yield [each.name, f"{each.rate:.0f}", parked, "around", *_spread([a.around_ms for a in each.answers])]
    yield ["", "", "", "own", *_spread([answer.own_ms for answer in each.answers])]


def _spread(values: Sequence[float]) -> list[str]:
    if len(values) < 2:
        return [f"{value:.1f}" for value in values] * 4
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return [f"{value:.1f}" for value in (cuts[49], cuts[89], cuts[98], max(values))]


def _memory(memory: Watch) -> str:
    if memory.warm is None or memory.growth is None:
        return f"Memory of the daemon: fewer than {WARM_JOBS:,} jobs, so nothing can be said."
    mib = 1 << 20
    return (
        f"Memory of the daemon: {memory.warm.rss / mib:.1f} MiB after {memory.warm.jobs:,} jobs, "
        f"{memory.samples[-1].rss / mib:.1f} MiB after {memory.samples[-1].jobs:,}; the most in between was "
        f"{memory.growth / mib:+.1f} MiB (allowed: {MOST_GROWTH_BYTES / mib:.0f}). Results are kept for 5 s here."
    )


def _left(findings: Findings) -> Iterator[str]:
    yield "## Programs of pyperformance that are left out"
    yield "They need packages that are not in the image:"
    yield "\n".join(f"- {name}: {why}" for name, why in findings.left_out.items())


def _table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell).replace("|", "\\|").replace("\n", " ")

"""The table of attacks in docs/security.md, made from what the tests recorded.

    python -m tests.hostile.table                            prints it, and what has no record
    python -m tests.hostile.table --write docs/security.md   puts it between the markers of that page
    python -m tests.hostile.table --check docs/security.md   exit status 1 if the page has another one, or one is missing

Each attack counts once, with its newest record. Those of class A have one with the screen and one without it.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.record import DIRECTORY, LAYERS, Entry

BEGIN, END = "<!-- catalogue -->", "<!-- /catalogue -->"
#: The numbers of the catalogue by class; it has gaps.
CATALOGUE = {
    "A": "1-7 9-12 14-16 18-24 26-27 29-30 32-35 37-42",
    "B": "1-2 4-7 9 11-12 14 16-24 26-28 30-41",
    "C": "1-8 10-19 21-24 26-34 36 38-39 41-45",
    "D": "1 3-5 8-18 20-25 27-28",
    "E": "1-16 18 20",
    "F": "1-7 9-11 13 15-16 18-20",
}
_WORDS = {"REJ": "refused", "INERT": "inert", "ERR": "error", "KILL": "killed", "QUAR": "replaced", "DROP": "dropped"}


@dataclass(frozen=True, slots=True)
class Row:
    """One attack. Of class A there is `on`, with the screen, and `off`, without."""

    number: str
    title: str
    on: Entry | None
    off: Entry | None


def numbers() -> list[str]:
    """Every number of the catalogue, in its order."""
    return [f"{name}{each}" for name, ranges in CATALOGUE.items() for part in ranges.split() for each in _range(part)]


def _range(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def newest(files: Iterable[Path]) -> list[Entry]:
    """The newest record of each attack; a later file counts more than an earlier one."""
    found: dict[tuple[str, str, bool], Entry] = {}
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        for fields in json.loads(path.read_text()):
            entry = Entry(**fields | {"stopped_by": tuple(fields["stopped_by"])})
            found[entry.number, entry.title, entry.screen_off] = entry
    return list(found.values())


def rows(entries: Iterable[Entry]) -> list[Row]:
    """In natural order: A2 before A10, and attacks of one number by title."""
    pairs: dict[tuple[str, str], dict[bool, Entry]] = {}
    for entry in entries:
        pairs.setdefault((entry.number, entry.title), {})[entry.screen_off] = entry
    made = [Row(number, title, both.get(False), both.get(True)) for (number, title), both in pairs.items()]
    return sorted(made, key=lambda row: (natural(row.number), row.title))


def natural(number: str) -> tuple[str, int, str]:
    """A class alone, for an attack that is not in the catalogue, comes last in it."""
    parts = re.fullmatch(r"([A-Z]+)(\d*)(.*)", number)
    assert parts, number
    return parts[1], int(parts[2] or 1_000_000), parts[3]


def without_record(entries: Iterable[Entry]) -> list[str]:
    """Numbers of the catalogue that no test has recorded."""
    there = {entry.number for entry in entries}
    return [number for number in numbers() if number not in there]


def render(entries: Sequence[Entry]) -> str:
    """The tables, one for class A and one for all others."""
    made = rows(entries)
    first = [row for row in made if row.number.startswith("A")]
    others = [row for row in made if not row.number.startswith("A")]
    missing = ", ".join(without_record(entries)) or "none"
    parts = [_with_screen(first), _plain(others), f"Numbers without a record: {missing}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _with_screen(some: Sequence[Row]) -> str:
    if not some:
        return ""
    head = ("", "attack", "screen on", "screen off", "stopped by, screen off", "it saw", "outside")
    return _table(head, [_sides(row) for row in some])


def _sides(row: Row) -> tuple[str, ...]:
    either = row.off or row.on
    assert either is not None
    on = f"{_outcome(row.on)} {row.on.seen}" if row.on and row.on.outcome == "REJ" else _outcome(row.on)
    return row.number, row.title, on, _outcome(row.off), _layers(row.off), either.seen, either.outside


def _plain(some: Sequence[Row]) -> str:
    if not some:
        return ""
    head = ("", "attack", "outcome", "stopped by", "it saw", "outside")
    entries = [(row, row.off or row.on) for row in some]
    return _table(head, [(r.number, r.title, _outcome(e), _layers(e), e.seen, e.outside) for r, e in entries if e])


def _outcome(entry: Entry | None) -> str:
    return _WORDS[entry.outcome] if entry else ""


def _layers(entry: Entry | None) -> str:
    return ", ".join(sorted(entry.stopped_by, key=LAYERS.index)) if entry else ""


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    ruled = [head, ["---"] * len(head), *([_cell(each) for each in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def _cell(text: str) -> str:
    """One line that Markdown shows as it is; control and bidi characters as escapes."""
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", shown)[:160]


def put(page: str, table: str) -> str:
    """The page with the table between the markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.hostile.table", description="The table of attacks, from the records.")
    parser.add_argument("--write", type=Path, help="put it into this page")
    parser.add_argument("--check", type=Path, help="whether this page has it, and all numbers are there")
    options = parser.parse_args(arguments)
    entries = newest(DIRECTORY.glob("*.json"))
    table, missing = render(entries), without_record(entries)
    if options.write:
        page = options.write.read_text() if options.write.exists() else f"{BEGIN}\n{END}\n"
        options.write.write_text(put(page, table))
    if not options.write and not options.check:
        print(table)
    print(f"{len(rows(entries))} attacks; without a record: {', '.join(missing) or 'none'}", file=sys.stderr)
    if options.check:
        page = options.check.read_text()
        return int(bool(missing) or put(page, table) != page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

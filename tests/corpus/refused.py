"""How many programs of the corpus each mode of the screen refuses: `python -m tests.corpus.refused`, after ./dev corpus.

Prints the table of docs/screen.md. Nothing of the programs is run.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from functools import cache

from pool.screen import Mode, check
from tests.corpus import codeio, humaneval, packages, pyperformance
from tests.corpus.case import Case

MODES: tuple[Mode, ...] = ("strict", "standard")


def main() -> None:
    packages.require()
    warnings.simplefilter("ignore")  # the programs' invalid escapes
    # A broken program of HumanEval differs from the canonical one in an operator or a number.
    cases = [*codeio.load(), *(each.canonical() for each in humaneval.load() * 2), *pyperformance.load()[0]]
    parts = {part: [case for case in cases if case.part == part] for part in dict.fromkeys(case.part for case in cases)}
    print("| corpus | jobs | `strict` | `standard` | `off` |\n| --- | --- | --- | --- | --- |")
    for part, found in {**parts, "all": cases}.items():
        print(f"| {part} | {len(found):,} | {' | '.join(_refused(found, mode) for mode in MODES)} | 0 |")
    rules = Counter(rule for case in cases for rule in _rules(case.code))
    print(f"\nBy `standard`: {', '.join(f'{rule} in {count:,}' for rule, count in rules.most_common())}.")


@cache
def _rules(code: str) -> frozenset[str]:
    return frozenset(each.rule for each in check(code))


def _refused(cases: Sequence[Case], mode: Mode) -> str:
    codes = Counter(case.code for case in cases)
    refused = sum(count for code, count in codes.items() if check(code, screen=mode))
    return f"{refused:,} ({100 * refused / len(cases):.1f} %)"


if __name__ == "__main__":
    main()

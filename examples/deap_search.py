"""DEAP with the pool as its `map`: each individual is scored in the sandbox.

`evaluate` is sent with what it refers to. An individual arrives as a plain list, and its fitness comes back as a tuple.
`chunksize` puts several individuals into one child, each with its own result and limits.
"""

from __future__ import annotations

import math
import random
from typing import Any

from deap import algorithms, base, creator, tools

from pool import Limits, PoolExecutor

GENES = 6

creator.create("Least", base.Fitness, weights=(-1.0,))
creator.create("Genome", list, fitness=creator.Least)


def evaluate(genome: list[float]) -> tuple[float]:
    """The function of Rastrigin, whose least value is 0."""
    return (sum(x * x - 10 * math.cos(math.tau * x) + 10 for x in genome),)


def toolbox_of(executor: PoolExecutor) -> base.Toolbox:
    toolbox = base.Toolbox()
    toolbox.register("gene", random.uniform, -5.0, 5.0)
    toolbox.register("individual", tools.initRepeat, creator.Genome, toolbox.gene, GENES)
    toolbox.register("population", tools.initRepeat, list, toolbox.individual)
    toolbox.register("evaluate", evaluate)
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", tools.mutGaussian, mu=0.0, sigma=0.5, indpb=0.3)
    toolbox.register("select", tools.selTournament, tournsize=3)
    toolbox.register("map", executor.map, chunksize=8)
    return toolbox


def search(executor: PoolExecutor, *, population: int = 40, generations: int = 10, seed: int = 7) -> Any:
    """The best individual. The same seed finds the same one, however the jobs are scheduled."""
    random.seed(seed)
    toolbox, best = toolbox_of(executor), tools.HallOfFame(1)
    first = toolbox.population(n=population)
    algorithms.eaSimple(first, toolbox, cxpb=0.5, mutpb=0.3, ngen=generations, halloffame=best, verbose=False)
    return best[0]


if __name__ == "__main__":
    with PoolExecutor(limits=Limits(wall_s=5)) as pool:
        found = search(pool)
    print(round(found.fitness.values[0], 3), [round(gene, 2) for gene in found])

"""Optuna suggests and the pool scores, several trials at a time. A trial whose job fails is told as failed."""

from __future__ import annotations

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState

from pool import Limits, PoolExecutor
from pool.errors import JobOutcomeError

SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(-10, 10), "y": FloatDistribution(-10, 10)}


def objective(params: dict[str, float]) -> float:
    """What is to be made small. It fails in a part of the space, as generated code does."""
    if params["x"] < -9:
        raise ValueError("no solution here")
    return (params["x"] - 2) ** 2 + (params["y"] + 1) ** 2


def search(executor: PoolExecutor, *, trials: int = 40, parallel: int = 4, seed: int = 7) -> optuna.Study:
    """The same seed suggests the same trials, because results are told in the order in which trials were asked for."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for _ in range(trials // parallel):
        asked = [study.ask(SPACE) for _ in range(parallel)]
        scored = [executor.submit(objective, trial.params) for trial in asked]
        for trial, future in zip(asked, scored, strict=True):
            try:
                study.tell(trial, future.result())
            except JobOutcomeError:
                study.tell(trial, state=TrialState.FAIL)
    return study


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with PoolExecutor(limits=Limits(wall_s=5)) as pool:
        found = search(pool)
    print(round(found.best_value, 3), found.best_params)

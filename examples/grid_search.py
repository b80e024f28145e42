"""A scikit-learn grid search whose fits run in the pool, with the same scores as in this process.

The pool needs an image with scikit-learn, and `preload: {modules: [sklearn.model_selection, sklearn.svm]}`: without it
each job imports them again.
"""

from __future__ import annotations

from joblib import parallel_config
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import pool.joblib  # noqa: F401 - registers the backend "pool"
from pool import Client, Limits


def search() -> GridSearchCV:
    x, y = make_classification(200, n_features=10, random_state=7)
    grid = {"C": [0.1, 1.0, 10.0], "gamma": [0.01, 0.1]}
    return GridSearchCV(SVC(), grid, cv=3).fit(x, y)


def main(client: Client | None = None) -> GridSearchCV:
    with parallel_config(backend="pool", client=client, limits=Limits(wall_s=60)):
        return search()


if __name__ == "__main__":
    found = main()
    print(found.best_params_, round(found.best_score_, 3))

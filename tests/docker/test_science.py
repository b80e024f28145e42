"""The image of the profile `science`: `pytest -m corpus tests/docker/test_science.py`. To build it takes minutes."""

import pytest

from pool.images import build, profile
from pool.model import Outcome
from tests.support.daemons import DaemonProcess

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(1800)]

IMAGE = "pool-worker:science"
PRELOAD = [
    "numpy", "pandas", "scipy.stats", "scipy.optimize", "sklearn.ensemble", "sklearn.model_selection",
    "matplotlib.pyplot", "sympy", "networkx",
]  # fmt: skip


@pytest.fixture(scope="module")
def client():
    build(IMAGE, progress=print, requirements=profile("science"))
    template = {
        "image": IMAGE,
        "size": {"min": 1, "max": 1},
        "limits": {"wall_s": 300, "cpu_s": 300, "memory": "1g", "tmp": "256m"},
        "preload": {"modules": PRELOAD},
        "screen": {
            "mode": "standard",
            "allow_modules": ["matplotlib", "numba", "regex", "joblib", "os", "threadpoolctl"],
        },
    }
    pools = {"default": template, "programs": template | {"allow": ["subprocess"], "screen": "off"}}
    with DaemonProcess(pools, engine="docker") as daemon, daemon.client(timeout=600) as it:
        yield it


#: Programs and their values.
PROGRAMS = {
    "scipy": (
        "from scipy import optimize\nresult = round(float(optimize.minimize(lambda x: (x[0] - 3) ** 2, [0]).x[0]), 4)",
        3.0,
    ),
    "GridSearchCV with all cores": (
        (
            "from sklearn.model_selection import GridSearchCV\nfrom sklearn.ensemble import RandomForestClassifier\n"
            "import numpy as np\nx = np.arange(80.).reshape(40, 2)\ny = (np.arange(40) % 2)\n"
            "grid = GridSearchCV(RandomForestClassifier(5, n_jobs=-1), {'max_depth': [1, 2]}, cv=2, n_jobs=-1).fit(x, y)\n"
            "result = sorted(grid.best_params_)"
        ),
        ["max_depth"],
    ),
    "what limits its threads, by threadpoolctl": (
        (
            "from sklearn.cluster import KMeans\nimport numpy as np, threadpoolctl\n"
            "groups = KMeans(2, n_init=1).fit_predict(np.repeat([[0.0], [9.0]], 4, axis=0))\n"
            "kinds = {each['user_api'] for each in threadpoolctl.threadpool_info()}\n"
            "result = sorted(np.bincount(groups).tolist()) + sorted(kinds)"
        ),
        [4, 4, "blas", "openmp"],
    ),
    "joblib": (
        (
            "from joblib import Parallel, delayed\nimport math\n"
            "result = Parallel(n_jobs=-1)(delayed(math.factorial)(n) for n in range(5))"
        ),
        [1, 1, 2, 6, 24],
    ),
    "numba with its cache": (
        (
            "import os, numba\n@numba.njit(cache=True)\ndef f(x): return x + 1\n"
            "result = f(1), [name for name in os.listdir('__pycache__') if name.endswith('.nbi')] != []"
        ),
        [2, True],
    ),
    "numba": (
        (
            "import numba, numpy as np\n@numba.njit(parallel=True)\ndef f(a):\n    s = 0.0\n"
            "    for i in numba.prange(a.shape[0]): s += a[i]\n    return s\nresult = f(np.ones(10))"
        ),
        10.0,
    ),
    "polars": (
        (
            "import polars as pl\n"
            "result = pl.DataFrame({'a': [1, 2, 3]}).lazy().filter(pl.col('a') > 1).select(pl.col('a').sum()).collect().item()"
        ),
        5,
    ),
    "pyarrow": ("import pyarrow as pa, pyarrow.compute as pc\nresult = pc.sum(pa.array([1, 2, 3])).as_py()", 6),
    "parquet": (
        (
            "import pandas as pd\npd.DataFrame({'a': [1, 2]}).to_parquet('x.parquet')\n"
            "result = int(pd.read_parquet('x.parquet').a.sum())"
        ),
        3,
    ),
    "statsmodels": (
        (
            "import statsmodels.api as sm, numpy as np\nx = np.arange(5.)\n"
            "result = round(float(sm.OLS(x, sm.add_constant(x)).fit().rsquared), 4)"
        ),
        1.0,
    ),
    "sympy": ("import sympy\nx = sympy.Symbol('x')\nresult = str(sympy.diff(x ** 2, x))", "2*x"),
    "networkx": ("import networkx as nx\nresult = nx.shortest_path(nx.path_graph(4), 0, 3)", [0, 1, 2, 3]),
    "regex": ("import regex\nresult = regex.findall(r'\\p{L}', 'aé1')", ["a", "é"]),
    "text in a frame": ("import pandas as pd\nresult = pd.DataFrame({'a': ['x', 'y']})['a'].tolist()", ["x", "y"]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_library_of_the_profile_works_in_a_job(client, name):
    code, value = PROGRAMS[name]
    result = client.run(code)
    found = list(result.value) if isinstance(result.value, tuple) else result.value
    assert (result.outcome, found) == (Outcome.OK, value), result


PARALLEL = {
    "joblib": (
        (
            "from joblib import Parallel, delayed\ndef double(n): return 2 * n\n"
            "result = Parallel(n_jobs=2)(delayed(double)(n) for n in range(5))"
        ),
        [0, 2, 4, 6, 8],
    ),
    "joblib with threads": (
        (
            "from joblib import Parallel, delayed\n"
            "result = Parallel(n_jobs=2, backend='threading')(delayed(lambda n: 2 * n)(n) for n in range(3))"
        ),
        [0, 2, 4],
    ),
    "an exception in joblib": (
        (
            "from joblib import Parallel, delayed\ndef fail(n): raise ValueError(n)\n"
            "try: Parallel(n_jobs=2)(delayed(fail)(7) for _ in range(2))\nexcept ValueError as e: result = e.args"
        ),
        [7],
    ),
    "GridSearchCV": (
        (
            "from sklearn.model_selection import GridSearchCV\nfrom sklearn.tree import DecisionTreeClassifier\n"
            "import numpy as np\nx = np.arange(80.).reshape(40, 2)\ny = np.arange(40) % 2\n"
            "result = sorted(GridSearchCV(DecisionTreeClassifier(), {'max_depth': [1, 2]}, cv=2, n_jobs=2).fit(x, y).best_params_)"
        ),
        ["max_depth"],
    ),
}


@pytest.mark.parametrize("pool", ["default", "programs"])
@pytest.mark.parametrize("name", PARALLEL)
def test_what_runs_in_parallel_works_with_threads_and_where_it_is_allowed_with_processes(client, name, pool):
    code, value = PARALLEL[name]
    result = client.run(code, pool=pool)
    assert (result.outcome, list(result.value or []), result.reason) == (Outcome.OK, value, ""), result


def test_a_frame_with_text_comes_back_to_a_client_without_pyarrow(client):
    value = client.run("import pandas as pd\nresult = pd.DataFrame({'a': ['x', 'y'], 'b': [1, 2]})").value
    assert (value["a"].tolist(), value["b"].tolist()) == (["x", "y"], [1, 2])


def test_a_figure_comes_back_as_a_file(client):
    result = client.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('out/figure.png')")
    assert result.files["figure.png"].startswith(b"\x89PNG")
    assert result.stderr == ""

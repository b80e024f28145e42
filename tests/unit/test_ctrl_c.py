"""Ctrl-C in a loop: the daemon cancels the running jobs, and the program ends with the traceback of its own wait.

Each program is a process of its own with a live daemon, whose workers are plain processes.
"""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.support.daemons import module_daemon, pool_of

POOL = pool_of(2, limits={"wall_s": 900, "cpu_s": 900}, max_limits={"wall_s": 900, "cpu_s": 900})
#: How many jobs each program has under way, beyond what two workers run.
JOBS = 5
BEGIN = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from pool import AsyncClient, Client, PoolExecutor, SandboxExecutor
endpoint = sys.argv[1]
CODE = "def main(n):\\n    import time\\n    time.sleep(900)"
inputs = [[n] for n in range(5)]

def sleep(n):
    import time
    time.sleep(900)
"""
PROGRAMS = {
    "map": """
with Client(endpoint) as client:
    list(client.map(CODE, inputs, entry="main"))
""",
    "the futures of an executor": """
with PoolExecutor(endpoint) as executor:
    for future in [executor.submit(sleep, n) for n in range(5)]:
        future.result()
""",
    "a sandbox in threads": """
with ThreadPoolExecutor(5) as threads, SandboxExecutor(endpoint) as sandbox:
    for future in [threads.submit(sandbox.execute, CODE, each, timeout=900) for each in inputs]:
        future.result()
""",
    "asyncio": """
async def main():
    async with AsyncClient(endpoint) as client:
        await asyncio.gather(*[client.run(CODE, entry="main", args=each) for each in inputs])

asyncio.run(main())
""",
}
#: The examples with loops: their own code, with candidates that never end.
EXAMPLES = {
    "autonomous_loop": """
from examples import autonomous_loop, search
autonomous_loop.WALL_S = 900.0
search.render, search.draw = lambda genome: "def main():\\n    import time\\n    time.sleep(900)", lambda rng: None
autonomous_loop.main(["--parallel", "5"])
""",
    "gather": """
from examples import gather
gather.Limits = lambda wall_s: None
gather.SOURCE = CODE.replace("main", "score")
asyncio.run(gather.scores(list(range(5))))
""",
    "deap": """
from examples import deap_search
deap_search.evaluate = sleep
with PoolExecutor() as executor:
    deap_search.search(executor)
""",
    "optuna": """
from examples import optuna_search
optuna_search.objective = sleep
with PoolExecutor() as executor:
    optuna_search.search(executor, parallel=5)
""",
    "joblib": """
import joblib
import pool.joblib
with joblib.parallel_config(backend="pool", n_jobs=5):
    joblib.Parallel()(joblib.delayed(sleep)(n) for n in range(5))
""",
}


daemon = module_daemon({"default": POOL})


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_ctrl_c_cancels_what_is_under_way_and_leaves_a_clean_traceback(daemon, program):
    interrupted(daemon, program, "-W", "error")


@pytest.mark.parametrize("name", EXAMPLES)
def test_ctrl_c_ends_an_example_at_once_and_cancels_its_candidates(daemon, name):
    if name in {"deap", "optuna", "joblib"} and find_spec(name) is None:
        pytest.skip(f"not installed: {name}")
    interrupted(daemon, EXAMPLES[name])  # with the warnings of these libraries


def interrupted(daemon, program, *options):
    """Run the program, and interrupt it when its jobs are under way. They would run for 15 minutes."""
    before = cancelled(daemon)
    command = [sys.executable, *options, "-c", BEGIN + program, daemon.endpoint]
    environment = os.environ | {"POOL_ENDPOINT": daemon.endpoint}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            daemon.until(lambda: under_way(daemon) == JOBS)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT, told
    assert told.rstrip().endswith("KeyboardInterrupt"), told
    assert "Exception ignored" not in told
    assert "never retrieved" not in told
    daemon.until(lambda: cancelled(daemon) == before + JOBS and under_way(daemon) == 0)


def under_way(daemon):
    pool = daemon.pool()
    return pool["backlog"] + sum(each["state"] == "leased" for each in pool["workers"])


def cancelled(daemon):
    return daemon.pool()["jobs"]["cancelled"]

"""What `run_tests` costs with 1, 10 and 100 cases, against one `run` after the other: milliseconds a case.

    python -m benchmarks.cases [--counts 1 10 100] [--rounds N]

    run         one job after the other, each with the arguments of one case
    run_tests   all cases at once, up to eight of them in one job
    forks       one job that compiles the candidate and forks for each case, without any isolation of its cases; each
                fork loads the candidate, calls it and ends. The least that a fork of a prepared child could cost.

The candidates: a no-op; a strategy in pandas; the no-op with 130 lines before it, which the screen has to read. The
arms take turns; the figures are medians, those of `forks` by the job's own clock. The daemon is that of
`benchmarks.chunks`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

from benchmarks.daemon import started
from benchmarks.floor import NOOP, POOL, POOLS, STRATEGY
from pool import Client
from pool.client import Case

COUNTS = (1, 10, 100)
LONG = "".join(STRATEGY.replace("def main", f"def rule_{number}") for number in range(10)) + NOOP
CANDIDATES = {"no-op": NOOP, "strategy": STRATEGY, "no-op, long": LONG}
#: The same pool without the screen, which refuses `os` to the job that forks.
OPEN = "open"
BOTH = POOLS | {OPEN: {**POOLS[POOL], "screen": "off"}}
FORKS = """
import os, time

def main(source, numbers):
    began = time.perf_counter()
    code = compile(source, "<job>", "exec")
    for number in numbers:
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            names = {}
            exec(code, names)
            os.write(theirs, repr(names["main"](number)).encode())
            os._exit(0)
        os.close(theirs)
        assert os.read(ours, 4096)
        os.waitpid(child, 0)
        os.close(ours)
    return time.perf_counter() - began
"""


def one_after_the_other(client: Client, code: str, values: Iterable[object]) -> float:
    began = time.perf_counter()
    for number, value in enumerate(values):
        if client.run(code, entry="main", pool=POOL, args=[number + 2]).value != value:
            raise RuntimeError("a case has a wrong value")
    return time.perf_counter() - began


def run_tests(client: Client, code: str, values: Iterable[object]) -> float:
    cases: list[Case] = [{"args": [number + 2], "expected": value} for number, value in enumerate(values)]
    began = time.perf_counter()
    if not client.run_tests(code, cases, entry="main", pool=POOL).ok:
        raise RuntimeError("a case has a wrong value")
    return time.perf_counter() - began


def forks(client: Client, code: str, values: Iterable[object]) -> float:
    numbers = [number + 2 for number, _ in enumerate(values)]
    return cast("float", client.run(FORKS, entry="main", pool=OPEN, args=[code, numbers]).value)


ARMS: dict[str, Callable[[Client, str, Iterable[Any]], float]] = {
    "run": one_after_the_other,
    "run_tests": run_tests,
    "forks": forks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print("ms a case", *(f"{name:>9}" for name in ARMS), "run over run_tests", "run over forks", sep="  ")
    with started(BOTH) as daemon, Client(daemon.endpoint, timeout=60) as client:
        for name, code in CANDIDATES.items():
            numbers = ([number + 2] for number in range(max(asked.counts)))
            expected = [each.value for each in client.map(code, numbers, entry="main", pool=POOL)]
            for count in asked.counts:
                rows = [[arm(client, code, expected[:count]) for arm in ARMS.values()] for _ in range(asked.rounds)]
                each = [f"{statistics.median(arm) / count * 1000:9.1f}" for arm in zip(*rows, strict=True)]
                ratios = [f"{statistics.median(row[0] / row[arm] for row in rows):10.1f}" for arm in (1, 2)]
                print(f"{name}, {count}", *each, *ratios, sep="  ", flush=True)


if __name__ == "__main__":
    main()

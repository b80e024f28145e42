"""What `run_tests` costs with 1, 10 and 100 cases, against one `run` after the other: milliseconds a case.

    python -m benchmarks.cases [--rounds N]

The arms take turns; the figures are medians. The daemon is that of `benchmarks.chunks`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from benchmarks.daemon import started
from benchmarks.floor import CONFIG, POOL
from pool import Client
from pool.client import Case

COUNTS = (1, 10, 100)
CODE = "def main(n):\n    return n * n\n"


def one_after_the_other(client: Client, count: int) -> int:
    found = (client.run(CODE, entry="main", pool=POOL, args=[n]).value for n in range(count))
    return sum(value == n * n for n, value in enumerate(found))


def run_tests(client: Client, count: int) -> int:
    cases: list[Case] = [{"args": [n], "expected": n * n} for n in range(count)]
    return client.run_tests(CODE, cases, entry="main", pool=POOL).passed


def took_s(arm: Callable[[Client, int], int], client: Client, count: int) -> float:
    began = time.perf_counter()
    if arm(client, count) != count:
        raise RuntimeError("a case has a wrong value")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = range(parser.parse_args().rounds)
    print(f"{'cases':>5} {'run, ms a case':>15} {'run_tests, ms a case':>21} {'ratio':>6}")
    with started(CONFIG, [POOL]) as daemon, Client(daemon.submit, timeout=60) as client:
        run_tests(client, 20)
        for count in COUNTS:
            pairs = [(took_s(one_after_the_other, client, count), took_s(run_tests, client, count)) for _ in rounds]
            alone, together = (statistics.median(arm) / count * 1000 for arm in zip(*pairs, strict=True))
            ratio = statistics.median(one / other for one, other in pairs)
            print(f"{count:>5} {alone:>15.1f} {together:>21.1f} {ratio:>6.1f}")


if __name__ == "__main__":
    main()

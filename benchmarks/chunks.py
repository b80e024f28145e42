"""What `map` gains by chunks: calls of a no-op per second, by the size of the chunks.

    python -m benchmarks.chunks [--calls N] [--rounds N]

The arms take turns, and each figure is the median of the rounds' ratios to `chunksize=1` of the same round. The daemon
is a real one with two workers that are not recycled, numpy and pandas preloaded; its image is that of POOL_BENCH_IMAGE.
"""

import argparse
import statistics
import time

from benchmarks.daemon import started
from benchmarks.floor import POOL, POOLS
from pool import Client

SIZES = (1, 10, 50, 250)
CODE = "def main(n):\n    return n\n"


def rate(client: Client, calls: int, size: int) -> float:
    """Calls per second, of `calls` in one map."""
    began = time.perf_counter()
    results = list(client.map(CODE, ([n] for n in range(calls)), entry="main", pool=POOL, chunksize=size))
    took_s = time.perf_counter() - began
    if [each.value for each in results] != list(range(calls)):
        raise RuntimeError("a call has a wrong value")
    return calls / took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    rates: dict[int, list[float]] = {size: [] for size in SIZES}
    with started(POOLS) as daemon, Client(daemon.endpoint, timeout=60) as client:
        for size in SIZES:
            rate(client, 100, size)
        for _ in range(asked.rounds):
            for size, found in rates.items():
                found.append(rate(client, asked.calls, size))
    print(f"{'chunksize':>9} {'calls/s':>9} {'times chunksize 1':>18}")
    for size, found in rates.items():
        ratios = [one / base for one, base in zip(found, rates[1], strict=True)]
        print(f"{size:>9} {statistics.median(found):>9.0f} {statistics.median(ratios):>18.1f}")


if __name__ == "__main__":
    main()

"""The delay of a job's output: from the flush in the container to the callback, on one clock.

    python -m benchmarks.streams [--lines N]

A line says when it was printed, by CLOCK_MONOTONIC, which containers and host share. Bar: 50 ms at the 95th percentile,
on a host that has a processor to spare; the load is in the report.

    paced     a line each 20 ms: what a progress report costs
    burst     a line each 0.2 ms: lines travel together, every 10 ms
    two       two such jobs at once, in two workers, heard by one client
    behind    as `paced`, while another client does not take the output of another job that it asked for
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from benchmarks.daemon import started
from pool.client import Client

BAR_MS = 50.0
CODE = "import time\nfor _ in range({lines}):\n    print(time.monotonic(), flush=True)\n    time.sleep({pause})"
FLOOD = (
    "import time\nprint('go', flush=True)\ntime.sleep(1)\n"
    "for _ in range(60):\n    print('x' * 16_000, flush=True)\ntime.sleep(60)"
)
#: Reads until it is stopped, and then takes nothing.
IDLER = (
    "import sys\nfrom pool import Client\nwith Client(sys.argv[1]) as client:\n"
    "    for _ in client.stream(sys.argv[2]): print('reads', flush=True)"
)


def heard(client: Client, lines: int, pause: float, *, job_id: str | None = None) -> list[float]:
    """Milliseconds from each line's flush to its callback."""
    late: list[float] = []

    def listen(text: str) -> None:
        now = time.monotonic()
        late.extend((now - float(line)) * 1000 for line in text.splitlines())

    result = client.run(CODE.format(lines=lines, pause=pause), pool="reuse", job_id=job_id, on_stdout=listen)
    if not result.ok or len(late) != lines:
        raise RuntimeError(f"{len(late)} of {lines} lines were heard: {result}")
    return late


def two(client: Client, lines: int) -> list[float]:
    with ThreadPoolExecutor(2) as threads:
        return [each for late in threads.map(lambda _: heard(client, lines, 0.02), range(2)) for each in late]


def behind(client: Client, lines: int) -> list[float]:
    """The idler's job prints more than the kernel takes for a reader that stands still."""
    job_id = client.submit(FLOOD, pool="reuse")
    with stopped_reader(client.endpoint, job_id):
        time.sleep(1.5)
        late = heard(client, lines, 0.02)
    client.cancel(job_id)
    return late


@contextmanager
def stopped_reader(endpoint: str, job_id: str) -> Iterator[None]:
    command = [sys.executable, "-c", IDLER, endpoint, job_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        reader.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            reader.kill()


def row(name: str, late: list[float]) -> str:
    cuts = statistics.quantiles(late, n=100)
    return f"{name:<8} {len(late):>6} {cuts[49]:>8.2f} {cuts[94]:>8.2f} {cuts[98]:>8.2f} {max(late):>8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=400)
    lines = parser.parse_args().lines
    cases: dict[str, Callable[[Client], list[float]]] = {
        "paced": lambda client: heard(client, lines, 0.02),
        "burst": lambda client: heard(client, 10 * lines, 0.0002),
        "two": lambda client: two(client, lines),
        "behind": lambda client: behind(client, lines),
    }
    print(f"milliseconds from flush to callback; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print(f"{'case':<8} {'lines':>6} {'p50':>8} {'p95':>8} {'p99':>8} {'most':>8}")
    worst = 0.0
    with started() as daemon, Client(daemon.submit) as client:
        for name, measure in cases.items():
            late = measure(client)
            worst = max(worst, statistics.quantiles(late, n=100)[94])
            print(row(name, late), flush=True)
    print(f"the bar of {BAR_MS:g} ms at the 95th percentile is {'met' if worst <= BAR_MS else 'NOT met'}")


if __name__ == "__main__":
    main()

"""What it costs to accept a job: for each durability, by how many jobs wait, and in memory. Needs no Docker.

python -m benchmarks.acceptance [--waiting 100000]

Three daemons with one worker each, which a job keeps busy, so every other job waits. Submissions to them take turns.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.daemon import Daemon, Pool
from pool.client import Client

DURABILITIES = ("none", "crash", "power")
_ROUNDS = 400
_FEW = 10
_JOB = "result = 1"
_POOL = {
    "size": {"min": 1, "max": 1},
    "preload": {"modules": []},
    "limits": {"wall_s": 3600, "cpu_s": 3600},
    "backlog": {"max_jobs": 1_000_000, "max_per_client": 1_000_000, "max_bytes_per_client": "8g"},
}


def daemon(durability: str, *, pool: Pool = _POOL, engine: str = "process") -> Daemon:
    """`engine`: as for DaemonProcess. Nobody waits for the jobs that are left at its end."""
    return Daemon({"default": pool}, engine=engine, durability=durability, drain_timeout_s=0.1)


def rss_bytes(running: Daemon) -> int:
    return running.status()["daemon"]["rss_bytes"] or 0


def _latencies(clients: Sequence[Client]) -> list[float]:
    """Median milliseconds from the call of submit to its return, of each client."""
    spent: list[list[float]] = [[] for _ in clients]
    for _ in range(_ROUNDS):
        for client, times in zip(clients, spent, strict=True):
            begin = time.perf_counter()
            client.submit(_JOB)
            times.append((time.perf_counter() - begin) * 1000)
    return [statistics.median(times) for times in spent]


def _fill(client: Client, count: int) -> None:
    refused = client.submit_many({"code": _JOB} for _ in range(count)).refused
    if refused:
        raise SystemExit(f"{len(refused)} jobs were refused, such as: {next(iter(refused.values()))}")


@contextmanager
def _filled(durability: str) -> Iterator[tuple[Daemon, Client]]:
    """A daemon with one job that runs and ten that wait."""
    with daemon(durability) as running, running.client(timeout=600) as client:
        running.wait_idle()
        client.submit("import time; time.sleep(3000)")
        _fill(client, _FEW)
        yield running, client


def _compare_durabilities() -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(_filled(durability))[1] for durability in DURABILITIES]
        medians = _latencies(clients)
    for durability, median in zip(DURABILITIES, medians, strict=True):
        print(f"submit to acknowledge, {durability:5}  {median:6.2f} ms   {median / medians[0]:.2f} of none")


def _grow(most: int) -> None:
    """Let more and more jobs wait: what a submission takes then, and what memory each takes."""
    with _filled("crash") as (running, client):
        (first,) = _latencies([client])
        waiting, before = _FEW + _ROUNDS, rss_bytes(running)
        for length in (1_000, most):
            added = length - waiting
            _fill(client, added)
            grown = rss_bytes(running) - before
            (median,) = _latencies([client])
            print(f"{length:7} waiting   submit {median / first:.2f} of the time with {_FEW}")
            waiting, before = length + _ROUNDS, rss_bytes(running)
    print(f"memory of a waiting job, of {added:,}   {grown / added:,.0f} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=100_000, help="from 2000 on")
    most = max(2_000, parser.parse_args().waiting)
    _compare_durabilities()
    _grow(most)


if __name__ == "__main__":
    main()

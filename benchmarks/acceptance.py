"""What it costs to accept a job: for each durability, by how many jobs wait, and in memory. Needs no Docker.

python -m benchmarks.acceptance [--waiting 100000]

Three daemons with one worker each, which a job keeps busy, so every other job waits. Submissions to them take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from pool.client import Client
from pool.client.admin import AdminClient
from pool.status import DaemonStatus, Status

DURABILITIES = ("none", "crash", "power")
_ROUNDS = 400
_FEW = 10
_READY_S = 120.0
_JOB = "result = 1"
_POOL = {
    "size": {"min": 1, "max": 1},
    "preload": {"modules": []},
    "limits": {"wall_s": 3600, "cpu_s": 3600},
    "backlog": {"max_jobs": 1_000_000, "max_per_client": 1_000_000, "max_bytes_per_client": "8g"},
}


@contextmanager
def daemon(
    durability: str, *, pool: Mapping[str, object] = _POOL, program: str = "pool.testing"
) -> Iterator[tuple[Path, int]]:
    """Its run directory, and its pid. `program`: the module to run."""
    with tempfile.TemporaryDirectory(prefix="pool-bench.") as name:
        run_dir, config = Path(name) / "run", Path(name) / "pool.yaml"
        settings = {"run_dir": str(run_dir), "state_dir": f"{name}/state", "durability": durability}
        config.write_text(json.dumps({"daemon": settings | {"log_level": "warning"}, "pools": {"default": pool}}))
        command = [sys.executable, "-m", program, "--config", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            _await(run_dir, process)
            yield run_dir, process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with its workers; nobody waits for their jobs
            process.wait()


def _await(run_dir: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while not (run_dir / "admin.sock").exists() or status(run_dir).state != "running":
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the daemon did not start")
        time.sleep(0.1)


def status(run_dir: Path) -> DaemonStatus:
    with AdminClient(f"ipc://{run_dir}/admin.sock", timeout=60) as admin:
        return msgspec.convert(admin.call("status"), Status).daemon


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
def _filled(durability: str) -> Iterator[tuple[Path, Client]]:
    """A daemon with one job that runs and ten that wait."""
    with daemon(durability) as (run_dir, _), Client(f"ipc://{run_dir}/submit.sock", timeout=600) as client:
        client.submit("import time; time.sleep(3000)")
        _fill(client, _FEW)
        yield run_dir, client


def _compare_durabilities() -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(_filled(durability))[1] for durability in DURABILITIES]
        medians = _latencies(clients)
    for durability, median in zip(DURABILITIES, medians, strict=True):
        print(f"submit to acknowledge, {durability:5}  {median:6.2f} ms   {median / medians[0]:.2f} of none")


def _grow(most: int) -> None:
    """Let more and more jobs wait: what a submission takes then, and what memory each takes."""
    with _filled("crash") as (run_dir, client):
        (first,) = _latencies([client])
        waiting, before = _FEW + _ROUNDS, status(run_dir).rss_bytes or 0
        for length in (1_000, most):
            added = length - waiting
            _fill(client, added)
            grown = (status(run_dir).rss_bytes or 0) - before
            (median,) = _latencies([client])
            print(f"{length:7} waiting   submit {median / first:.2f} of the time with {_FEW}")
            waiting, before = length + _ROUNDS, status(run_dir).rss_bytes or 0
    print(f"memory of a waiting job, of {added:,}   {grown / added:,.0f} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=100_000, help="from 2000 on")
    most = max(2_000, parser.parse_args().waiting)
    _compare_durabilities()
    _grow(most)


if __name__ == "__main__":
    main()
